"""Random histories of a small dataset, made by the real functions, and an independent recount of them.

The recount walks over every item, decision and sample in Python and knows nothing of the statements it checks.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from datasets.models import Dataset, Item, Label, LabelerVersion, Membership, Prediction, Run
from datasets.slices import write_tally
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import decisions, queue, samples, thresholds
from reviews.models import Decision, Remark, Sample, SampleItem, Threshold


class Story:
    """A dataset of ``n`` rows with copies, given and excluded ones, and what happened to it."""

    def __init__(self, seed: int, n: int = 60) -> None:
        self.dice = random.Random(seed)
        name = f"story {seed}"
        self.dataset = Dataset.objects.create(
            name=name, ready_at=timezone.now(), columns=["text"], target_error=0.1
        )
        self.labels = [
            Label.objects.create(dataset=self.dataset, name=label, position=place)
            for place, label in enumerate(("spam", "ham", "other"))
        ]
        self.people = [User.objects.create_user(f"{name} {who}") for who in ("ann", "bob")]
        for person in self.people:
            Membership.objects.create(user=person, dataset=self.dataset, role="owner")
        self.items: list[Item] = []
        for position in range(1, n + 1):
            firsts = [item for item in self.items if item.same_as_id is None]
            first = self.dice.choice(firsts) if firsts and self.dice.random() < 0.1 else None
            kind = self.dice.random()
            self.items.append(
                Item.objects.create(
                    dataset=self.dataset, position=position, text=f"text {position}", text_hash=position,
                    row=f'{{"text":"text {position}"}}', same_as=first,
                    given_label=self.labels[0] if first is None and kind < 0.08 else None,
                    excluded="empty" if first is None and kind > 0.96 else None,
                )
            )  # fmt: skip
        self.free = [
            item
            for item in self.items
            if item.same_as_id is None and not item.given_label_id and not item.excluded
        ]
        self.truth = {item.pk: self.dice.choice(self.labels) for item in self.free}
        self.run(finished=self.dice.random() < 0.8)
        thresholds.move(self.dataset, to_rank(0.8), self.people[0], run=Run.objects.get(dataset=self.dataset))

    def run(self, finished: bool = True) -> Run:
        """A run over what nobody has decided; a running one has labeled two thirds."""
        decided = {item.pk for item in self.free if decisions.current(item.pk)}
        version = LabelerVersion.objects.create(dataset=self.dataset, method="weak_model")
        run = Run.objects.create(
            dataset=self.dataset, number=self.dataset.runs.count() + 1, version=version, seed="0" * 32,
            started_at=timezone.now(), finished_at=timezone.now() if finished else None,
        )  # fmt: skip
        ids = []
        for item in self.free:
            if item.pk in decided or (not finished and self.dice.random() < 0.33):
                continue
            sure = self.dice.choice([0.99, 0.97, 0.95, 0.9, 0.853, 0.85, 0.8, 0.7, 0.512, 0.3])
            right = self.dice.random() < sure
            label = self.truth[item.pk] if right else self.dice.choice(self.labels)
            failed = self.dice.random() < 0.05
            Prediction.objects.create(
                run=run, item=item, label=None if failed else label, problem="refused" if failed else None,
                rank=0 if failed else to_rank(sure, self.dice.randrange(10**6)),
            )  # fmt: skip
            ids.append(item.pk)
        decisions.settle(self.dataset.pk, ids)
        if finished:
            write_tally(run)
        return run

    def act(self, steps: int) -> None:
        """Do random things."""
        for _ in range(steps):
            what = self.dice.choice(
                ["answer"] * 8 + ["undo"] * 2 + ["change", "second", "ask", "draw", "finish", "finish", "discard",
                 "raise", "retire", "rerun"]
            )  # fmt: skip
            getattr(self, f"_{what}")()

    def _label(self, item: Item) -> dict[str, Any]:
        dice = self.dice.random()
        if dice < 0.1:
            return {"outcome": "cant_tell"}
        if dice < 0.13:
            return {"outcome": "exclude"}
        right = self.dice.random() < 0.9
        return {"outcome": "label", "label": self.truth[item.pk] if right else self.dice.choice(self.labels)}

    def _say(self, item: Item, person: User) -> None:
        try:
            decisions.decide(item, person, seconds=self.dice.uniform(1, 30), **self._label(item))
        except decisions.NotAllowed:
            assert SampleItem.objects.filter(
                item=item, sample__closed_at=None, sample__superseded_at=None
            ).exists()

    def _answer(self) -> None:
        self._say(self.dice.choice(self.free), self.people[0])

    def _second(self) -> None:
        self._say(self.dice.choice(self.free), self.people[1])

    def _change(self) -> None:
        known = [item for item in self.free if decisions.current(item.pk)]
        if known:
            self._say(self.dice.choice(known), self.people[0])

    def _undo(self) -> None:
        person = self.dice.choice(self.people)
        decisions.undo(self.dataset, person, within=thresholds.open_sample(self.dataset))
        mine = Decision.objects.answers().filter(dataset=self.dataset, reviewer=person)
        if mine and self.dice.random() < 0.5:
            decisions.undo(self.dataset, person, uuid=self.dice.choice(list(mine)).uuid)

    def _ask(self) -> None:
        decisions.remark(self.dice.choice(self.free), self.people[0], "ask")

    def _draw(self) -> None:
        now = thresholds.in_force(self.dataset)
        assert now is not None
        try:
            samples.draw_spot_check(self.dataset, now, self.people[0])
        except (samples.NothingToDraw, thresholds.SampleIsOpen):
            pass

    def _finish(self) -> None:
        sample = thresholds.open_sample(self.dataset)
        if sample is None:
            return
        stop = self.dice.random() < 0.3
        for n in range(sample.size):
            claim = queue.claim_drawn(self.dataset, self.people[1], "", sample)
            if claim is None or (stop and n > 3):
                break
            self._say(claim.item, self.people[1])
        samples.close_when_answered(sample)

    def _discard(self) -> None:
        if self.dice.random() < 0.3:
            samples.discard(self.dataset, self.people[0])

    def _raise(self) -> None:
        try:
            thresholds.move(
                self.dataset,
                self.dice.choice([to_rank(v) for v in (0.3, 0.7, 0.8, 0.8531, 0.9)]),
                self.people[0],
            )
        except thresholds.SampleIsOpen:
            pass

    def _retire(self) -> None:
        if self.dice.random() < 0.2 and thresholds.open_sample(self.dataset) is None:
            Label.objects.filter(pk=self.labels[2].pk).update(retired_at=timezone.now())

    def _rerun(self) -> None:
        if self.dice.random() < 0.3 and thresholds.open_sample(self.dataset) is None:
            if not Run.objects.active().filter(dataset=self.dataset).exists():
                run = self.run()
                now = thresholds.in_force(self.dataset)
                assert now is not None
                thresholds.move(self.dataset, now.rank, self.people[0], run=run)


class Recount:
    """The same figures, item by item."""

    def __init__(self, story: Story) -> None:
        self.dataset = story.dataset
        self.items = list(Item.objects.filter(dataset=self.dataset))
        self.history: dict[int, list[Decision]] = defaultdict(list)
        for decision in Decision.objects.filter(dataset=self.dataset).order_by("pk"):
            self.history[decision.item_id].append(decision)
        threshold = Threshold.objects.filter(dataset=self.dataset).order_by("pk").last()
        assert threshold is not None
        self.threshold = threshold
        self.alive = set(
            Label.objects.filter(dataset=self.dataset, retired_at=None).values_list("pk", flat=True)
        )
        self.said = {p.item_id: p for p in Prediction.objects.filter(run=threshold.run)}
        self.asked: dict[int, dt.datetime] = {}
        for remark in Remark.objects.filter(dataset=self.dataset, kind="ask").order_by("-pk"):
            self.asked[remark.item_id] = remark.at
        opened = Sample.objects.filter(dataset=self.dataset, closed_at=None, superseded_at=None).first()
        self.open_sample = opened
        self.drawn = {one.item_id for one in opened.drawn.all()} if opened else set()

    def standing(self, item: int, at: dt.datetime | None = None) -> list[Decision]:
        known = [d for d in self.history[item] if at is None or d.decided_at < at]
        gone = {d.revokes_id for d in known}
        return [d for d in known if d.outcome != "undo" and d.pk not in gone]

    def current(self, item: int) -> Decision | None:
        found = self.standing(item)
        return found[0] if found else None

    def told(self, item: int) -> Decision | None:
        """The answer in force, unless it belongs to a sample that is still open."""
        found = self.current(item)
        hidden = found is not None and self.open_sample is not None and found.sample_id == self.open_sample.pk
        return None if hidden else found

    def state(self, item: Item, rank: int | None = None) -> str:
        rank = self.threshold.rank if rank is None else rank
        if item.same_as_id:
            return "copies"
        if item.excluded:
            return "excluded"
        if item.given_label_id:
            return "given"
        if self.current(item.pk):
            return "decided"
        if item.pk in self.drawn:
            return "flagged"
        said = self.said.get(item.pk)
        if said is None:
            return "pending"
        stands = said.label_id in self.alive and said.rank >= rank and item.pk not in self.asked
        return "accepted" if stands else "flagged"

    def has_label(self, item: Item) -> bool:
        first = item.same_as or item
        answer = self.current(first.pk)
        return self.state(first) in ("given", "accepted") or (
            answer is not None and answer.outcome == "label"
        )

    def stretch(self, low: int, high: int = ACCEPT_NOTHING, label: int | None = None) -> list[Prediction]:
        return [
            p
            for p in self.said.values()
            if low <= p.rank < high and p.label_id in self.alive and label in (None, p.label_id)
        ]

    def evidence(
        self, low: int, high: int = ACCEPT_NOTHING, label: int | None = None
    ) -> dict[str, Any] | None:
        """What the accuracy of a stretch rests on, by the definitions: pool, draw, answers before and after it."""
        stretch = self.stretch(low, high, label)
        answered = [p for p in stretch if self.told(p.item_id)]
        best: dict[str, Any] | None = None
        closed = Sample.objects.filter(
            run=self.threshold.run, purpose__in=("spot_check", "calibration"), closed_at__isnull=False
        )
        for sample in closed.order_by("drawn_at", "pk"):
            pool, outside, excused, loose = [], [], [], []
            for p in stretch:
                asked = p.item_id in self.asked and self.asked[p.item_id] < sample.drawn_at
                if not self.standing(p.item_id, sample.drawn_at) and not asked and p.rank >= sample.threshold:
                    pool.append(p)
                elif self.told(p.item_id):
                    outside.append(p)
                elif p.item_id in self.asked and p.item_id not in self.drawn and not self.current(p.item_id):
                    excused.append(p)
                else:
                    loose.append(p)
            ids = set(sample.drawn.values_list("item", flat=True))
            checked = [p for p in pool if p.item_id in ids]
            if loose or sample.threshold > low or not checked:
                continue
            if best is None or len(checked) > best["checked"]:
                first = {p.item_id: self._first(p.item_id, sample) for p in checked}
                best = {
                    "sample": sample.pk,
                    "items": len(stretch) - len(excused),
                    "checked": len(checked),
                    "wrong": sum(first[p.item_id] != p.label_id for p in checked),
                    "outside": len(outside),
                    "outside_wrong": self.wrong(outside),
                    "later": len([p for p in pool if p not in checked and self.told(p.item_id)]),
                    "later_wrong": self.wrong([p for p in pool if p not in checked and self.told(p.item_id)]),
                }
        if best is not None:
            return best | {"answered": len(answered), "answered_wrong": self.wrong(answered)}
        waiting = [
            p for p in stretch if p.item_id in self.asked and self.state(Item(pk=p.item_id)) == "flagged"
        ]
        waiting = [p for p in waiting if not self.current(p.item_id) and p.item_id not in self.drawn]
        if stretch and len(answered) == len(stretch) - len(waiting) and answered:
            return {"sample": None, "items": len(answered), "answered": len(answered),
                    "answered_wrong": self.wrong(answered)}  # fmt: skip
        return None

    def wrong(self, stretch: list[Prediction]) -> int:
        count = 0
        for p in stretch:
            answer = self.told(p.item_id)
            assert answer is None or answer.outcome == "label" or answer.label_id is None
            count += answer is not None and answer.label_id != p.label_id
        return count

    def _first(self, item: int, sample: Sample) -> int | None:
        assert sample.closed_at is not None
        gone = {d.revokes_id for d in self.history[item] if d.decided_at <= sample.closed_at}
        return next(
            d.label_id
            for d in self.history[item]
            if d.sample_id == sample.pk and d.outcome != "undo" and d.pk not in gone
        )


def count_statements(call: Any) -> int:
    """How many statements a call sends to the database."""
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as caught:
        call()
    return len(caught)
