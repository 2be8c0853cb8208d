"""Texts in, labels out: the engine as a library of its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from .labelers import build, cheap_first, check_schema, ensemble, learn, llm, rules, weak
from .labelers.suspicion import suspicious
from .rank import to_rank
from .types import ABSTAINED, Answer, Example, Labeler, LabelerUnavailable

METHODS = (rules.NAME, weak.NAME, cheap_first.NAME, ensemble.NAME)
TASK_TYPES = ("classification",)
UNKNOWN = "unknown"
FAILED = "llm_failed"


class LabelingWarning(UserWarning):
    """The language model could not be asked about some of the texts; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class AutoLabelResult:
    """What the pipeline says about one text.

    Attributes:
        text: the text, as given.
        predicted_label: a label of the schema, or "unknown" when no labeler had anything to say.
        confidence: in [0, 1]; 0.0 for "unknown".
        auto_accepted: the confidence reaches the threshold, the label is known, and it is not a guess.
        method: the method that was asked for, or "llm_failed" where the language model gave no usable answer.
    """

    text: str
    predicted_label: str
    confidence: float
    auto_accepted: bool
    method: str


class AutoLabelingPipeline:
    """Labels texts, and says which labels are sure enough to stand without a person.

    Without ``fit`` the labels of "weak_model" and "ensemble" are guesses from the names and definitions of
    the labels. A guess is never accepted, whatever its confidence: nothing is known about how often it is
    right. The same holds after ``fit`` for labels that no example had, unless a rule backs them.

    A confidence is a figure to sort by, not a promise; ``certify`` makes promises.

    With a key, "llm" asks a language model, and "ensemble" asks it where the other labelers are unsure, and about up
    to 200 of the fitted examples, to learn how far to believe it. Texts leave this machine then. What the model said
    about a text is remembered for the life of the pipeline, so that no answer is paid for twice. A label that the
    model gave to a text that looks like an instruction to it is never accepted.

    Args:
        task_type: "classification", one label per text.
        confidence_threshold: in [0, 1]; a confidence equal to it, to the millionth, is accepted.
        seed: not negative; the same seed, examples and texts give the same results, but for a language model's.
        api_key: of the language model; by default ANTHROPIC_API_KEY of the environment; without one, no text
            leaves this machine.
        model: the language model's id; by default LABELHUB_MODEL of the environment, or else ``llm.DEFAULT_MODEL``.
        base_url: where the language model is; by default ANTHROPIC_BASE_URL of the environment, or else its maker's.
        guidelines: what the language model is told beside the definitions of the labels.
    Raises: ValueError on another task type, or a threshold or seed outside its range.
    """

    def __init__(
        self,
        task_type: str = "classification",
        confidence_threshold: float = 0.85,
        seed: int = 0,
        *,
        api_key: str | None = None,
        model: str | None = None,
        base_url: str | None = None,
        guidelines: str = "",
    ) -> None:
        if task_type not in TASK_TYPES:
            raise ValueError(f"There is no task type “{task_type}”; choose one of {', '.join(TASK_TYPES)}.")
        if not 0 <= confidence_threshold <= 1:
            raise ValueError(
                f"The confidence threshold must lie between 0 and 1, not at {confidence_threshold}."
            )
        if seed < 0:
            raise ValueError(f"The seed must not be negative, as {seed} is.")
        self.task_type = task_type
        self.confidence_threshold = confidence_threshold
        self.seed = seed
        self.model = model or os.environ.get("LABELHUB_MODEL") or llm.DEFAULT_MODEL
        self.guidelines = guidelines
        self._api_key = os.environ.get("ANTHROPIC_API_KEY", "") if api_key is None else api_key
        self._base_url = os.environ.get("ANTHROPIC_BASE_URL", "") if base_url is None else base_url
        self._account = cheap_first.Account()
        self._threshold = to_rank(confidence_threshold)
        self._examples: list[Example] = []
        self._accepted = self._reviewed = 0
        self._learned: dict[tuple[object, bool], Labeler] = {}

    @property
    def stats(self) -> dict[str, int]:
        """How many results of all calls so far were accepted, and how many need a person."""
        return {"auto_accepted": self._accepted, "sent_to_review": self._reviewed}

    @property
    def failures(self) -> dict[str, int]:
        """Why the language model gave no usable answer: problem code to number of texts, over all calls so far."""
        return dict(self._account.failures)

    @property
    def cost_usd(self) -> Decimal | None:
        """What the language model cost over all calls so far, in US dollars; None if its price is not known."""
        return self._account.cost_usd

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> AutoLabelingPipeline:
        """Learn from labeled texts, instead of any that were given before; return the pipeline.

        The fitting itself waits for the label schema of the next ``label_batch``.

        Raises: ValueError when texts and labels differ in number, or one of them is not a text.
        """
        texts, labels = _texts(texts, "texts"), _texts(labels, "labels")
        if len(texts) != len(labels):
            raise ValueError(f"There are {len(texts)} texts but {len(labels)} labels.")
        self._examples = [Example(text, label) for text, label in zip(texts, labels, strict=True)]
        self._learned = {}
        return self

    def label_batch(
        self,
        texts: Sequence[str],
        label_schema: Sequence[str] | Mapping[str, str],
        method: str = "ensemble",
    ) -> list[AutoLabelResult]:
        """Label texts.

        Args:
            texts: what to label, may be empty.
            label_schema: the labels, or {label: definition}; quoted phrases and /patterns/ in a definition
                are rules (see ``labelers.rules``).
            method: "rules", "weak_model", "llm" or "ensemble".
        Returns: one result per text, in order.
        Raises: ValueError on an unknown method, a schema without labels, or a fitted label outside the
            schema; LabelerUnavailable for "llm" without a key.
        Warns: LabelingWarning when the language model could no longer be asked.
        """
        if method not in METHODS:
            raise ValueError(f"There is no method “{method}”; choose one of {', '.join(METHODS)}.")
        if method == cheap_first.NAME and not self._api_key.strip():
            raise LabelerUnavailable(
                "Labeling by a language model needs a key: set ANTHROPIC_API_KEY, or give api_key."
            )
        schema = _schema(label_schema)
        texts = _texts(texts, "texts")
        if not texts:
            return []
        model = self._language_model(schema) if method in (cheap_first.NAME, ensemble.NAME) else None
        if model is None:
            answers = self._labeler(method, schema, texts).label(texts)
        else:
            try:
                answers = self._asked(method, schema, texts, model)
            finally:
                model.close()
            if model.trouble:
                warnings.warn(model.trouble, LabelingWarning, stacklevel=2)
        results = [
            self._result(text, answer, method, schema) for text, answer in zip(texts, answers, strict=True)
        ]
        accepted = sum(result.auto_accepted for result in results)
        self._accepted += accepted
        self._reviewed += len(results) - accepted
        return results

    def _language_model(self, schema: dict[str, str]) -> cheap_first.LanguageModel | None:
        """Return the language model with its question, or None without a key."""
        if not self._api_key.strip():
            return None
        return cheap_first.LanguageModel(
            llm.Claude(self._api_key.strip(), self._base_url),
            self.model,
            schema,
            self._examples,
            guidelines=self.guidelines,
            seed=self.seed,
            account=self._account,
        )

    def _asked(
        self, method: str, schema: dict[str, str], texts: list[str], model: cheap_first.LanguageModel
    ) -> list[Answer]:
        """Answer with the language model, alone or where the others are unsure."""
        if method == cheap_first.NAME:
            return model.label(texts)
        rest = self._labeler(method, schema, texts)

        def together() -> Labeler:
            return self._labeler(method, schema, texts, model) if self._examples else rest

        return cheap_first.label_cheap_first(model, rest, together, texts)

    def _labeler(
        self,
        method: str,
        schema: dict[str, str],
        texts: list[str],
        model: cheap_first.LanguageModel | None = None,
    ) -> Labeler:
        """Return the learned labeler; guesses are centred on the texts at hand and so never kept.

        Args:
            model: learn how far to believe this one as well.
        """
        what = (method, list(schema.items()))
        key = (repr(what), model is not None)
        if key in self._learned:
            return self._learned[key]
        votes = None if model is None else {cheap_first.NAME: model.votes_on_examples(self._examples)}
        state = learn(
            method, schema, self._examples, settings={}, seed=self.seed, texts=texts, given_votes=votes
        )
        labeler = build(method, schema, state)
        if self._examples and (model is None or model.failure is None):
            self._learned = {k: kept for k, kept in self._learned.items() if k[0] == key[0]} | {key: labeler}
        return labeler

    def _result(self, text: str, answer: Answer, method: str, schema: dict[str, str]) -> AutoLabelResult:
        if answer.label is None:
            failed = answer.problem != ABSTAINED
            return AutoLabelResult(text, UNKNOWN, 0.0, False, FAILED if failed else method)
        accepted = not answer.guess and to_rank(answer.confidence) >= self._threshold
        if accepted and method == cheap_first.NAME and suspicious(text, schema) is not None:
            accepted = False
        return AutoLabelResult(text, answer.label, answer.confidence, accepted, method)


def _schema(label_schema: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return {label: definition}; a label listed twice counts once."""
    if isinstance(label_schema, str):
        raise ValueError("The label schema must be a list of labels, or {label: definition}.")
    schema = dict(label_schema) if isinstance(label_schema, Mapping) else dict.fromkeys(label_schema, "")
    check_schema(schema)
    return schema


def _texts(texts: Sequence[str], name: str) -> list[str]:
    """Return the texts as a list. Raises: ValueError when one of them, or all together, is no text."""
    if isinstance(texts, str | bytes):
        raise ValueError(f"The {name} must be a list, not one text.")
    listed = list(texts)
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise ValueError(f"Number {i} of the {name} is not a text but {type(text).__name__}.")
    return listed
