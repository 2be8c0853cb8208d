"""A run of a dataset, started here and worked by workers, or here and now."""

import json
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datasets import slices
from datasets.models import Dataset, Run
from reviews import learning, tasks, thresholds


class Command(BaseCommand):
    """`autolabel DATASET --method M [--wait]`: learns from the answers there are and labels the rest."""

    help = "Start labeling a dataset by machine; --wait does the work in this process."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("dataset", type=int)
        parser.add_argument(
            "--method", default="ensemble", metavar="M", help="ensemble, weak_model, rules, llm or imported"
        )
        parser.add_argument(
            "--budget", type=float, metavar="USD", help="never spend more than this on a language model"
        )
        parser.add_argument(
            "--batch", action="store_true", help="hand in requests together: half the price, within a day"
        )
        parser.add_argument(
            "--new-examples",
            action="store_true",
            help="choose other examples for the prompt; pays for all anew",
        )
        parser.add_argument("--wait", action="store_true", help="do the work here and return when it is done")
        parser.add_argument("--json", action="store_true", help="print machine-readable output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        dataset = Dataset.objects.filter(pk=options["dataset"]).first()
        if dataset is None:
            raise CommandError(f"There is no dataset {options['dataset']}.")
        if options["budget"] is not None and not options["budget"] > 0:
            raise CommandError("A budget is a number of USD above 0.")
        spend = None
        if options["budget"] is not None:
            spend = learning.Spend(Decimal(str(options["budget"])), options["batch"], options["new_examples"])
        try:
            run = learning.learn(dataset, options["method"], None, spend, rings=not options["wait"])
        except (learning.CannotLearn, thresholds.SampleIsOpen, tasks.RunIsActive) as error:
            raise CommandError(str(error)) from error
        if options["wait"]:
            run = tasks.work_here(run)
        self._tell(run, options)
        if run.problem:
            raise CommandError(run.problem)

    def _tell(self, run: Run, options: dict[str, Any]) -> None:
        done = slices.progress(run)
        if options["json"]:
            told = {"id": run.pk, "dataset": run.dataset_id, "run": run.number, "state": run.state,
                    "items": done.items, "labeled": done.done, "problem": run.problem}  # fmt: skip
            self.stdout.write(json.dumps(told))
        else:
            self.stdout.write(f"Run {run.number} is {run.state}: {done.done:,} of {done.items:,} items.")
