"""An account with a role, and a link to sign in."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datasets.models import Dataset, Role
from labelhub import accounts


class Command(BaseCommand):
    """`makeuser NAME --role ROLE [--dataset ID]`: makes an account, or changes the role of one."""

    help = "Give somebody a role, make the account if there is none, and print a one-time sign-in link."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("name")
        parser.add_argument("--role", required=True, choices=Role.values)
        parser.add_argument("--dataset", type=int, metavar="ID", help="on this dataset only, not on all")
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        dataset = None
        if options["dataset"] is not None:
            dataset = Dataset.objects.filter(pk=options["dataset"]).first()
            if dataset is None:
                raise CommandError(f"There is no dataset {options['dataset']}.")
        try:
            user = accounts.make_user(options["name"], options["role"], dataset)
        except accounts.NotAllowed as error:
            raise CommandError(str(error)) from error
        link = accounts.signin_link(user)
        if options["json"]:
            told = {"name": user.username, "role": options["role"], "dataset": options["dataset"]}
            self.stdout.write(json.dumps({**told, "link": link}))
            return
        where = f"dataset {dataset.pk}, {dataset.name}" if dataset else "all datasets"
        self.stdout.write(f"{user.username} is {options['role']} on {where}.")
        self.stdout.write(f"Sign in once, within 7 days:\n{link}")
