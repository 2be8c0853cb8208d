"""What the queue lost is asked for again."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from reviews import tasks


class Command(BaseCommand):
    """`sweep`: workers do this every ten seconds by themselves."""

    help = "Ask workers again for every run, file and replay that nobody works on."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        n = tasks.sweep()
        self.stdout.write(json.dumps({"enqueued": n}) if options["json"] else f"{n} enqueued again.")
