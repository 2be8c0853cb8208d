"""Nobody gets an item that somebody else holds, and nothing falls out of the queue."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections
from django.utils import timezone

from datasets.models import Prediction
from reviews import decisions, queue, thresholds
from reviews.models import Claim, Decision, Outcome, Remark, Threshold


def claim(world, who="reviewer", client="a", **more):
    return queue.claim_next(world.dataset, world.people[who], client, world.threshold, **more)


@pytest.mark.django_db
class TestOrder:
    def test_the_least_certain_item_comes_first(self, make_world):
        world = make_world([0.8, 0.3, 0.6, 0.95])
        seen = []
        while (held := claim(world)) is not None:
            seen.append(held.item_id)
            decisions.decide(held.item, world.people["reviewer"], Outcome.LABEL, world.labels[0])
        assert seen == [world.items[i].pk for i in (1, 2, 0)]

    def test_asking_again_returns_the_item_that_one_already_holds(self, make_world):
        world = make_world([0.3, 0.4])
        assert claim(world).item_id == claim(world).item_id

    def test_naming_what_one_holds_gives_another(self, make_world):
        world = make_world([0.3, 0.4])
        first = claim(world)
        assert claim(world, have=[first.item_id]).item_id == world.items[1].pk

    def test_a_second_person_gets_the_next_item(self, make_world):
        world = make_world([0.3, 0.4])
        assert {claim(world).item_id, claim(world, who="second").item_id} == {i.pk for i in world.items}
        assert claim(world, who="owner") is None

    def test_a_claim_that_ran_out_goes_to_the_next_who_asks(self, make_world):
        world = make_world([0.3])
        held = claim(world)
        Claim.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
        assert claim(world, who="second").item_id == held.item_id
        assert not queue.renew(held.item_id, world.people["reviewer"], "a")

    def test_a_claim_is_prolonged_only_for_who_holds_it(self, make_world):
        world = make_world([0.3])
        held = claim(world)
        assert queue.renew(held.item_id, world.people["reviewer"], "a")
        assert not queue.renew(held.item_id, world.people["reviewer"], "other browser")

    def test_a_skipped_item_comes_last_to_others_and_to_the_skipper_only_when_asked_for(self, make_world):
        world = make_world([0.1, 0.2])
        first = claim(world)
        decisions.remark(first.item, world.people["reviewer"], Remark.Kind.SKIP)
        second = claim(world)
        assert second.item_id == world.items[1].pk
        decisions.decide(second.item, world.people["reviewer"], Outcome.LABEL, world.labels[0])
        assert claim(world) is None
        assert queue.count_skipped(world.threshold, world.people["reviewer"]) == 1
        assert claim(world, skipped=True).item_id == first.item_id
        Claim.objects.all().delete()
        assert claim(world, who="second").item_id == first.item_id

    def test_an_item_that_the_manager_is_asked_about_leaves_the_queue(self, make_world):
        world = make_world([0.1])
        decisions.remark(claim(world).item, world.people["reviewer"], Remark.Kind.ASK)
        assert claim(world) is None
        assert queue.count_left(world.threshold) == 0
        assert queue.first_asked(world.dataset) == world.items[0].pk

    def test_items_without_a_label_are_in_the_queue_at_every_threshold(self, make_world):
        world = make_world([0.9], threshold="0")
        Prediction.objects.update(label=None, problem="abstained", rank=0)
        assert claim(world).item_id == world.items[0].pk
        assert queue.count_left(world.threshold) == 1

    def test_items_of_a_retired_label_are_in_the_queue_at_every_threshold(self, make_world):
        world = make_world([0.99, 0.99])
        assert queue.count_left(world.threshold) == 0
        world.labels[0].retired_at = timezone.now()
        world.labels[0].save()
        assert queue.count_left(world.threshold) == 1
        assert claim(world).item_id == world.items[0].pk

    def test_accepted_and_flagged_are_each_others_complement(self, make_world):
        world = make_world([i / 20 for i in range(20)])
        for typed in ("0", "0.25", "0.5", "0.85", "1"):
            rank = thresholds.typed_rank(typed)
            accepted = set(Prediction.objects.accepted(rank).values_list("pk", flat=True))
            flagged = set(Prediction.objects.flagged(rank).values_list("pk", flat=True))
            assert not accepted & flagged
            assert len(accepted | flagged) == 20
            assert queue.count_left(Threshold(dataset=world.dataset, run=world.run, rank=rank)) == len(
                flagged
            )


@pytest.mark.django_db(transaction=True)
def test_eight_threads_of_two_reviewers_make_2000_claims_and_no_item_goes_out_twice(make_world):
    """C01: every item is handed out exactly once, on both databases."""
    world = make_world([])
    from datasets.bulk import insert_rows
    from datasets.models import Item

    n = 2000
    insert_rows(
        Item,
        ("dataset_id", "position", "text", "row", "text_hash"),
        ((world.dataset.pk, i, f"t{i}", "{}", i) for i in range(1, n + 1)),
    )
    ids = list(Item.objects.filter(dataset=world.dataset).values_list("pk", flat=True))
    insert_rows(
        Prediction,
        ("run_id", "item_id", "label_id", "rank", "open"),
        ((world.run.pk, pk, world.labels[0].pk, k, True) for k, pk in enumerate(ids)),
    )
    people = [world.people["reviewer"], world.people["second"]]

    def work(thread: int) -> list[int]:
        mine, who = [], people[thread % 2]
        try:
            while (
                held := queue.claim_next(world.dataset, who, f"client {thread}", world.threshold)
            ) is not None:
                decisions.decide(held.item, who, Outcome.LABEL, world.labels[0])
                mine.append(held.item_id)
        finally:
            connections.close_all()
        return mine

    with ThreadPoolExecutor(8) as pool:
        handed = [pk for part in pool.map(work, range(8)) for pk in part]
    assert sorted(handed) == sorted(ids), f"on {connection.vendor}"
    assert Decision.objects.current().count() == n
    assert not Prediction.objects.filter(open=True).exists()


@pytest.mark.django_db(transaction=True)
def test_the_same_answer_sent_by_eight_threads_at_once_is_one_decision(make_world):
    """C03, C05: a double click and a retry after a lost response."""
    import uuid

    world, sent = make_world([0.5]), uuid.uuid4()

    def send(_: int) -> str:
        try:
            return decisions.decide(
                world.items[0], world.people["reviewer"], Outcome.LABEL, world.labels[0], uuid=sent
            ).kind
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        kinds = sorted(pool.map(send, range(8)))
    assert kinds == ["current"] + ["repeat"] * 7
    assert Decision.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_people_answering_one_item_at_once_are_both_kept(make_world):
    """C02: the first is in force, the second is an extra vote."""
    world = make_world([0.5])

    def send(who: str) -> str:
        try:
            return decisions.decide(world.items[0], world.people[who], Outcome.LABEL, world.labels[0]).kind
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, ["reviewer", "second"]))
    assert Decision.objects.answers().count() == 2
    assert Decision.objects.current().count() == 1
