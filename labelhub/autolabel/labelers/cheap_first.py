"""A language model beside labelers that cost nothing: asked only where those are unsure, and believed as it deserves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from ..types import ABSTAINED, ABSTENTION, Answer, Example, Labeler, Vote
from .llm import CallFailed, Claude
from .prompt import Prompt, cut
from .reply import Said
from .shots import choose_examples, most_to_show
from .suspicion import suspicious
from .talk import ask_all

NAME = "llm"
SURE = 0.95  # confidence from which the others' answer stands without asking
MOST_ASKED = 200  # examples that are put to the model, to learn how far to believe it


@dataclass
class Account:
    """What asking came to, over several calls.

    Attributes:
        failures: problem code to how many texts had it.
        cost_usd: what all answers cost, or None once a model was asked that has no price in our table.
        known: fingerprint of a question to what was said about each text; nothing is asked and paid for twice.
    """

    failures: Counter[str] = field(default_factory=Counter)
    cost_usd: Decimal | None = Decimal(0)
    known: dict[str, dict[str, Said]] = field(default_factory=dict)

    def pay(self, cost_usd: Decimal) -> None:
        """Add what one answer cost."""
        if self.cost_usd is not None:
            self.cost_usd += cost_usd


class LanguageModel:
    """A language model with one question, asked until it fails in a way that waiting does not mend.

    Args:
        client: the door to the model.
        model: its id.
        label_schema: label name to definition.
        examples: labeled texts; a few of them, see ``shots.most_to_show``, are shown to the model.
        guidelines: what holds for all labels; may be empty.
        seed: of the choice of examples and of delays.
        account: where failures, costs and answers are kept.
    Raises: ValueError when an example has a label outside the schema, or a label's name cannot be sent.
    """

    def __init__(
        self,
        client: Claude,
        model: str,
        label_schema: Mapping[str, str],
        examples: Sequence[Example],
        *,
        guidelines: str,
        seed: int,
        account: Account,
    ) -> None:
        strange = sorted({example.label for example in examples} - set(label_schema))
        if strange:
            raise ValueError(f"An example has the label “{strange[0]}”, which is not one of the labels.")
        self.failure: CallFailed | None = None
        self.labels = list(label_schema)
        shown = _shown(examples, self.labels, seed)
        self.prompt = Prompt(tuple(label_schema.items()), guidelines, shown)
        self._client, self._model, self._seed, self._account = client, model, seed, account
        self._known = account.known.setdefault(self.prompt.fingerprint(model), {})

    @property
    def trouble(self) -> str:
        """Why the asking stopped, in one sentence; empty when it did not."""
        if self.failure is None:
            return ""
        if not self.failure.transient:
            return self.failure.sentence
        # The sentence goes on with "the request is sent again", which is over now.
        reason = self.failure.sentence.partition(";")[0].rstrip(".")
        return f"The language model was asked several times in vain, then no more: {reason}."

    def close(self) -> None:
        """Close the connections; whatever is still under way ends."""
        self._client.close()

    def ask(self, texts: Sequence[str]) -> list[Said | str | None]:
        """Return what the model says about each text, or a problem code, or None for a text without words.

        After a failure that stopped the asking, every text that is still unknown has "llm_error".
        """
        as_sent = [cut(text) for text in texts]
        unknown = [text for text in dict.fromkeys(as_sent) if text.strip() and text not in self._known]
        problems = dict.fromkeys(unknown, "llm_error")
        if unknown and self.failure is None:
            talk = ask_all(
                self._client, self.prompt, self._model, unknown, seed=self._seed, on_cost=self._account.pay
            )
            self.failure = talk.failure
            if talk.cost_usd is None:
                self._account.cost_usd = None
            for text, outcome in zip(unknown, talk.outcomes, strict=True):
                if isinstance(outcome, Said):
                    self._known[text] = outcome
                else:
                    problems[text] = outcome
        outcomes = [self._known.get(text) or problems.get(text) for text in as_sent]
        self._account.failures.update(outcome for outcome in outcomes if isinstance(outcome, str))
        return outcomes

    def label(self, texts: Sequence[str]) -> list[Answer]:
        """Answer for each text by the model alone; its stated confidence is the confidence."""
        answers = []
        for outcome in self.ask(texts):
            vote = _vote(outcome)
            problem = outcome if isinstance(outcome, str) else ABSTAINED if outcome is None else None
            answers.append(Answer(vote.label, vote.score, problem, {NAME: vote}))
        return answers

    def votes(self, texts: Sequence[str]) -> list[Vote]:
        """Return a vote for each text: an abstention where there is no answer.

        A text that looks like an instruction to the labeler is not asked about: its vote would not count.
        """
        plain = [i for i, text in enumerate(texts) if suspicious(text, self.labels) is None]
        votes = [ABSTENTION] * len(texts)
        for i, outcome in zip(plain, self.ask([texts[i] for i in plain]), strict=True):
            votes[i] = _vote(outcome)
        return votes

    def votes_on_examples(self, examples: Sequence[Example]) -> list[Vote]:
        """Return a vote for each example: of up to MOST_ASKED, drawn by the seed, that the prompt does not show."""
        shown = {example.text for example in self.prompt.examples}
        unseen = [text for text in dict.fromkeys(e.text for e in examples) if text not in shown]
        drawn = random.Random(self._seed).sample(unseen, min(MOST_ASKED, len(unseen)))
        votes = dict(zip(drawn, self.votes(drawn), strict=True))
        return [votes.get(example.text, ABSTENTION) for example in examples]


def label_cheap_first(
    model: LanguageModel, rest: Labeler, together: Callable[[], Labeler], texts: Sequence[str]
) -> list[Answer]:
    """Answer for each text by the others, and with the model where they guess or are less than SURE.

    Args:
        model: the language model.
        rest: the others' labeler, learned without the model's votes; it keeps the last word where there is no vote.
        together: gives the labeler that was learned with the model's votes; called only if the model is needed.
        texts: what to label.
    """
    answers = rest.label(texts)
    unsure = [i for i, answer in enumerate(answers) if answer.guess or answer.confidence < SURE]
    if not unsure:
        return answers
    asked = [texts[i] for i in unsure]
    labeler = together()
    votes = model.votes(asked)
    for i, vote, answer in zip(unsure, votes, labeler.label(asked, {NAME: votes}), strict=True):
        if vote.label is not None:
            answers[i] = answer
    return answers


def _vote(outcome: Said | str | None) -> Vote:
    return Vote(outcome.label, outcome.confidence, outcome.quote) if isinstance(outcome, Said) else ABSTENTION


def _shown(examples: Sequence[Example], labels: Collection[str], seed: int) -> tuple[Example, ...]:
    """Return examples for the prompt, chosen from all alike, and none that gives orders.

    The texts to be labeled have no say, so the question stays the same from call to call and answers stay known.
    """
    pool = list({example.text: example for example in reversed(examples)}.values())[::-1]
    chosen = choose_examples(pool, (), most_to_show(len(labels)), seed)
    return tuple(pool[i] for i in chosen if suspicious(pool[i].text, labels) is None)
