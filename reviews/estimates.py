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
from datasets.money import price_for
from datasets.questions import FIRST
from labelhub.autolabel.buckets import clopper_pearson
from labelhub.autolabel.labelers.dialogue import PER_CALL
from labelhub.autolabel.labelers.llm import CallFailed, bytes_of
from labelhub.autolabel.prices import AS_OF, Price, Usage, cost_usd
from labelhub.autolabel.rank import to_rank
from reviews import prompts, thresholds
from reviews.models import Decision

SAMPLE = 50  # texts whose tokens are counted
ENTRY_BYTES = 40  # of one entry of an answer, without its label
BYTES_PER_TOKEN = 3.0  # where nobody counts
LEAST_CACHED = 512  # tokens: a shorter beginning is not kept by the other side
LEAST_SEEN = 20  # answers that say how often the model is unsure; a trial brings more
SEEN_ALPHA = 0.05  # chance that the share lies outside of what they say
UNSURE = (0.1, 0.3, 0.6)  # share of items with further questions, before any was seen: low, expected, high
SPREAD = (0.85, 1.0, 1.3)  # of tokens: low, expected, high; what is asked again is in the last
UNSEEN_SPREAD = (0.7, 1.0, 1.4)  # the same before any answer was seen: nobody knows how long they are
LEAST_BUDGET = Decimal("0.10")  # USD, where none is named
SLACK = Decimal(
    "1.2"
)  # of the high estimate, where none is named: what is reserved is more than what is paid
REST = 0.4  # of the items with further questions, those where the labelers disagree


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
    told: prompts.Told | None = None,
) -> Estimate:
    """Estimate a run of a method that may ask the model.

    Args:
        items: what it would label; everything that is open where not given.
        told: what it would tell the model; the dataset's own prompt where not given.
    Raises: money.NoPrice; CallFailed where there is no key, or it is refused.
    """
    site, told = current(), told or prompts.compose(dataset, renew)
    price = price_for(site.model)
    second = price_for(site.second_model) if site.second_model else None
    wanted = open_items(dataset) if items is None else items
    total = wanted.count()
    texts = list(wanted.order_by("text_hash").values_list("text", flat=True)[:SAMPLE])
    size = _count(told, site.model, texts)
    answered = _answered(dataset, told, site.model, wanted)
    shares = _unsure_shares(dataset, method)
    asked = tuple(max(round(total * share) - answered, 0) for share in shares)
    seen, further = _out_per_item(dataset), _further(dataset, told, site.model)
    out, spreads = (_out_unseen(told), UNSEEN_SPREAD) if seen is None else (seen, SPREAD)
    costs = []
    for n, spread, unsure, at_once in zip(asked, spreads, further, (1, 1, site.at_once), strict=True):
        one = _per_item(price, size, out, batch)
        again = _per_item(price, size, out, False)
        other = _per_item(second, size, out, False) if second else Decimal(0)
        extra = again * (site.asks - 1) + other * Decimal(str(REST))
        begins = min(at_once, -(-n // PER_CALL)) * site.asks * _beginning(price, size, batch)
        costs.append(n * Decimal(str(spread)) * (one + extra * Decimal(str(unsure))) + begins)
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
        per_item_usd=float(_per_item(price, size, out, batch)),
        tokens_per_item=round(size.per_item + size.fixed / PER_CALL + out, 1),
        counted=size.counted,
        prices_as_of=AS_OF,
        batch=batch,
        note=size.note,
    )


def cap_for(high_usd: float) -> Decimal:
    """Return the cap in USD that goes with a high estimate, where nobody types another one."""
    return max(Decimal(str(high_usd)) * SLACK, LEAST_BUDGET)


def open_items(dataset: Dataset) -> QuerySet[Item]:
    """Items that are free to label and that nobody has answered."""
    answered = Decision.objects.answers().filter(item=OuterRef("pk"))
    return labeling.free_items(dataset).filter(~Exists(answered))


@dataclass(frozen=True)
class _Size:
    """Tokens of what every call repeats, the beginning of it that the other side keeps, and those of one text.

    ``counted``: whether the API counted; ``note`` says why not.
    """

    fixed: float
    kept: float
    per_item: float
    counted: bool = True
    note: str = ""


def _count(told: prompts.Told, model: str, texts: list[str]) -> _Size:
    speaker = client(PAGE_TIMEOUT_SECONDS)
    texts = texts or ["a"]
    short = speaker.request(told.prompt, model, ["a"])
    whole = speaker.request(told.prompt, model, texts)
    bytes_short = bytes_of(short)
    beginning = (
        len(told.prompt.system().encode()) / bytes_short
    )  # the system block is kept, the schema is not
    try:
        fixed = float(speaker.count_tokens(short))
        per_item = max(speaker.count_tokens(whole) - fixed, 1) / len(texts)
    except CallFailed as error:
        if error.fatal and error.kind != "model":
            raise
        fixed = bytes_short / BYTES_PER_TOKEN
        per_item = (bytes_of(whole) - bytes_short) / BYTES_PER_TOKEN / len(texts)
        return _Size(fixed, _if_kept(fixed * beginning), per_item, False, error.sentence)
    return _Size(fixed, _if_kept(fixed * beginning), per_item)


def _if_kept(tokens: float) -> float:
    return tokens if tokens >= LEAST_CACHED else 0.0


def _per_item(price: Price, size: _Size, out: float, batch: bool) -> Decimal:
    usage = Usage(
        input=round(size.per_item * PER_CALL + size.fixed - size.kept),
        output=round(out * PER_CALL),
        cache_read=round(size.kept),
    )
    return cost_usd(price, usage, batch) / PER_CALL


def _beginning(price: Price, size: _Size, batch: bool) -> Decimal:
    """What a call costs more that comes before anything is kept."""
    kept = round(size.kept)
    written, read = Usage(input=0, output=0, cache_write=kept), Usage(input=0, output=0, cache_read=kept)
    return cost_usd(price, written, batch) - cost_usd(price, read, batch)


def _answered(dataset: Dataset, told: prompts.Told, model: str, items: QuerySet[Item]) -> int:
    """Count the items with an answer to the same question; it is not paid for again."""
    asked = questions.find(dataset, FIRST, model, where(), told.prompt)
    return Vote.objects.filter(version=asked, item__in=items.values("pk")).count() if asked else 0


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


def _further(dataset: Dataset, told: prompts.Told, model: str) -> tuple[float, float, float]:
    """Which share of the items gets further questions: by the answers to the same prompt, else by those of the last run."""
    last = questions.latest(dataset).get(FIRST)
    asked = questions.find(dataset, FIRST, model, where(), told.prompt) or (last.version_id if last else None)
    votes = Vote.objects.filter(version=asked, label__isnull=False)
    n = votes.count() if asked else 0
    if n < LEAST_SEEN:
        return UNSURE
    unsure = votes.filter(score__lt=SURE).count()
    low, high = clopper_pearson(unsure, n, SEEN_ALPHA)
    return low, unsure / n, high


def _out_per_item(dataset: Dataset) -> float | None:
    """Tokens of an answer per text, from the latest calls that were answered; None with too few of them."""
    latest = Call.objects.filter(run__dataset=dataset, settled_at__isnull=False, problem="", cost_nano__gt=0)
    seen = list(latest.order_by("-pk").values_list("usage", "items")[:50])
    texts = sum(len(items) for _, items in seen)
    return sum(usage.get("output", 0) for usage, _ in seen) / texts if texts >= LEAST_SEEN else None


def _out_unseen(told: prompts.Told) -> float:
    """Tokens of an answer per text, by the length of an entry."""
    names = [len(name.encode()) for name, _ in told.prompt.labels]
    return (ENTRY_BYTES + sum(names) / len(names)) / BYTES_PER_TOKEN
