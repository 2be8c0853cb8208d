"""What a run will cost, before it starts: low, expected and high, from counted tokens of a sample of the texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from datasets import labeling, questions
from datasets.labeling import MODEL
from datasets.model_runs import ENOUGH, SURE
from datasets.model_settings import PAGE_TIMEOUT_SECONDS, client, current, where
from datasets.models import Call, Dataset, Item, Prediction, Vote
from datasets.questions import FIRST
from labelhub.autolabel.labelers.dialogue import PER_CALL
from labelhub.autolabel.labelers.llm import CallFailed, bytes_of
from labelhub.autolabel.prices import AS_OF, Price, Usage, cost_usd, price_of
from labelhub.autolabel.rank import to_rank
from reviews import prompts, thresholds
from reviews.models import Decision

SAMPLE = 50  # texts whose tokens are counted
ENTRY_BYTES = 40  # of one entry of an answer, without its label
BYTES_PER_TOKEN = 3.0  # where nobody counts
LEAST_CACHED = 512  # tokens: a shorter beginning is not kept by the other side
UNSURE = (0.1, 0.3, 0.6)  # share of items with further questions, before any was seen: low, expected, high
SPREAD = (0.85, 1.0, 1.3)  # of tokens: low, expected, high; what is asked again is in the last
REST = 0.4  # of the items with further questions, those where the labelers disagree


class NoPrice(Exception):
    """A model whose price nobody knows; the message says so."""


@dataclass(frozen=True)
class Estimate:
    """What a run would ask and cost, in USD.

    ``items`` it labels, of which ``asked`` are new to the model (low, expected, high) and ``known`` were answered and paid for
    before. ``counted``: by the API's own count of tokens; otherwise by length. ``per_item_usd`` of a first question.
    """

    model: str
    second_model: str
    address: str
    items: int
    known: int
    asked: tuple[int, int, int]
    low_usd: float
    expected_usd: float
    high_usd: float
    per_item_usd: float
    tokens_per_item: float
    counted: bool
    prices_as_of: str
    batch: bool
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the run's row and for machines."""
        return asdict(self)


def estimate(
    dataset: Dataset,
    method: str,
    *,
    batch: bool = False,
    renew: bool = False,
    items: QuerySet[Item] | None = None,
) -> Estimate:
    """Estimate a run of a method that may ask the model.

    Args:
        items: what it would label; everything that is open where not given.
    Raises: NoPrice; CallFailed where there is no key, or it is refused.
    """
    site, told = current(), prompts.compose(dataset, renew)
    price = price_of(site.model)
    second = price_of(site.second_model) if site.second_model else None
    for model, known_price in ((site.model, price), (site.second_model, second)):
        if model and known_price is None:
            raise NoPrice(
                f"LabelHub knows no price of {model}, so it cannot keep to a budget: choose another model."
            )
    assert price is not None
    open_items = _open(dataset) if items is None else items
    total = open_items.count()
    texts = list(open_items.order_by("text_hash").values_list("text", flat=True)[:SAMPLE])
    fixed, per_item, counted, note = _count(told, site.model, texts)
    answered = _answered(dataset, told, site.model, open_items)
    shares = _unsure_shares(dataset, method)
    asked = tuple(max(round(total * share) - answered, 0) for share in shares)
    out, further = _out_per_item(dataset, told), _further(dataset)
    costs = []
    for n, spread, unsure in zip(asked, SPREAD, further, strict=True):
        one = _per_item(price, fixed, per_item, out, batch)
        again = _per_item(price, fixed, per_item, out, False)
        other = _per_item(second, fixed, per_item, out, False) if second else Decimal(0)
        extra = again * (site.asks - 1) + other * Decimal(str(REST))
        costs.append(n * Decimal(str(spread)) * (one + extra * Decimal(str(unsure))))
    return Estimate(
        model=site.model,
        second_model=site.second_model,
        address=where(),
        items=total,
        known=answered,
        asked=(asked[0], asked[1], asked[2]),
        low_usd=float(costs[0]),
        expected_usd=float(costs[1]),
        high_usd=float(costs[2]),
        per_item_usd=float(_per_item(price, fixed, per_item, out, batch)),
        tokens_per_item=round(per_item + fixed / PER_CALL + out, 1),
        counted=counted,
        prices_as_of=AS_OF,
        batch=batch,
        note=note,
    )


