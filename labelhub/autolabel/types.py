"""The words the engine speaks: what goes into a labeler and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

ABSTAINED = "abstained"


class LabelerUnavailable(RuntimeError):
    """A labeling method exists by name but cannot work here; the message says why."""


class Vote(NamedTuple):
    """What one labeler says about one text.

    Attributes:
        label: the label's name, or None for an abstention.
        score: how sure the labeler says it is, in [0, 1]; 0 for an abstention. Not a probability.
        evidence: a short quote from the text that speaks for the label; may be empty.
    """

    label: str | None
    score: float
    evidence: str = ""


ABSTENTION = Vote(None, 0.0)


class Example(NamedTuple):
    """A text whose label is known: given with the file, or decided by a person."""

    text: str
    label: str


class Answer(NamedTuple):
    """What a method says about one text, with the votes behind it.

    Attributes:
        label: the label's name, or None when there is a problem.
        confidence: in [0, 1], larger is surer; 0 when there is a problem.
        problem: None, or why there is no label: "abstained" when no labeler had anything to say.
        votes: labeler name to vote, abstentions included.
        guess: nobody has shown an example of this label, so it was guessed from the label's name and
            definition. A guess is never accepted unseen, whatever its confidence.
    """

    label: str | None
    confidence: float
    problem: str | None
    votes: dict[str, Vote]
    guess: bool = False


GivenVotes = Mapping[str, Sequence[Vote]]


class Labeler(Protocol):
    """A learned method, ready to label."""

    @property
    def guess(self) -> bool:
        """True when no example was learned from, so that labels are guesses from the definitions."""
        ...

    def label(self, texts: Sequence[str], given_votes: GivenVotes | None = None) -> list[Answer]:
        """Answer for each text, in order.

        Args:
            texts: what to label.
            given_votes: votes that exist already, one per text under each source's name; the file's own
                predictions come as "imported".
        Raises: ValueError when a source has another number of votes than there are texts.
        """
        ...

    def explain(self, text: str, label: str) -> list[str]:
        """Return up to five words or quotes of the text that speak for a label, strongest first."""
        ...


def check_aligned(count: int, given_votes: GivenVotes | None) -> GivenVotes:
    """Return the given votes, or nothing when there are none.

    Raises: ValueError when a source has another number of votes than ``count``.
    """
    for source, votes in (given_votes or {}).items():
        if len(votes) != count:
            raise ValueError(f"{source} has {len(votes)} votes for {count} texts")
    return given_votes or {}
