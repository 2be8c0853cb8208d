"""The settings of the language model: which one is asked, with which key, and where texts go.

The newest row counts. A key is stored encrypted, never shown again, and leaves only towards the address of the model.
"""

from __future__ import annotations

import base64
import functools
import html
import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from datasets.models import Call, ModelSettings, record

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

    from labelhub.autolabel.labelers.llm import CallFailed, Claude

DEFAULT_HOST = "api.anthropic.com"
PAGE_TIMEOUT_SECONDS = 8.0  # somebody waits for a page
NO_KEY = (
    "No key for the language model: an owner can type one in under Settings > Language model, "
    "or set ANTHROPIC_API_KEY."
)
UNREADABLE = (
    "The stored key of the language model cannot be read, since the secret key of this site has changed: "
    "an owner can type it in again under Settings > Language model."
)
REFUSED = (
    "Anthropic does not accept the key of this site: an owner can type in another one under "
    "Settings > Language model, or set ANTHROPIC_API_KEY."
)
_INFO = b"labelhub: key of the language model, version 1"  # binds the derived key to this one use
_LIKE_A_KEY = re.compile(r"sk-ant-[A-Za-z0-9_-]+")


# What is set


def current() -> ModelSettings:
    """Return the settings in force: the newest row, or an unsaved one with the defaults."""
    return ModelSettings.objects.order_by("-pk").first() or ModelSettings(model=settings.LABELHUB_MODEL)


def save(
    user: User,
    *,
    model: str,
    second_model: str = "",
    asks: int = 1,
    at_once: int = 8,
    per_minute: int | None = None,
    key: str = "",
) -> ModelSettings:
    """Write the settings as a new row; rows are facts and are not changed.

    Args:
        user: who says so; stands in the audit trail.
        model: asked about every text.
        second_model: asked where the labelers disagree; empty for none.
        asks: wordings, in [1, 5].
        at_once: calls under way at the same time, in [1, 64].
        per_minute: calls a minute; None for as many as go.
        key: a new key; empty keeps the one that is stored. One that is replaced is erased.
    """
    told = {
        "model": model,
        "second_model": second_model,
        "asks": asks,
        "at_once": at_once,
        "per_minute": per_minute,
    }
    with transaction.atomic():
        if key:
            _erase()
        made = ModelSettings.objects.create(
            **told,
            key=_encrypt(key) if key else None,
            key_at=timezone.now() if key else None,
            by=user,
        )
        record(user, None, "model settings changed", **told, key="typed in" if key else "kept")
    return made


def forget(user: User) -> ModelSettings:
    """Erase the stored key from every row, and say so in a new one that is otherwise like the last."""
    last = current()
    with transaction.atomic():
        _erase()
        made = ModelSettings.objects.create(
            model=last.model,
            second_model=last.second_model,
            asks=last.asks,
            at_once=last.at_once,
            per_minute=last.per_minute,
            by=user,
        )
        record(user, None, "model settings changed", model=last.model, key="forgotten")
    return made


def _erase() -> None:
    """Delete the stored bytes; on SQLite also from the pages that the file keeps for reuse."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA secure_delete=ON")
    ModelSettings.objects.exclude(key=None).update(key=None)
    if connection.vendor == "sqlite":
        transaction.on_commit(_empty_write_ahead_log, robust=True)


def _empty_write_ahead_log() -> None:
    with connection.cursor() as cursor:  # a reader at work makes this do less, and the next one do more
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# The key


@dataclass(frozen=True)
class KeyState:
    """What may be said about the key: where it comes from, since when and by whom; never the key."""

    source: str  # "environment", "stored", "unreadable" or "none"
    since: datetime | None = None
    by: User | None = None


def key_state() -> KeyState:
    """Return where the key comes from."""
    return _look_up()[0]


def key() -> str:
    """Return the key: the environment's, else the stored one; empty if there is none that can be read."""
    return _look_up()[1]


def has_stored() -> bool:
    """Whether a key is stored, be it in use or not."""
    return ModelSettings.objects.exclude(key=None).exists()


def _look_up() -> tuple[KeyState, str]:
    if settings.ANTHROPIC_API_KEY:
        return KeyState("environment"), Secret(settings.ANTHROPIC_API_KEY)
    # A row holds a key only where one was typed in, so its time and person are those of the key.
    row = ModelSettings.objects.exclude(key=None).select_related("by").order_by("-pk").first()
    if row is None:
        return KeyState("none"), ""
    found = _decrypt(bytes(row.key or b""))
    return KeyState("stored" if found else "unreadable", row.key_at, row.by), found


@functools.lru_cache(maxsize=2)
def _cipher(secret_key: str) -> Fernet:
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))


def _encrypt(plain: str) -> bytes:
    return _cipher(settings.SECRET_KEY).encrypt(keep_out(plain).encode())


