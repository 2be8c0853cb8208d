"""The labeling methods: learn one from examples, keep it as bytes, build it again, let it label.

``learn`` and ``build`` are the only doors; what comes out of ``build`` is a ``Labeler`` (see ``types``).
A state holds numbers and text, never code, and the same inputs and seed give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..types import Answer, Example, GivenVotes, Labeler, LabelerUnavailable, Vote
from . import ensemble, imported, rules, weak
from .rules import check_rules
from .state import read_state

METHODS = (rules.NAME, weak.NAME, imported.NAME, ensemble.NAME)

__all__ = [
    "METHODS",
    "Answer",
    "Example",
    "Labeler",
    "LabelerUnavailable",
    "Vote",
    "build",
    "check_rules",
    "check_schema",
    "explain",
    "learn",
]


def learn(
    method: str,
    label_schema: Mapping[str, str],
    examples: Sequence[Example],
    *,
    settings: Mapping[str, Any],
    seed: int,
    texts: Sequence[str] = (),
    given_votes: GivenVotes | None = None,
) -> bytes:
    """Fit a method and return what it learned.

    Args:
        method: one of METHODS.
        label_schema: label name to definition; a definition may hold rules (see ``labelers.rules``).
        examples: labeled texts, may be empty; then the labels of "weak_model" and "ensemble" are guesses.
        settings: "rules", optional, {label: [rule, ...]} beside those in the definitions; "fast", optional:
            the word view alone decides where it is sure, for runs above 100,000 texts.
        seed: deals the examples into folds; not negative.
        texts: a sample of what will be labeled, may be empty; sharpens guesses.
        given_votes: votes that came from elsewhere, by source name, one per example; an ensemble learns how
            far to believe them. A missing vote is an abstention.
    Returns: the state, for ``build``.
    Raises: ValueError on an unknown method, an empty label set, an example whose label is not in it, votes
        that do not match the examples in number, or a rule that cannot work.
    """
    check_schema(label_schema)
    strange = sorted({e.label for e in examples} - set(label_schema))
    if strange:
        raise ValueError(f"An example has the label “{strange[0]}”, which is not one of the labels.")
    typed, fast = settings.get("rules") or {}, bool(settings.get("fast"))
    if method == rules.NAME:
        ruler = rules.RulesLabeler.learn(rules.gather(label_schema, typed), examples)
        return ruler.to_state(list(label_schema))
    if method == weak.NAME:
        model, _ = weak.learn_weak(label_schema, examples, texts=texts, fast=fast, seed=seed)
        return weak.WeakLabeler(model).to_state()
    if method == imported.NAME:
        return imported.ImportedLabeler(label_schema).to_state()
    if method == ensemble.NAME:
        written = rules.gather(label_schema, typed)
        return ensemble.EnsembleLabeler.learn(
            label_schema, examples, written, given_votes=given_votes, texts=texts, fast=fast, seed=seed
        ).to_state()
    raise ValueError(_unknown(method))


def build(method: str, label_schema: Mapping[str, str], state: bytes) -> Labeler:
    """Return the labeler that ``learn`` fitted.

    Raises: ValueError when the state is damaged, was learned by another method, or knows a label that is
        no longer in the schema. A label added since then is simply never answered.
    """
    if method not in METHODS:
        raise ValueError(_unknown(method))
    facts, _ = read_state(state)
    if facts["method"] != method:
        raise ValueError(f"This labeler was learned as {facts['method']}, not as {method}.")
    gone = [label for label in facts["labels"] if label not in label_schema]
    if gone:
        raise ValueError(
            f"This labeler was learned with the label “{gone[0]}”, which is gone: learn it again."
        )
    if method == rules.NAME:
        return rules.RulesLabeler.from_state(state)
    if method == weak.NAME:
        return weak.WeakLabeler.from_state(state)
    if method == imported.NAME:
        return imported.ImportedLabeler.from_state(state)
    return ensemble.EnsembleLabeler.from_state(state)


def explain(labeler: Labeler, text: str, label: str) -> list[str]:
    """Return up to five words or quotes of a text that speak for a label, strongest first.

    Takes about as long as labeling the text again; meant for the one card that a person looks at.
    """
    return labeler.explain(text, label)


def check_schema(label_schema: Mapping[str, str]) -> None:
    """Refuse a label set that nothing can be learned for, or whose definitions hold a rule that cannot work.

    Raises: ValueError with one sentence.
    """
    if not label_schema:
        raise ValueError("There are no labels to choose from.")
    if not all(isinstance(label, str) and label.strip() for label in label_schema):
        raise ValueError("Every label needs a name.")
    if not all(isinstance(definition, str) for definition in label_schema.values()):
        raise ValueError("Every definition must be a text; leave it empty where there is none.")
    rules.gather(label_schema, {})


def _unknown(method: str) -> str:
    return f"There is no method “{method}”; choose one of {', '.join(METHODS)}."
