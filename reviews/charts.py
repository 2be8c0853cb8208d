"""Figures become SVG geometry: plain numbers and paths, which the templates put into place. No figure is made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labelhub.autolabel.rank import ACCEPT_NOTHING, confidence_of
from reviews.forecast import Forecast
from reviews.metrics import Bucket, Row

WIDTH, LEFT, RIGHT = 640.0, 44.0, 16.0
TOP, UPPER, GAP, LOWER = 14.0, 130.0, 26.0, 100.0  # accuracy above, auto-accept rate below
NARROW, MARGIN, TALL = 460.0, 56.0, 190.0  # width of the smaller charts, room for words, height of columns
FEW = 30  # checks; below that an accuracy says too little to be drawn


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and the words beside it."""

    at: float
    words: str


@dataclass(frozen=True, slots=True)
class Point:
    """A figure with its interval, in pixels; ``words`` name it for those who do not see it."""

    x: float
    y: float
    low: float
    high: float
    words: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy with intervals above, auto-accept rate below, over the same thresholds."""

    height: float
    left: float
    right: float
    upper_bottom: float
    lower_top: float
    bottom: float
    xs: list[Tick]
    upper: list[Tick]
    lower: list[Tick]
    rate_line: str
    rate_area: str
    accuracy_line: str
    accuracy_band: str
    points: list[Point]
    threshold_x: float | None
    target_y: float | None
    target_words: str


@dataclass(frozen=True, slots=True)
class Column:
    """An upright bar from the baseline to ``top``, and what is written under it.

    ``mark``: the height of a second figure, ``base`` from there to the baseline; ``low`` and ``high``: of an interval.
    None for unknown.
    """

    x: float  # its middle
    left: float
    width: float
    top: float | None
    height: float
    under: list[str]
    words: str
    mark: float | None = None
    base: float = 0.0
    low: float | None = None
    high: float | None = None
    current: bool = False


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns over one share axis from 0 to 100 %. ``line`` joins the marks."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: list[Tick]
    columns: list[Column]
    line: str


def draw_curve(
    curve: Sequence[tuple[int, int]], points: Sequence[Row], items: int, target: float, threshold: int
) -> Curve:
    """Lay out the threshold curve.

    Args:
        curve: (rank, accepted), ascending.
        points: rows, of which those are drawn whose accuracy rests on a census or on FEW checks.
        items: N, what accepted is a share of.
        target: accuracy that is aimed at, in [0, 1].
        threshold: the rank in force.
    """
    known = sorted((p for p in points if _says_enough(p)), key=lambda p: p.rank)
    shown = [confidence_of(row.rank) for row in known]
    if threshold < ACCEPT_NOTHING:
        shown.append(confidence_of(threshold))
    start = 0.5 if all(value >= 0.5 for value in shown) else 0.0
    lows = [row.accuracy.low for row in known if row.accuracy is not None]
    base = max(0.0, int(min([*lows, target - 0.05]) * 20) / 20)
    upper_bottom, lower_top = TOP + UPPER, TOP + UPPER + GAP
    bottom = lower_top + LOWER

    def x(rank: int) -> float:
        return round(LEFT + (confidence_of(rank) - start) / (1 - start) * (WIDTH - LEFT - RIGHT), 1)

    def up(share: float) -> float:
        return round(upper_bottom - (share - base) / (1 - base) * UPPER, 1)

    def down(share: float) -> float:
        return round(bottom - share * LOWER, 1)

    line = [(x(rank), down(n / items if items else 0)) for rank, n in curve if confidence_of(rank) >= start]
    drawn = [
        Point(x(row.rank), up(a.value), up(a.low), up(a.high), describe(row), row.in_force)
        for row in known
        if (a := row.accuracy) is not None
    ]
    band = [(p.x, p.high) for p in drawn] + [(p.x, p.low) for p in reversed(drawn)]
    return Curve(
        height=bottom + 24,
        left=LEFT,
        right=WIDTH - RIGHT,
        upper_bottom=upper_bottom,
        lower_top=lower_top,
        bottom=bottom,
        xs=[Tick(x(round(v * 10**6) * 10**6), f"{v:g}") for v in _steps(start, 1.0, 5)],
        upper=[Tick(up(v), f"{100 * v:.0f} %") for v in _ticks(base)],
        lower=[Tick(down(v), f"{100 * v:.0f} %") for v in (0.0, 0.5, 1.0)],
        rate_line=_path(line),
        rate_area=_path([(line[0][0], bottom), *line, (line[-1][0], bottom)], close=True) if line else "",
        accuracy_line=_path([(p.x, p.y) for p in drawn]),
        accuracy_band=_path(band, close=True) if len(drawn) > 1 else "",
        points=drawn,
        threshold_x=x(threshold) if threshold < ACCEPT_NOTHING else None,
        target_y=up(target),
        target_words=f"target {100 * target:g} %",
    )


def draw_calibration(buckets: Sequence[Bucket]) -> Columns:
    """Lay out a column for each bucket, surest last: how often it was right, beside what the machine said."""
    y, ticks = _shares()
    columns = []
    for (middle, left, width), bucket in zip(_places(len(buckets)), reversed(buckets), strict=True):
        a = bucket.accuracy
        said = "nothing" if bucket.said is None else f"{100 * bucket.said:.0f} %"
        right = "unknown" if a is None else f"{100 * a.value:.0f} %"
        columns.append(
            Column(
                middle, left, width, None if a is None else y(a.value), 0 if a is None else TOP + TALL - y(a.value),
                [confidence_words(bucket.low), f"{0 if a is None else a.n:,}"],
                f"From {confidence_words(bucket.low)}: said {said}, right {right}, n = {0 if a is None else a.n:,}",
                mark=None if bucket.said is None else y(bucket.said),
                low=None if a is None else y(a.low), high=None if a is None else y(a.high),
            )
        )  # fmt: skip
    return _columns(columns, ticks)


def draw_forecast(found: Forecast) -> Columns:
    """Lay out a column for each promise: people's answers in all, with the part that is given already as its mark."""
    y, ticks = _shares()
    given = y(found.labelled / found.items)
    columns = []
    for (middle, left, width), promise in zip(_places(len(found.promises)), found.promises, strict=True):
        share = None if promise.answers is None else promise.answers / found.items
        words = "no sample could prove it" if share is None else f"about {100 * share:.0f} % of the work"
        columns.append(
            Column(
                middle, left, width, None if share is None else y(share),
                0 if share is None else TOP + TALL - y(share),
                [f"{100 * promise.quality:g} %", "none" if share is None else f"{100 * share:.0f} %"],
                f"{100 * promise.quality:g} % right: {words}",
                mark=given, base=round(TOP + TALL - given, 1), current=promise.wanted,
            )
        )  # fmt: skip
    return _columns(columns, ticks)


