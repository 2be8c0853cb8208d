"""Texts in, labels out: the engine as a library of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .labelers import build, check_schema, ensemble, learn, rules, weak
from .rank import to_rank
from .types import Answer, Example, Labeler, LabelerUnavailable

METHODS = (rules.NAME, weak.NAME, "llm", ensemble.NAME)
TASK_TYPES = ("classification",)
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AutoLabelResult:
    """What the pipeline says about one text.

    Attributes:
        text: the text, as given.
        predicted_label: a label of the schema, or "unknown" when no labeler had anything to say.
        confidence: in [0, 1]; 0.0 for "unknown".
        auto_accepted: the confidence reaches the threshold, the label is known, and it is not a guess.
        method: the method that was asked for.
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

    Args:
        task_type: "classification", one label per text.
        confidence_threshold: in [0, 1]; a confidence equal to it, to the millionth, is accepted.
        seed: not negative; the same seed, examples and texts give the same results.
    Raises: ValueError on another task type, or a threshold or seed outside its range.
    """

    def __init__(
        self, task_type: str = "classification", confidence_threshold: float = 0.85, seed: int = 0
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
        self._threshold = to_rank(confidence_threshold)
        self._examples: list[Example] = []
        self._accepted = self._reviewed = 0
        self._learned: tuple[object, Labeler] | None = None

    @property
    def stats(self) -> dict[str, int]:
        """How many results of all calls so far were accepted, and how many need a person."""
        return {"auto_accepted": self._accepted, "sent_to_review": self._reviewed}

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> AutoLabelingPipeline:
        """Learn from labeled texts, instead of any that were given before; return the pipeline.

        The fitting itself waits for the label schema of the next ``label_batch``.

        Raises: ValueError when texts and labels differ in number, or one of them is not a text.
        """
        texts, labels = _texts(texts, "texts"), _texts(labels, "labels")
        if len(texts) != len(labels):
            raise ValueError(f"There are {len(texts)} texts but {len(labels)} labels.")
        self._examples = [Example(text, label) for text, label in zip(texts, labels, strict=True)]
        self._learned = None
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
            schema; LabelerUnavailable for "llm".
        """
        if method not in METHODS:
            raise ValueError(f"There is no method “{method}”; choose one of {', '.join(METHODS)}.")
        if method == "llm":
            raise LabelerUnavailable("Labeling by a language model is not part of this version of LabelHub.")
        schema = _schema(label_schema)
        texts = _texts(texts, "texts")
        if not texts:
            return []
        answers = self._labeler(method, schema, texts).label(texts)
        results = [self._result(text, answer, method) for text, answer in zip(texts, answers, strict=True)]
        accepted = sum(result.auto_accepted for result in results)
        self._accepted += accepted
        self._reviewed += len(results) - accepted
        return results

    def _labeler(self, method: str, schema: dict[str, str], texts: list[str]) -> Labeler:
        """Return the learned labeler; guesses are centred on the texts at hand and so never kept."""
        key = (method, list(schema.items()))
        if self._learned is not None and self._learned[0] == key:
            return self._learned[1]
        state = learn(method, schema, self._examples, settings={}, seed=self.seed, texts=texts)
        labeler = build(method, schema, state)
        self._learned = (key, labeler) if self._examples else None
        return labeler

    def _result(self, text: str, answer: Answer, method: str) -> AutoLabelResult:
        if answer.label is None:
            return AutoLabelResult(text, UNKNOWN, 0.0, False, method)
        accepted = not answer.guess and to_rank(answer.confidence) >= self._threshold
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
