"""A certificate against the file it was issued for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from labelhub.autolabel.verify import NotACertificate, verify


class Command(BaseCommand):
    """`verify CERTIFICATE.json EXPORT.jsonl`: exit 0 where every figure and digest agrees, 1 where one differs."""

    help = "Recompute every figure and digest of a certificate from its file and the exported file alone."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("certificate", type=Path, metavar="CERTIFICATE.json")
        parser.add_argument("export", type=Path, metavar="EXPORT.jsonl")
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        try:
            certificate = orjson.loads(options["certificate"].read_bytes())
        except OSError as error:
            raise CommandError(f"{options['certificate']} cannot be read: {error.strerror}.") from error
        except orjson.JSONDecodeError as error:
            raise CommandError(f"{options['certificate']} is not JSON: {error}.") from error
        try:
            differences = verify(certificate, _rows(options["export"]))
        except OSError as error:
            raise CommandError(f"{options['export']} cannot be read: {error.strerror}.") from error
        except NotACertificate as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            told = [{"what": one.what, "sentence": one.sentence} for one in differences]
            self.stdout.write(json.dumps({"agrees": not told, "differences": told}))
        elif not differences:
            found = certificate["evidence"]
            shown = f"{found['errors']:,} of {found['allowed_errors']:,} errors allowed"
            if found["promise"] == "dataset":
                shown = f"{found['errors']:,} errors with the threshold that they prove"
            self.stdout.write(
                f"Everything agrees: {found['rows']:,} certified rows, the pool of {found['pool']:,}, "
                f"the draw of {found['size']:,}, and {shown}."
            )
        else:
            self.stdout.writelines(f"{one.sentence}\n" for one in differences)
        if differences:
            raise SystemExit(1)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise NotACertificate(f"Line {number} of {path} is not JSON: {error}.") from error