def _shares() -> tuple[Callable[[float], float], list[Tick]]:
    def y(share: float) -> float:
        return round(TOP + (1 - share) * TALL, 1)

    return y, [Tick(y(v), f"{100 * v:.0f} %") for v in (0.0, 0.25, 0.5, 0.75, 1.0)]


def _places(n: int) -> list[tuple[float, float, float]]:
    """Middle, left edge and width of ``n`` columns side by side."""
    room = (NARROW - MARGIN - RIGHT) / max(n, 1)
    width = round(min(room * 0.6, 40.0), 1)
    middles = [MARGIN + room * (i + 0.5) for i in range(n)]
    return [(round(x, 1), round(x - width / 2, 1), width) for x in middles]


def _columns(columns: list[Column], ticks: list[Tick]) -> Columns:
    marks = [(c.x, c.mark) for c in columns if c.mark is not None]
    return Columns(
        width=NARROW, height=TOP + TALL + 48, left=MARGIN, right=NARROW - RIGHT, bottom=TOP + TALL, ticks=ticks,
        columns=columns, line=_path(marks),
    )  # fmt: skip


def confidence_words(rank: int) -> str:
    """A rank as a confidence, for example 0.85."""
    return f"{confidence_of(rank):g}"


def describe(row: Row) -> str:
    """A row in words."""
    accepted = f"{row.accepted:,} of {row.items:,} accepted"
    if row.accuracy is None:
        return f"{confidence_of(row.rank):g}: {accepted}, accuracy unknown"
    a = row.accuracy
    return (
        f"{confidence_of(row.rank):g}: {accepted}, {100 * a.value:.1f} % right, "
        f"interval {100 * a.low:.1f} to {100 * a.high:.1f} %, n = {a.n:,}"
    )


def _says_enough(row: Row) -> bool:
    a = row.accuracy
    return a is not None and row.rank < ACCEPT_NOTHING and (a.census or a.sampled >= FEW)


def _steps(low: float, high: float, n: int) -> list[float]:
    return [round(low + (high - low) * i / n, 6) for i in range(n + 1)]


def _ticks(base: float) -> list[float]:
    """Round shares from 1 down to ``base``, at most seven."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.25) if (1 - base) / step <= 6.01)
    return [round(1 - step * i, 6) for i in range(int((1 - base) / step + 1.01))]


def _path(points: Sequence[tuple[float, float]], close: bool = False) -> str:
    if not points:
        return ""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + ("Z" if close else "")
