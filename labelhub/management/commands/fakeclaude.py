"""`manage.py fakeclaude`: the Messages API on this machine, with recorded answers and faults on demand."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from labelhub.autolabel.layout import TableError
from labelhub.fakeclaude import catalogue
from labelhub.fakeclaude.faults import KINDS, Behavior
from labelhub.fakeclaude.replay import Replay, read_replay
from labelhub.fakeclaude.server import Server
from labelhub.processes import Signals


class Command(BaseCommand):
    """Serve until a signal."""

    help = "Serve the Messages API on 127.0.0.1 from a file of recorded labels: to try, to test, to break things."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        usual = Behavior()
        parser.add_argument("--port", type=int, default=0, help="default: a free one")
        parser.add_argument("--replay", type=Path, metavar="FILE", help="CSV, JSONL, Parquet or XLSX")
        parser.add_argument("--text", default="text", metavar="COL[,COL]", help="columns that make the text")
        parser.add_argument(
            "--predicted",
            default="predicted_label",
            metavar="COL[,COL]",
            help="recorded labels of the first, second, ... ask; patterns such as pred_* are fine",
        )
        parser.add_argument(
            "--confidence",
            metavar="COL",
            help="how sure the first of them was; default: confidence, or without it the share of all recorded "
            "labels that agree",
        )
        parser.add_argument(
            "--voter",
            action="append",
            default=[],
            metavar="MODEL=COL[,COL]",
            help="recorded labels of one model; may be repeated",
        )
        parser.add_argument(
            "--faults",
            type=float,
            default=0.0,
            metavar="SHARE",
            help="share of calls that go wrong, in any way",
        )
        parser.add_argument(
            "--fault",
            action="append",
            default=[],
            metavar="KIND[:SHARE]",
            help=f"may be repeated: {', '.join(KINDS)}",
        )
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of faults")
        parser.add_argument("--delay", type=float, default=0.0, metavar="MS", help="before every answer")
        parser.add_argument("--rate", type=int, metavar="N", help="requests a minute")
        parser.add_argument("--timeout-seconds", type=float, default=usual.timeout_seconds, metavar="S")
        parser.add_argument("--batch-seconds", type=float, default=usual.batch_seconds, metavar="S")
        parser.add_argument(
            "--obedient", action="store_true", help="follow instructions that stand in a text"
        )
        parser.add_argument("--everywhere", action="store_true", help="faults hit lists of models, too")
        parser.add_argument("--json", action="store_true", help='print {"url": ...} only')

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        if not 0 <= options["port"] <= 65535:
            raise CommandError("The port is a number from 0 to 65535.")
        try:
            behavior = Behavior(
                faults=options["faults"],
                fault=dict(map(_share, options["fault"])),
                seed=options["seed"],
                delay_ms=options["delay"],
                rate=options["rate"],
                timeout_seconds=options["timeout_seconds"],
                batch_seconds=options["batch_seconds"],
                obedient=options["obedient"],
                everywhere=options["everywhere"],
            )
            replay = self._replay(options)
        except (ValueError, TableError, OSError) as error:
            raise CommandError(str(error)) from error
        try:
            server = Server(replay, options["port"], behavior)
        except OSError as error:
            raise CommandError(f"Port {options['port']} cannot be used: {error.strerror}.") from error
        signals = Signals()
        with server:
            if options["json"]:
                self.stdout.write(json.dumps({"url": server.url}))
            else:
                self.stdout.write(
                    f"{server.url} answers for {len(replay):,} texts. Use it with: "
                    f"ANTHROPIC_BASE_URL={server.url} ANTHROPIC_API_KEY=fake-key make run"
                )
            self.stdout.flush()
            while not signals.wait(3600):
                pass

    def _replay(self, options: dict[str, Any]) -> Replay:
        """Read the recorded answers. Raises: TableError, OSError, CommandError."""
        voters = {}
        for voter in options["voter"]:
            model, equals, names = voter.partition("=")
            if not equals or not model or not names:
                raise CommandError(f"“{voter}” is not of the form MODEL=COL[,COL].")
            if catalogue.find(model) is None:
                raise CommandError(
                    f"There is no model “{model}” here; there are {', '.join(catalogue.ACTIVE)}."
                )
            voters[model] = names.split(",")
        if options["replay"] is None:
            return Replay()
        return read_replay(
            options["replay"],
            options["text"].split(","),
            options["predicted"].split(","),
            options["confidence"],
            voters,
        )


def _share(given: str) -> tuple[str, float]:
    """Return the kind and the share of an argument such as drop:0.1. Raises: ValueError."""
    kind, colon, share = given.partition(":")
    try:
        return kind, float(share) if colon else 1.0
    except ValueError:
        raise ValueError(f"The share of “{kind}” is a number from 0 to 1.") from None
