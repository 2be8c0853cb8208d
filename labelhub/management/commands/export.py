"""The labeled dataset as a file."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datasets.models import Dataset
from reviews.export import FORMATS, NotExported, to_file


class Command(BaseCommand):
    """`export DATASET --format jsonl|csv|csv-safe --out FILE`: a whole file, or none."""

    help = "Write the labels of a dataset, with where each came from, to a file."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("dataset", type=int, metavar="DATASET")
        parser.add_argument("--format", default="jsonl", help=", ".join(FORMATS))
        parser.add_argument("--out", required=True, metavar="FILE")
        parser.add_argument("--votes", action="store_true", help="add what each method said")
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        dataset = Dataset.objects.filter(pk=options["dataset"]).first()
        if dataset is None:
            raise CommandError(f"There is no dataset {options['dataset']}.")
        if dataset.ready_at is None:
            raise CommandError("This dataset is still being read.")
        out = Path(options["out"])
        try:
            written = to_file(dataset, options["format"], out, options["votes"])
        except NotExported as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            told = {
                "dataset": dataset.pk,
                "file": str(out),
                "format": options["format"],
                "rows": written.rows,
            }
            self.stdout.write(
                json.dumps({**told, "sources": written.by_source, "certified": written.certified})
            )
            return
        from_whom = ", ".join(f"{n:,} {source}" for source, n in written.by_source.items())
        self.stdout.write(f"{written.rows:,} rows in {out}: {from_whom}; {written.certified:,} certified.")
