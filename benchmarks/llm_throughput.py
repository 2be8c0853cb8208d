"""How fast a run asks a language model, against what its limits allow; and what memory it takes.

    python -m benchmarks.llm_throughput [--json] [--items N]

The local stand-in for the API answers after ``delay`` seconds. ``allowed`` is the number of calls a second that the
limit leaves: calls at once / delay, or calls a minute / 60. ``ratio`` is what was reached of it, from the first call to
the last slice written, labeling included. ``model_seconds`` is from reserving a call to storing its answer,
``under_way`` the mean number of calls between the two.
Memory is the most that a worker had resident, in megabytes.

Everything runs in processes of its own, on a fresh SQLite database in a folder that is deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DELAY = 0.05  # seconds
USUAL_DELAY = 0.5  # still faster than a language model answers about twenty texts
ITEMS = 10_000
FEW = 2_500
KEY = "fake-key"
# calls at once, calls a minute, workers
LIMITS = ((4, None, 1), (4, None, 2), (8, None, 1), (8, None, 2), (8, 3_000, 1), (8, 3_000, 2))


def measure(items: int = ITEMS) -> list[dict[str, Any]]:
    """Return one row for each setting, and one for fewer items, to compare the memory."""
    few = [measure_one(FEW, 8, None, 1), measure_one(FEW, 8, None, 2, USUAL_DELAY)]
    return [*few, *(measure_one(items, *limits) for limits in LIMITS)]


def measure_one(
    items: int, at_once: int, per_minute: int | None, workers: int, delay: float = DELAY
) -> dict[str, Any]:
    """Run over some items in a fresh folder, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="labelhub-bench-") as folder, answering(items, delay) as url:
        os.environ |= {
            "LABELHUB_HOME": folder, "DATABASE_URL": "", "REDIS_URL": "redis://127.0.0.1:1/0",
            "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url, "DJANGO_SETTINGS_MODULE": "labelhub.settings",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(1) as pool:
            run = pool.apply(_start, (items, at_once, per_minute))
        with spawn.Pool(workers, maxtasksperchild=1) as pool:
            memory = pool.starmap(_work, [(run,)] * workers, chunksize=1)
        with spawn.Pool(1) as pool:
            calls, seconds, call_seconds = pool.apply(_times, (run,))
    allowed = min(at_once / delay, (per_minute or 10**9) / 60)
    reached = calls / seconds
    return {
        "delay": delay,
        "items": items,
        "at_once": at_once,
        "per_minute": per_minute or "any",
        "workers": workers,
        "calls": calls,
        "seconds": round(seconds, 2),
        "calls_per_second": round(reached, 1),
        "allowed": round(allowed, 1),
        "ratio": round(reached / allowed, 2),
        "model_seconds": round(call_seconds, 3),
        "under_way": round(reached * call_seconds, 1),
        "megabytes": max(memory),
    }


def texts_of(items: int) -> list[str]:
    return [
        f"Message {i} asks about the {('refund', 'delivery')[i % 2]} of order {i * 7}." for i in range(items)
    ]


@contextmanager
def answering(items: int, delay: float) -> Iterator[str]:
    """The address of a stand-in for the API, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_answer, args=(items, delay, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join(10)


def _answer(items: int, delay: float, pipe: Any) -> None:
    from labelhub.fakeclaude.replay import Replay
    from labelhub.fakeclaude.server import serve

    replay = Replay(
        texts_of(items), {"": [[("refund", "delivery")[i % 2] for i in range(items)]]}, [0.97] * items
    )
    with serve(replay, delay_ms=delay * 1000) as server:
        pipe.send(server.url)
        pipe.recv()


def _start(items: int, at_once: int, per_minute: int | None) -> int:
    """Make the database, the dataset and its run; returns the run's id."""
    import django

    django.setup()
    from decimal import Decimal

    from django.core.management import call_command

    from datasets.ingest import ingest
    from datasets.models import Dataset, ModelSettings
    from labelhub.autolabel import tables
    from labelhub.autolabel.labelers.llm import DEFAULT_MODEL
    from reviews import learning

    call_command("migrate", interactive=False, verbosity=0)
    path = Path(os.environ["LABELHUB_HOME"]) / "texts.csv"
    path.write_text("\n".join(["text", *texts_of(items)]) + "\n", encoding="utf-8")
    dataset = Dataset.objects.create(name="Messages")
    ingest(dataset, path, tables.sniff(path), {"text": ["text"]}, [{"name": "refund"}, {"name": "delivery"}])
    dataset.refresh_from_db()
    ModelSettings.objects.create(model=DEFAULT_MODEL, at_once=at_once, per_minute=per_minute)
    return learning.learn(dataset, "llm", None, learning.Spend(Decimal(100)), rings=False).pk


def _work(run: int) -> int:
    """Work on a run until it is over; returns the most memory that this process had, in megabytes."""
    import django

    django.setup()
    from datasets.models import Run
    from labelhub import worker
    from reviews import tasks

    worker.preload()  # as a worker does before its first job

    finished = tasks.work_here(Run.objects.get(pk=run))
    if finished.state != "finished":
        raise RuntimeError(f"the run is {finished.state}: {finished.problem}")
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def _times(run: int) -> tuple[int, float, float]:
    """How many calls, from the first one to the last slice written in seconds, and the mean seconds of a call."""
    import django

    django.setup()
    from django.db.models import Avg, F, Max, Min

    from datasets.models import Call, Prediction, Slice

    calls = Call.objects.filter(run=run, settled_at__isnull=False)
    found = calls.aggregate(first=Min("reserved_at"), mean=Avg(F("settled_at") - F("reserved_at")))
    last = Slice.objects.filter(run=run).aggregate(n=Max("done_at"))["n"]
    answered = Prediction.objects.filter(run=run).exclude(label=None).count()
    if answered != Prediction.objects.filter(run=run).count():
        raise RuntimeError("items without a label")
    return calls.count(), (last - found["first"]).total_seconds(), found["mean"].total_seconds()


def table(rows: list[dict[str, Any]]) -> str:
    cells = [[name.replace("_", " ") for name in rows[0]]]
    cells += [
        [f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    rows = measure(options.items)
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    if not options.json:
        print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
