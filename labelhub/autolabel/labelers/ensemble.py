"""Several labelers, one answer.

With few examples the votes are shared out: the label with the largest sum of scores wins,
and its confidence is that sum divided by the number of voters that did not abstain. A zero-shot guess
speaks only where every other labeler abstains, and its answer is marked as a guess. Asking one language model
again does not make it several labelers: its asks ("llm", "llm_2", "llm_3" ...) are one voter, who says what
``agreed`` makes of them. A second model ("llm_second") is a voter of its own.

Where the examples are enough to calibrate the weak model, several ways are compared by log-loss on examples
that none of them had seen, and the best is kept: the weak model alone, one voter of the given votes alone, the
shares, and a *stacker* (see ``stack``), which learns whom to believe when, and may overrule them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..types import ABSTAINED, ABSTENTION, Answer, Example, GivenVotes, Vote, check_aligned
from .heads import Floats, Ints, log_loss, log_softmax, margins
from .imported import clean
from .rules import NAME as RULES
from .rules import RulesLabeler
from .stack import Stacker, Votes, stack_loss
from .state import Arrays, read_state, write_state
from .weak import NAME as WEAK
from .weak import Evidence, WeakLabeler, WeakModel, ZeroShot, learn_weak, load_model

NAME = "ensemble"
ASKED = "llm"  # the voter that the asks of one language model are, and the name of the first of them

_POWERS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25)  # sharpness tried for the weak model alone
_ASK = re.compile(rf"{ASKED}(_[0-9]+)?")


class EnsembleLabeler:
    """Rules, the weak model and given votes, combined in the way that the examples speak for.

    Args:
        weak: the weak model's labeler.
        rules: the rules' labeler.
        way: "share", "stack", or the one voter that is followed (see ``voter_of``); where that one abstains,
            shares.
        stacker: needed for "stack".
        losses: way to out-of-fold log-loss in nats, as compared; empty with too few examples.
    """

    def __init__(
        self,
        weak: WeakLabeler,
        rules: RulesLabeler,
        way: str = "share",
        stacker: Stacker | None = None,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        self.weak, self.rules, self.way, self.stacker = weak, rules, way, stacker
        self.losses = dict(losses or {})
        self.labels = weak.labels
        self._known = frozenset(weak.labels)
        self._seen = {label for label, seen in zip(self.labels, weak.model.seen, strict=True) if seen}

    @property
    def guess(self) -> bool:
        """True when no example was learned from; see ``Labeler.guess``."""
        return self.weak.guess

    @classmethod
    def learn(
        cls,
        label_schema: Mapping[str, str],
        examples: Sequence[Example],
        rules: Mapping[str, Sequence[str]],
        *,
        given_votes: GivenVotes | None = None,
        texts: Sequence[str] = (),
        fast: bool = False,
        seed: int = 0,
    ) -> EnsembleLabeler:
        """Fit the parts, then choose how to combine them; see ``labelers.learn`` for the arguments."""
        learned = learn_weak(label_schema, examples, texts=texts, fast=fast, seed=seed)
        return cls.combine(*learned, examples, rules, given_votes=given_votes)

    @classmethod
    def combine(
        cls,
        model: WeakModel | ZeroShot,
        evidence: Evidence | None,
        examples: Sequence[Example],
        rules: Mapping[str, Sequence[str]],
        *,
        given_votes: GivenVotes | None = None,
    ) -> EnsembleLabeler:
        """Choose how to combine a weak model with rules and given votes.

        The weak model is most of the work of ``learn``, and the same for all votes: learned once, it serves to
        compare several.

        Args:
            model, evidence: from ``learn_weak`` on these examples.
            examples: the labeled texts.
            rules: label to its rules.
            given_votes: as in ``labelers.learn``.
        Raises: ValueError when a source has another number of votes than there are examples.
        """
        given = check_aligned(len(examples), given_votes)
        weak, ruler = WeakLabeler(model), RulesLabeler.learn(rules, examples)
        plain = cls(weak, ruler)
        if evidence is None:
            return plain
        rows = evidence.rows.tolist()
        shown = [examples[i] for i in rows]
        votes = plain._others([e.text for e in shown], {s: [v[i] for i in rows] for s, v in given.items()})
        votes = {s: v for s, v in votes.items() if any(vote.label is not None for vote in v)}
        if not votes:
            return cls(weak, ruler, WEAK)
        number = {label: k for k, label in enumerate(plain.labels)}
        classes = np.array([number[e.label] for e in shown], np.int64)
        losses = {
            WEAK: _tempered_loss(evidence.log_p, classes),
            "share": plain._share_loss({WEAK: plain._weak_votes(evidence.log_p), **votes}, classes),
            "stack": stack_loss(plain.labels, evidence.folds, evidence.log_p, votes, classes),
            **{
                voter: plain._share_loss(
                    {s: cast for s, cast in votes.items() if voter_of(s) == voter}, classes
                )
                for voter in dict.fromkeys(voter_of(source) for source in votes if source != RULES)
            },
        }
        way = min(losses, key=lambda name: losses[name])
        stacker = Stacker.learn(plain.labels, evidence.log_p, votes, classes) if way == "stack" else None
        return cls(weak, ruler, way, stacker, losses)

    def label(self, texts: Sequence[str], given_votes: GivenVotes | None = None) -> list[Answer]:
        """Answer for each text; see ``Labeler.label``."""
        others = self._others(texts, check_aligned(len(texts), given_votes))
        answers: list[Answer] = []
        for weak_votes, _, log_p in self.weak.blocks(texts):
            here = slice(len(answers), len(answers) + len(weak_votes))
            answers += self._combine(weak_votes, log_p, {s: votes[here] for s, votes in others.items()})
        return answers

    def explain(self, text: str, label: str) -> list[str]:
        """Return what the rules match for the label, then the weak model's words."""
        found = [*self.rules.explain(text, label), *self.weak.explain(text, label)]
        return list(dict.fromkeys(found))[:5]

    def to_state(self) -> bytes:
        """Return everything learned as bytes."""
        facts: dict[str, Any] = {
            "method": NAME,
            "labels": self.labels,
            "weak": self.weak.model.facts(),
            "rules": self.rules.facts(),
            "way": self.way,
            "losses": self.losses,
        }
        arrays: Arrays = self.weak.model.arrays()
        if self.stacker:
            facts["stacker"] = self.stacker.facts()
            arrays.update(self.stacker.arrays())
        return write_state(facts, arrays)

    @classmethod
    def from_state(cls, state: bytes) -> EnsembleLabeler:
        """Undo ``to_state``."""
        facts, arrays = read_state(state)
        labels = facts["labels"]
        stacker = Stacker.load(labels, facts["stacker"], arrays) if "stacker" in facts else None
        weak = WeakLabeler(load_model(labels, facts["weak"], arrays))
        rules = RulesLabeler(facts["rules"]["rules"], facts["rules"]["record"])
        return cls(weak, rules, facts["way"], stacker, facts["losses"])

    def _others(self, texts: Sequence[str], given: GivenVotes) -> dict[str, list[Vote]]:
        """Return everyone's votes but the weak model's."""
        others = {source: [clean(vote, self._known) for vote in votes] for source, votes in given.items()}
        if self.rules.rules:
            others[RULES] = self.rules.vote(texts)
        return others

    def _combine(self, weak_votes: list[Vote], log_p: Floats, others: Votes) -> list[Answer]:
        """Answer for one block of texts."""
        names = [WEAK, *others]
        table = [dict(zip(names, row, strict=True)) for row in zip(weak_votes, *others.values(), strict=True)]
        if self.way == "stack" and self.stacker:
            blank = [i for i, vote in enumerate(weak_votes) if vote.label is None]
            if blank:  # nothing was read: every label is as likely as any other
                log_p = log_p.copy()
                log_p[blank] = -np.log(len(self.labels))
            stacked = np.exp(self.stacker.log_probabilities(log_p, others))
            best, surest = stacked.argmax(axis=1).tolist(), stacked.max(axis=1).tolist()
            return [
                self._answer(self.labels[k], p, votes)
                if any(vote.label is not None for name, vote in votes.items() if name != WEAK)
                else self._share(
                    votes
                )  # the stacker counts on the others: without them the weak model knows better
                for k, p, votes in zip(best, surest, table, strict=True)
            ]
        return [self._share(votes) for votes in table]

    def _share(self, votes: dict[str, Vote]) -> Answer:
        followed = _by_voter(votes).get(self.way, ABSTENTION)
        if followed.label is not None:
            return self._answer(followed.label, followed.score, votes)
        shares = _shares(votes, self.guess)
        if not shares:
            return _abstain(votes)
        label = max(shares, key=lambda name: shares[name])
        return self._answer(label, shares[label], votes)

    def _answer(self, label: str, confidence: float, votes: dict[str, Vote]) -> Answer:
        """Return an answer, marked as a guess where no example had the label and no other labeler backs it."""
        backed = label in self._seen or any(v.label == label for name, v in votes.items() if name != WEAK)
        return Answer(label, min(confidence, 1.0), None, votes, not backed)

    def _weak_votes(self, log_p: Floats) -> list[Vote]:
        """Return the weak model's votes, with its calibrated confidence where it has one."""
        platt = self.weak.model.platt
        sure = platt(margins(log_p)) if platt else np.exp(log_p.max(axis=1))
        best = log_p.argmax(axis=1).tolist()
        return [Vote(self.labels[k], p) for k, p in zip(best, sure.tolist(), strict=True)]

    def _share_loss(self, votes: Votes, classes: Ints) -> float:
        """Return the log-loss of the shares; what they leave is spread over all labels."""
        number = {label: k for k, label in enumerate(self.labels)}
        p = np.zeros((len(classes), len(number)))
        for i, row in enumerate(zip(*votes.values(), strict=True)):
            for label, share in _shares(dict(zip(votes, row, strict=True)), False).items():
                p[i, number[label]] = share
        p += (1 - p.sum(axis=1, keepdims=True)) / len(self.labels) + 1e-6
        return log_loss(np.log(p / p.sum(axis=1, keepdims=True)), classes)


