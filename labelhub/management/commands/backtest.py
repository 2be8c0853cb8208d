"""What the whole loop would have cost on a file whose answers are known, and whether it would have kept its word."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from labelhub.autolabel.backtest import METHODS, PROMISES, backtest
from labelhub.autolabel.known_file import named_like, read_columns, to_known
from labelhub.autolabel.layout import TableError
from labelhub.autolabel.replay_report import HEADS, SPACE, Asked, report


class Command(BaseCommand):
    """`backtest FILE --text COL --gold COL …`: a table for people, JSON for programs.

    A terminal gets the table. Elsewhere, and with ``--json``, standard output is JSON with `summary`, `table` and
    `repetitions`; without ``--json`` the table then goes to standard error.
    """

    help = "Replay labeling, review and certificate on a file whose right labels are known."

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
        parser.add_argument("--json", action="store_true", help="print machine-readable output, and no table")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        if options["simple"] != (options["sample"] is not None):
            raise CommandError("--simple and --sample N belong together.")
        if bool(options["predicted"]) != bool(options["confidence"]):
            raise CommandError("--predicted and --confidence belong together.")
        if options["predicted"] and options["votes"]:
            raise CommandError("Give --predicted and --confidence, or --votes, not both.")
        bar = Bar(self.stderr, options["reps"], options["draws"])
        try:
            columns = read_columns(options["file"])
            known = to_known(
                columns,
                options["text"].split(","),
                options["gold"],
                predicted=options["predicted"] or "",
                confidence=options["confidence"] or "",
                votes=named_like(columns, options["votes"]) if options["votes"] else (),
                method=options["method"],
            )
            bar.show(0)
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
                progress=lambda done, _: bar.show(done),
            )
        except (ValueError, TableError, OSError) as error:
            raise CommandError(str(error)) from error
        finally:
            bar.clear()
        asked = Asked(
            len(known.gold),
            options["target"],
            options["floor"] or None,
            options["promise"] == "accepted",
            options["alpha"],
        )
        for_people = self.stdout.isatty() and not options["json"]
        if not for_people:
            self.stdout.write(json.dumps(figures, indent=1))
        if not options["json"]:
            (self.stdout if for_people else self.stderr).write(in_words(figures, asked), style_func=str)


class Bar:
    """A progress bar on standard error; nothing where that is no terminal."""

    def __init__(self, out: OutputWrapper, repetitions: int, draws: int) -> None:
        self.out, self.repetitions, self.draws = out, repetitions, draws
        self.shown = out.isatty()
        self.began = time.monotonic()

    def show(self, done: int) -> None:
        """Draw it again after so many replays.

        What is left is told from whole repetitions: the first draw of each pays for its learning.
        """
        if not self.shown:
            return
        whole, total = done // self.draws, self.repetitions * self.draws
        words = f" repetition {min(whole + 1, self.repetitions):,} of {self.repetitions:,}"
        if self.draws > 1:
            words += f", draw {done % self.draws:,} of {self.draws:,}"
        if whole:
            left = round((time.monotonic() - self.began) / whole * (self.repetitions - whole))
            words += f", about {left // 60}:{left % 60:02} left"
        width = max(min(40, shutil.get_terminal_size().columns - len(words) - 3), 0)
        full = width * done // max(total, 1)
        self._write(f"[{'#' * full}{'-' * (width - full)}]{words}")

    def clear(self) -> None:
        """Take it away."""
        if self.shown:
            self._write("")

    def _write(self, line: str) -> None:
        self.out.write(f"\r\x1b[K{line}", style_func=str, ending="")
        self.out.flush()


def in_words(figures: dict[str, Any], asked: Asked) -> str:
    """Return the report as plain text: the table, then what was certified."""
    told = report(figures, asked)
    rows = [HEADS, *[(threshold, *map(str, cells)) for threshold, *cells in told.table]]
    wide = [max(len(row[n]) for row in rows) for n in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(wide[n]) for n, cell in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * n for n in wide))
    named = max(len(name) for name, _ in told.facts)
    lines += ["", *[f"{name.ljust(named)}  {value}" for name, value in told.facts]]
    return "\n".join(lines).replace(SPACE, " ")
