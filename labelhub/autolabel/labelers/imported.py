"""Labels and scores that came with the file, repeated as they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..types import ABSTAINED, ABSTENTION, Answer, GivenVotes, Vote, check_aligned
from .state import read_state, write_state

NAME = "imported"


class ImportedLabeler:
    """Answers with the votes given under "imported"; their score is the confidence, as stated.

    Where there is no vote, or its label is not one of ours, the labeler abstains. A missing score (not a
    number) counts as 0 and one outside [0, 1] as the nearer end, so neither can look sure by mistake.
    """

    guess = False

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = list(labels)
        self._known = frozenset(self.labels)

    def label(self, texts: Sequence[str], given_votes: GivenVotes | None = None) -> list[Answer]:
        """Answer for each text with its given vote; see ``Labeler.label``."""
        votes = check_aligned(len(texts), given_votes).get(NAME, [ABSTENTION] * len(texts))
        answers = []
        for vote in (clean(vote, self._known) for vote in votes):
            problem = ABSTAINED if vote.label is None else None
            answers.append(Answer(vote.label, vote.score, problem, {NAME: vote}))
        return answers

    def explain(self, text: str, label: str) -> list[str]:
        """Return nothing: whoever made these labels kept the reasons."""
        return []

    def to_state(self) -> bytes:
        """Return the label set as bytes."""
        return write_state({"method": NAME, "labels": self.labels}, {})

    @classmethod
    def from_state(cls, state: bytes) -> ImportedLabeler:
        """Undo ``to_state``."""
        facts, _ = read_state(state)
        return cls(facts["labels"])


def clean(vote: Vote, known: frozenset[str]) -> Vote:
    """Return a given vote with a known label and a score in [0, 1], or an abstention."""
    if vote.label not in known:
        return ABSTENTION
    score = 0.0 if math.isnan(vote.score) else min(max(float(vote.score), 0.0), 1.0)
    return Vote(vote.label, score, vote.evidence)
