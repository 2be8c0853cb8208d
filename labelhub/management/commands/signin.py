"""A new link for somebody who has an account."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from labelhub import accounts


class Command(BaseCommand):
    """`signin NAME`: prints a new one-time link."""

    help = "Print a one-time link that signs somebody in."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("name")
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        user = accounts.find(options["name"])
        if user is None:
            raise CommandError(f"There is no account called {options['name']}.")
        if not user.is_active:
            raise CommandError(f"The account {user.username} is disabled.")
        link = accounts.signin_link(user)
        if options["json"]:
            self.stdout.write(json.dumps({"name": user.username, "link": link}))
            return
        self.stdout.write(f"Signs in {user.username}, once, within 7 days:\n{link}")