def _decrypt(stored: bytes) -> str:
    """Return the key, or nothing where the site's secret key is another one than when it was stored."""
    from cryptography.fernet import InvalidToken

    try:
        return keep_out(_cipher(settings.SECRET_KEY).decrypt(stored).decode())
    except InvalidToken:
        return ""


# The model


_clients: dict[tuple[int, str, str, float], Claude] = {}


def client(timeout_seconds: float = 0.0) -> Claude:
    """Return the client for the key in force, always the same one within a process.

    Args:
        timeout_seconds: for one answer; 0 for the usual one.
    Raises: llm.CallFailed of kind "key" where there is no key.
    """
    from labelhub.autolabel.labelers.llm import TIMEOUT_SECONDS, CallFailed

    plain = key()
    if not plain:
        raise CallFailed("key", missing())
    return _client(plain, timeout_seconds or TIMEOUT_SECONDS)


def _client(plain: str, timeout_seconds: float) -> Claude:
    from labelhub.autolabel.labelers.llm import Claude

    # With the process in its name, so that a forked worker opens sockets of its own.
    name = (os.getpid(), plain, settings.ANTHROPIC_BASE_URL, timeout_seconds)
    if name not in _clients:
        for old in [old for old in _clients if old[0] == name[0] and old[1:3] != name[1:3]]:
            _clients.pop(old, None)
        _clients.setdefault(name, Claude(plain, settings.ANTHROPIC_BASE_URL, timeout_seconds))
    return _clients[name]


def missing() -> str:
    """Return why the model cannot be asked, in one sentence; empty if it can."""
    state, plain = _look_up()
    if plain:
        return ""
    return UNREADABLE if state.source == "unreadable" else NO_KEY


def say(error: CallFailed) -> str:
    """Return the sentence of a failed call, for people who set the key here."""
    return REFUSED if error.kind == "key" and key() else error.sentence


def check() -> str:
    """Return why the model in force cannot be asked, in one sentence, as far as the API says; empty if it can.

    An API that cannot be reached now is no reason: a run waits for it.
    """
    from labelhub.autolabel.labelers.llm import CallFailed

    site = current()
    try:
        for model in filter(None, (site.model, site.second_model)):
            if problem := client(PAGE_TIMEOUT_SECONDS).check_model(model):
                return problem
    except CallFailed as error:
        return say(error) if error.fatal else ""
    return ""


def where() -> str:
    """Return the host that texts are sent to, with its port where that is not the usual one."""
    parts = urlsplit(settings.ANTHROPIC_BASE_URL)
    if not parts.hostname:
        return DEFAULT_HOST
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port}" if parts.port else host


def is_local() -> bool:
    """Whether texts stay on this computer: then a stand-in answers, or a gateway of one's own."""
    host = urlsplit(settings.ANTHROPIC_BASE_URL).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def last_was_fake() -> bool:
    """Whether the latest answer came from the local stand-in."""
    latest = Call.objects.filter(settled_at__isnull=False).order_by("-settled_at").first()
    return latest is not None and latest.fake


# What must not be seen


class Secret(str):
    """A text that does not show itself where variables are printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "[key]"


_seen: set[str] = set()  # keys that this process has met


def keep_out(plain: str) -> Secret:
    """Remember a key, so that no log line and no error page of this process shows it, and return it."""
    if plain:
        _seen.add(str(plain))
    return Secret(plain)


def redact(text: str) -> str:
    """Return the text without any key that this process knows, and without what looks like one."""
    for plain in sorted({settings.ANTHROPIC_API_KEY, *_seen} - {""}, key=len, reverse=True):
        for form in (plain, html.escape(plain), repr(plain)[1:-1]):
            text = text.replace(form, "[key]")
    return _LIKE_A_KEY.sub("[key]", text)


class _Filter(SafeExceptionReporterFilter):
    """Hides fields that are called like one, and variables that hold a key: printed, they may be cut or broken up."""

    def get_post_parameters(self, request: Any) -> Any:
        sent = super().get_post_parameters(request)
        return {name: self.cleanse_setting(name, value) for name, value in sent.items()}

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> Any:
        return [
            (name, _hide(value)) for name, value in super().get_traceback_frame_variables(request, tb_frame)
        ]


def _hide(value: Any) -> Any:
    try:
        shown = repr(value)
    except Exception:  # a half-built object; Django says so in its place
        return value
    return value if redact(shown) == shown else Secret("[key]")


class Report(ExceptionReporter):
    """The error page of a developer, without keys."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filter = _Filter()

    def get_traceback_html(self) -> str:  # type: ignore[override]  # it is not markup any more
        """Return the page."""
        return redact(super().get_traceback_html())

    def get_traceback_text(self) -> str:  # type: ignore[override]
        """Return the page as plain text."""
        return redact(super().get_traceback_text())
