"""What the whole loop would have cost on a file whose answers are known, and whether it would have kept its word."""

import json
import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from labelhub.autolabel import tables
from labelhub.autolabel.backtest import METHODS, PROMISES, backtest, prepare
from labelhub.autolabel.layout import BadRow, TableError


class Command(BaseCommand):
    """`backtest FILE --text COL --gold COL …`: prints JSON with `summary`, `table` and `repetitions`."""

    help = "Replay labeling, review and certificate on a file whose right labels are known; prints JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--text", required=True, metavar="COL[,COL]", help="columns that make the text")
        parser.add_argument("--gold", required=True, metavar="COL", help="the right labels")
        parser.add_argument("--predicted", metavar="COL", help="labels that some machine made")
        parser.add_argument("--confidence", metavar="COL", help="how sure it was, from 0 to 1")
        parser.add_argument("--votes", metavar="GLOB", help="columns with labels of several machines")
        parser.add_argument("--method", default="ensemble", metavar="M", help=", ".join(METHODS))
        parser.add_argument("--target", type=float, default=0.95, help="share of labels promised to be right")
        parser.add_argument("--promise", default="dataset", metavar="P", help=" or ".join(PROMISES))
        parser.add_argument("--floor", type=float, default=0.90, help="of the accepted labels; 0 for none")
        parser.add_argument("--alpha", type=float, default=0.05, help="chance that the promise is false")
        parser.add_argument(
            "--reps", type=int, default=1, metavar="N", help="repetitions, each learning anew"
        )
        parser.add_argument(
            "--draws", type=int, default=1, metavar="N", help="samples to draw in each repetition"
        )
        parser.add_argument("--seed", type=int, default=0, metavar="S")
        parser.add_argument("--simple", action="store_true", help="one look at one sample, no learning")
        parser.add_argument("--sample", type=int, metavar="N", help="size of that sample")
        parser.add_argument(
            "--reviewer-error", type=float, default=0.0, metavar="P", help="wrong answers of people"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        if options["simple"] != (options["sample"] is not None):
            raise CommandError("--simple and --sample N belong together.")
        if bool(options["predicted"]) != bool(options["confidence"]):
            raise CommandError("--predicted and --confidence belong together.")
        if options["predicted"] and options["votes"]:
            raise CommandError("Give --predicted and --confidence, or --votes, not both.")
        try:
            columns = read_columns(options["file"])
            known = prepare(
                join([pick(columns, name) for name in options["text"].split(",")]),
                [value.strip() for value in pick(columns, options["gold"])],
                method=options["method"],
                **given(columns, options),
            )
            figures = backtest(
                known,
                target=options["target"],
                promise=options["promise"],
                floor=options["floor"] or None,
                alpha=options["alpha"],
                reps=options["reps"],
                draws=options["draws"],
                seed=options["seed"],
                sample=options["sample"],
                reviewer_error=options["reviewer_error"],
            )
        except (ValueError, TableError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(figures, indent=1))


def read_columns(path: Path) -> dict[str, list[str]]:
    """Return a file's columns by name. Raises: TableError, OSError."""
    layout = tables.sniff(path)
    columns: dict[str, list[str]] = {name: [] for name in layout.columns}
    for row in tables.read_rows(path, layout):
        if isinstance(row, BadRow):
            raise TableError(f"Row {row.number} cannot be read: a replay needs every row.")
        for name, cell in zip(layout.columns, row.cells, strict=True):
            columns[name].append(cell)
    return columns


def pick(columns: dict[str, list[str]], name: str) -> list[str]:
    """Return one column. Raises: CommandError with the columns there are."""
    if name not in columns:
        raise CommandError(f"The file has no column “{name}”; it has {', '.join(list(columns)[:20])}.")
    return columns[name]


def join(parts: list[list[str]]) -> list[str]:
    """Return the text of each row, its columns one below the other."""
    return ["\n".join(cells).strip() for cells in zip(*parts, strict=True)]


def given(columns: dict[str, list[str]], options: dict[str, Any]) -> dict[str, Any]:
    """Return what machines said, as ``prepare`` takes it. Raises: CommandError on a value that is no number."""
    if options["votes"]:
        names = [name for name in columns if fnmatchcase(name, options["votes"])]
        if not names:
            raise CommandError(f"No column is named like “{options['votes']}”.")
        return {"votes": {name: columns[name] for name in names}}
    if not options["predicted"]:
        return {}
    stated = []
    for number, cell in enumerate(pick(columns, options["confidence"]), start=1):
        try:
            value = float(cell) if cell.strip() else 0.0
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise CommandError(f"Row {number} has the confidence “{cell[:40]}”, not a number from 0 to 1.")
        stated.append(value)
    return {"predicted": pick(columns, options["predicted"]), "confidence": stated}