def _open(dataset: Dataset) -> QuerySet[Item]:
    answered = Decision.objects.answers().filter(item=OuterRef("pk"))
    return labeling.free_items(dataset).filter(~Exists(answered))


def _count(told: prompts.Told, model: str, texts: list[str]) -> tuple[float, float, bool, str]:
    """Tokens of what every call repeats, and of one text; whether the API counted, and why not."""
    speaker = client(PAGE_TIMEOUT_SECONDS)
    texts = texts or ["a"]
    short = speaker.request(told.prompt, model, ["a"])
    whole = speaker.request(told.prompt, model, texts)
    try:
        fixed = float(speaker.count_tokens(short))
        return fixed, max(speaker.count_tokens(whole) - fixed, 1) / len(texts), True, ""
    except CallFailed as error:
        if error.fatal and error.kind != "model":
            raise
        fixed = bytes_of(short) / BYTES_PER_TOKEN
        return (
            fixed,
            (bytes_of(whole) - bytes_of(short)) / BYTES_PER_TOKEN / len(texts),
            False,
            error.sentence,
        )


def _per_item(price: Price, fixed: float, per_item: float, out: float, batch: bool) -> Decimal:
    cached = round(fixed) if fixed >= LEAST_CACHED else 0
    usage = Usage(
        input=round(per_item * PER_CALL + (0 if cached else fixed)),
        output=round(out * PER_CALL),
        cache_read=cached,
    )
    return cost_usd(price, usage, batch) / PER_CALL


def _answered(dataset: Dataset, told: prompts.Told, model: str, items: QuerySet[Item]) -> int:
    """Count the items with an answer to the same question; it is not paid for again."""
    last = questions.latest(dataset).get(FIRST)
    if last is None or last.model != model or last.prompt != told.prompt:
        return 0
    return Vote.objects.filter(version=last.version_id, item__in=items.values("pk")).count()


def _unsure_shares(dataset: Dataset, method: str) -> tuple[float, float, float]:
    """Which share of the items the model is asked about, by how sure the run in force is of them."""
    now = thresholds.in_force(dataset)
    known = Decision.objects.current().filter(dataset=dataset).count()
    known += Item.objects.filter(dataset=dataset, given_label__isnull=False).count()
    if method == MODEL or now is None or known < ENOUGH:
        return 1.0, 1.0, 1.0
    said = Prediction.objects.filter(run=now.run, open=True)
    every = said.count()
    share = said.filter(rank__lt=to_rank(prompts.UNSURE_BELOW)).count() / every if every else 1.0
    return share * 0.8, share, min(share * 1.3 + 0.05, 1.0)


def _further(dataset: Dataset) -> tuple[float, float, float]:
    """Which share of the items gets further questions."""
    first = questions.latest(dataset).get(FIRST)
    if first is None:
        return UNSURE
    votes = Vote.objects.filter(version=first.version_id, label__isnull=False)
    n = votes.count()
    if n < SAMPLE:
        return UNSURE
    share = votes.filter(score__lt=SURE).count() / n
    return share * 0.8, share, min(share * 1.3 + 0.05, 1.0)


def _out_per_item(dataset: Dataset, told: prompts.Told) -> float:
    """Tokens of an answer per text, from the latest calls that were answered, else by the length of an entry."""
    latest = Call.objects.filter(run__dataset=dataset, settled_at__isnull=False, problem="", cost_nano__gt=0)
    seen = list(latest.order_by("-pk").values_list("usage", "items")[:50])
    texts = sum(len(items) for _, items in seen)
    if texts >= SAMPLE // 2:
        return sum(usage.get("output", 0) for usage, _ in seen) / texts
    names = [len(name.encode()) for name, _ in told.prompt.labels]
    return (ENTRY_BYTES + sum(names) / len(names)) / BYTES_PER_TOKEN