def voter_of(source: str) -> str:
    """Return who speaks under a source's name: "llm" for every ask of one language model, else the name."""
    return ASKED if _ASK.fullmatch(source) else source


def agreed(votes: Mapping[str, Vote]) -> Vote:
    """Return what the asks of one language model say together.

    Its label is the one that most asks gave; of equally many, the one that is surer in sum, and then the one
    that was given first. Its score is the mean score of the asks that gave it times their share of all that
    answered: three asks that agree at .9 stay at .9, two of three come to .6. So agreement never makes the
    model surer than it said it was, and disagreement makes it less sure. One ask is given back as it is.

    Args:
        votes: source name to vote; only the asks of the first model count ("llm", "llm_2", ...; see
            ``voter_of``), and of these only those that did not abstain.
    Returns: one vote, with the first quote for its label; an abstention when no ask answered.
    """
    by_label: dict[str, list[Vote]] = {}
    for source, vote in votes.items():
        if vote.label is not None and voter_of(source) == ASKED:
            by_label.setdefault(vote.label, []).append(vote)
    if not by_label:
        return ABSTENTION
    answered = sum(map(len, by_label.values()))
    label = max(by_label, key=lambda name: (len(by_label[name]), sum(vote.score for vote in by_label[name])))
    score = sum(vote.score for vote in by_label[label]) / answered  # mean of those that agree x their share
    return Vote(label, score, next((vote.evidence for vote in by_label[label] if vote.evidence), ""))


def _by_voter(votes: Mapping[str, Vote]) -> dict[str, Vote]:
    """Return one vote for each voter."""
    voters = {voter_of(source): vote for source, vote in votes.items()}
    return voters | {ASKED: agreed(votes)} if ASKED in voters else voters


def _shares(votes: Mapping[str, Vote], weak_is_guess: bool) -> dict[str, float]:
    """Return each voted label's sum of scores, divided by the number of voters that voted."""
    said = {voter: vote for voter, vote in _by_voter(votes).items() if vote.label is not None}
    cast = [vote for voter, vote in said.items() if not (weak_is_guess and voter == WEAK)]
    if not cast:
        cast = list(said.values())
    shares: dict[str, float] = {}
    for vote in cast:
        if vote.label is not None:
            shares[vote.label] = shares.get(vote.label, 0.0) + vote.score / len(cast)
    return shares


def _tempered_loss(log_p: Floats, classes: Ints) -> float:
    """Return the weak model's log-loss at its best sharpness, so that it loses only on substance."""
    return min(log_loss(log_softmax(power * log_p), classes) for power in _POWERS)


def _abstain(votes: dict[str, Vote]) -> Answer:
    return Answer(None, 0.0, ABSTAINED, votes)
