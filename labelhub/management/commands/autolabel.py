"""A run of a dataset, started here and worked by workers, or here and now."""

import json
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datasets import money, slices
from datasets.labeling import MODEL
from datasets.models import Dataset, Run
from datasets.money import usd
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
        try:
            run = learning.learn(dataset, options["method"], None, _spend(options), rings=not options["wait"])
        except (learning.CannotLearn, thresholds.SampleIsOpen, tasks.RunIsActive) as error:
            raise CommandError(str(error)) from error
        if run.budget_nano is not None and options["budget"] is None and not options["json"]:
            self.stdout.write(f"No --budget was given: the run pays at most {usd(run.budget_nano)}.")
        if options["wait"]:
            run = tasks.work_here(run)
        self._tell(run, options)
        if run.problem:
            raise CommandError(run.problem)

    def _tell(self, run: Run, options: dict[str, Any]) -> None:
        done, asks = slices.progress(run), run.budget_nano is not None
        if options["json"]:
            told = {
                "id": run.pk, "dataset": run.dataset_id, "run": run.number, "state": run.state,
                "items": done.items, "labeled": done.done, "problem": run.problem,
                "cost_usd": float(money.to_usd(run.spent_nano)) if asks else None,
                "budget_usd": float(money.to_usd(run.budget_nano)) if asks else None,
                "estimate": run.estimate or None,
            }  # fmt: skip
            self.stdout.write(json.dumps(told))
            return
        cost = f" It cost {usd(run.spent_nano)} of at most {usd(run.budget_nano)}." if asks else ""
        self.stdout.write(f"Run {run.number} is {run.state}: {done.done:,} of {done.items:,} items.{cost}")


def _spend(options: dict[str, Any]) -> learning.Spend | None:
    """How the run may ask a language model; an ensemble asks only where there is a budget. Raises: CommandError."""
    typed = options["budget"]
    if typed is not None and not 0 < typed < float("inf"):
        raise CommandError("A budget is a number of USD above 0.")
    if typed is None and options["method"] != MODEL:
        if options["batch"] or options["new_examples"]:
            raise CommandError("--batch and --new-examples need a --budget: without one no model is asked.")
        return None
    budget = None if typed is None else Decimal(str(typed))
    return learning.Spend(budget, options["batch"], options["new_examples"])
