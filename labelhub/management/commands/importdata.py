"""A dataset from a file on this computer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datasets.ingest import clear, ingest
from datasets.models import Dataset, record
from datasets.schema import IngestError
from labelhub.autolabel import tables
from labelhub.autolabel.layout import DELIMITERS, TableError

DELIMITER_NAMES = {word: sign for sign, word in DELIMITERS.items()} | {
    sign: sign for sign in DELIMITERS if sign
}


class Command(BaseCommand):
    """`importdata FILE --name NAME --text COL[,COL] …`: prints the id of the new dataset."""

    help = "Make a dataset from a CSV, TSV, JSON or JSONL file and print its id."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--name", help="else the name of the file")
        parser.add_argument(
            "--text", required=True, metavar="COL[,COL]", help="columns that make the text, in order"
        )
        parser.add_argument("--label", default="", metavar="COL", help="labels that are known already")
        parser.add_argument("--predicted", default="", metavar="COL", help="labels that some machine made")
        parser.add_argument("--confidence", default="", metavar="COL", help="how sure it was, from 0 to 1")
        parser.add_argument(
            "--labels", default="", metavar="A,B", help="the label set, if it is not in the file"
        )
        parser.add_argument("--encoding", help="if it is not found by itself, such as cp1252")
        parser.add_argument("--delimiter", choices=list(DELIMITER_NAMES), help="if it is not found by itself")
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        path: Path = options["file"]
        name = (options["name"] or path.stem).strip()
        if not name or len(name) > 200:
            raise CommandError("The name of a dataset has 1 to 200 characters.")
        try:
            layout = tables.sniff(path)
            changes = {key: options[key] for key in ("encoding",) if options[key]}
            if options["delimiter"] is not None:
                changes["delimiter"] = DELIMITER_NAMES[options["delimiter"]]
            if changes:
                layout = tables.with_columns(path, replace(layout, **changes))
        except (TableError, OSError) as error:
            raise CommandError(_sentence(error, path)) from error
        mapping = {
            "text": _columns(options["text"], layout.columns),
            "label": options["label"],
            "predicted": options["predicted"],
            "confidence": options["confidence"],
        }
        labels = [{"name": label} for label in options["labels"].split(",")] if options["labels"] else []
        dataset = Dataset.objects.create(name=name, source=path.name)
        try:
            report = ingest(dataset, path, layout, mapping, labels)
        except (IngestError, TableError, OSError) as error:
            _remove(dataset)
            raise CommandError(_sentence(error, path)) from error
        except BaseException:
            _remove(dataset)
            raise
        record(None, dataset, "dataset imported", rows=report["rows_read"], source=path.name)
        if options["json"]:
            counts = {key: value for key, value in report.items() if isinstance(value, int)}
            self.stdout.write(json.dumps({"id": dataset.pk, "name": name} | counts))
            return
        self.stderr.write(
            f"{report['rows_read']:,} rows read = {report['distinct']:,} texts + {report['copies']:,} copies + "
            f"{report['empty']:,} empty + {report['skipped']:,} skipped"
        )
        self.stdout.write(str(dataset.pk))


def _remove(dataset: Dataset) -> None:
    clear(dataset)
    dataset.delete()


def _columns(typed: str, columns: tuple[str, ...]) -> list[str]:
    """The named columns; a comma inside a name is no separator."""
    return [typed] if typed in columns else [name.strip() for name in typed.split(",") if name.strip()]


def _sentence(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no file {path}."
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror}."
    return str(error)
