"""The models that the local server says it has: active, deprecated and retired ones, as the API lists them."""

from __future__ import annotations

from typing import Any

RETIRED = {  # model: the day it ended
    "claude-3-7-sonnet-20250219": "2026-02-19",
    "claude-3-5-haiku-20241022": "2026-02-19",
    "claude-3-5-sonnet-20241022": "2025-10-28",
    "claude-opus-4-20250514": "2026-06-15",
    "claude-sonnet-4-20250514": "2026-06-15",
    "claude-mythos-preview": "2026-06-30",
}
DEPRECATED = {"claude-sonnet-4-5-20250929": "2026-11-30"}  # model: the day it will end
ACTIVE = (  # newest first, as the API lists them
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-fable-5-2",
    "claude-mythos-5-2",
    "claude-sonnet-5",
    "claude-opus-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
    "claude-opus-4-5-20251101",
    "claude-haiku-4-5-20251001",
)
ALIASES = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-3-7-sonnet-latest": "claude-3-7-sonnet-20250219",
    "claude-3-5-haiku-latest": "claude-3-5-haiku-20241022",
    "claude-opus-4-0": "claude-opus-4-20250514",
    "claude-sonnet-4-0": "claude-sonnet-4-20250514",
}
WITHOUT_EFFORT = ("claude-haiku-4", "claude-sonnet-4-5", "claude-3")


def _info(model: str, created: str, lifecycle: str, ends: str | None) -> dict[str, Any]:
    older = model.startswith(("claude-3", "claude-opus-4", "claude-sonnet-4", "claude-haiku-4"))
    yes, no = {"supported": True}, {"supported": False}
    effort = no if model.startswith(WITHOUT_EFFORT) else yes
    words = [word for word in model.split("-") if not (word.isdigit() and len(word) == 8)]
    line = next((word for word in words if word in ("haiku", "sonnet", "opus", "fable", "mythos")), None)
    numbers = ".".join(word for word in words if word.isdigit())
    return {
        "type": "model",
        "id": model,
        "display_name": f"Claude {(line or '').title()} {numbers}".strip(),
        "created_at": f"{created}T00:00:00Z",
        "lifecycle": lifecycle,
        "deprecated_at": None if lifecycle == "active" else f"{created}T00:00:00Z",
        "retires_at": f"{ends}T00:00:00Z" if ends else None,
        "line": line,
        "max_input_tokens": 200_000 if older else 1_000_000,
        "max_tokens": 64_000 if older else 128_000,
        "capabilities": {
            "batch": yes,
            "citations": yes,
            "code_execution": no,
            "context_management": {"supported": False},
            "effort": {
                **effort,
                "low": effort,
                "medium": effort,
                "high": effort,
                "max": effort,
                "xhigh": effort,
            },
            "image_input": no,
            "pdf_input": no,
            "server_tools": {"supported": False, "code_execution": no, "web_search": no},
            "structured_outputs": yes,
            "thinking": {
                "supported": False,
                "types": {"adaptive": no, "between_tools": no, "disabled": yes, "enabled": no},
            },
        },
    }


def _catalogue() -> dict[str, dict[str, Any]]:
    models: list[tuple[str, str, str | None]] = [(name, "active", None) for name in ACTIVE]
    models += [(name, "deprecated", day) for name, day in DEPRECATED.items()]
    models += [(name, "retired", day) for name, day in RETIRED.items()]
    found = {}
    for age, (name, lifecycle, ends) in enumerate(models):  # a day of its own for each keeps the order
        found[name] = _info(name, f"2025-{12 - age // 28:02d}-{28 - age % 28:02d}", lifecycle, ends)
    return found


CATALOGUE = _catalogue()


def find(model: object) -> dict[str, Any] | None:
    """Return what the API says about a model or an alias of one, or None if there is no such model."""
    if not isinstance(model, str):
        return None
    return CATALOGUE.get(ALIASES.get(model, model))


def knows_effort(model: str) -> bool:
    """Return whether a model takes ``output_config.effort``; the API refuses it for the others."""
    return not model.startswith(WITHOUT_EFFORT)
