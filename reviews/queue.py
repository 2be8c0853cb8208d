"""Who sees which item next.

A claim is one row per item. It is taken by one conditional insert, so two reviewers can ask
at the same moment and never get the same item; it ends by itself after ten minutes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.utils import timezone

from datasets.models import Dataset, Label
from reviews.models import Claim, Purpose, Sample, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

CLAIM_LASTS = dt.timedelta(minutes=10)
MOST_TRIES = 50  # a lost race each; more means that something is wrong
COUNT_AT_MOST = 10_000

_NOT_CLAIMED = """NOT EXISTS (SELECT 1 FROM reviews_claim c
    WHERE c.item_id = p.item_id AND c.expires_at > %s)"""
_NO_REMARK = """NOT EXISTS (SELECT 1 FROM reviews_remark m
    WHERE m.item_id = p.item_id AND m.kind = '{kind}'{whose})"""
_CLAIM = """
INSERT INTO reviews_claim
    (item_id, dataset_id, user_id, client, purpose, sample_id, showed_machine, claimed_at, expires_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (item_id) DO UPDATE SET
    dataset_id = excluded.dataset_id, user_id = excluded.user_id, client = excluded.client,
    purpose = excluded.purpose, sample_id = excluded.sample_id,
    showed_machine = excluded.showed_machine,
    claimed_at = excluded.claimed_at, expires_at = excluded.expires_at
WHERE reviews_claim.expires_at <= excluded.claimed_at
"""


def claim_next(
    dataset: Dataset,
    user: User,
    client: str,
    threshold: Threshold,
    have: Collection[int] = (),
    skipped: bool = False,
) -> Claim | None:
    """Lease the least certain flagged item to this client, or return the one it already holds.

    Items that someone skipped come after the others; those that this person skipped only
    with ``skipped``. Items that a manager was asked about are not in this queue.
    """
    held = _held(dataset, user, client, Purpose.REVIEW, None, have)
    if held is not None:
        return held
    rounds: list[tuple[str, list[Any]]] = [
        (_NO_REMARK.format(kind="skip", whose=""), []),
        (_NO_REMARK.format(kind="skip", whose=" AND m.user_id = %s"), [user.pk]),
    ]
    if skipped:
        rounds.append(("TRUE", []))
    for condition, values in rounds:
        claim = _race(
            dataset, user, client, Purpose.REVIEW, None, True, _flagged(threshold, condition, values)
        )
        if claim is not None:
            return claim
    return None


def claim_drawn(dataset: Dataset, user: User, client: str, sample: Sample) -> Claim | None:
    """Lease the next unanswered item of an open sample, blind, in the order of the draw."""
    held = _held(dataset, user, client, sample.purpose, sample, ())
    if held is not None:
        return held
    skips = "EXISTS (SELECT 1 FROM reviews_remark m WHERE m.item_id = p.item_id AND m.kind = 'skip'{})"
    sql = f"""
        SELECT p.item_id FROM reviews_sampleitem p
        WHERE p.sample_id = %s
        AND NOT EXISTS (SELECT 1 FROM reviews_decision d WHERE d.item_id = p.item_id
            AND d.outcome <> 'undo'
            AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = d.id))
        AND {_NOT_CLAIMED}
        ORDER BY {skips.format(" AND m.user_id = %s")}, {skips.format("")}, p.place LIMIT 1"""

    def query(now: dt.datetime) -> tuple[str, list[Any]]:
        return sql, [sample.pk, as_stored(now), user.pk]

    return _race(dataset, user, client, sample.purpose, sample, False, query)


def as_stored(moment: dt.datetime) -> Any:
    """A moment as the database keeps it, for statements that Django does not write."""
    return connection.ops.adapt_datetimefield_value(moment)


def claim_again(
    dataset: Dataset, user: User, client: str, item_id: int, sample: Sample | None
) -> Claim | None:
    """Lease one named item, for instance after an undo; None when someone else holds it."""
    purpose, shows = (Purpose.REVIEW, True) if sample is None else (Purpose(sample.purpose), False)
    held = Claim.objects.filter(item=item_id, user=user, client=client, expires_at__gt=timezone.now()).first()
    if held is not None:
        return held

    def query(now: dt.datetime) -> tuple[str, list[Any]]:
        return (
            "SELECT id FROM datasets_item WHERE id = %s AND dataset_id = %s AND NOT EXISTS "
            "(SELECT 1 FROM reviews_claim c WHERE c.item_id = %s AND c.expires_at > %s)",
            [item_id, dataset.pk, item_id, as_stored(now)],
        )

    return _race(dataset, user, client, purpose, sample, shows, query)


def _held(
    dataset: Dataset, user: User, client: str, purpose: str, sample: Sample | None, have: Collection[int]
) -> Claim | None:
    mine = Claim.objects.filter(
        dataset=dataset,
        user=user,
        client=client,
        purpose=purpose,
        sample=sample,
        expires_at__gt=timezone.now(),
    )
    return mine.exclude(item__in=have).order_by("claimed_at").first()


def _flagged(threshold: Threshold, condition: str, values: list[Any]) -> Any:
    where, first = flagged_where(threshold)
    sql = f"""
        SELECT p.item_id FROM datasets_prediction p
        WHERE {where} AND {_NOT_CLAIMED}
        AND {_NO_REMARK.format(kind="ask", whose="")} AND {condition}
        ORDER BY p.rank, p.item_id LIMIT 1"""
    if connection.vendor == "postgresql":
        sql += " FOR UPDATE OF p SKIP LOCKED"

    def query(now: dt.datetime) -> tuple[str, list[Any]]:
        return sql, [*first, as_stored(now), *values]

    return query


def flagged_where(threshold: Threshold) -> tuple[str, list[Any]]:
    """SQL for the flagged predictions ``p``; an index range unless labels were retired."""
    labels = Label.objects.filter(dataset=threshold.dataset_id)
    retired = list(labels.exclude(retired_at=None).values_list("pk", flat=True))
    below = "p.rank < %s"
    values: list[Any] = [threshold.run_id, True, threshold.rank]
    if threshold.rank <= 0:
        below += " OR p.label_id IS NULL"
    if retired:
        below += f" OR p.label_id IN ({','.join(['%s'] * len(retired))})"
        values += retired
    return f"p.run_id = %s AND p.open = %s AND ({below})", values


def _race(
    dataset: Dataset, user: User, client: str, purpose: str, sample: Sample | None, shows: bool, query: Any
) -> Claim | None:
    for _ in range(MOST_TRIES):
        now = timezone.now()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(*query(now))
            row = cursor.fetchone()
            if row is None:
                return None
            claim = Claim(
                item_id=row[0],
                dataset=dataset,
                user=user,
                client=client,
                purpose=purpose,
                sample=sample,
                showed_machine=shows,
                claimed_at=now,
                expires_at=now + CLAIM_LASTS,
            )
            cursor.execute(
                _CLAIM,
                [
                    claim.item_id, dataset.pk, user.pk, client, purpose,
                    sample.pk if sample else None, shows, as_stored(now), as_stored(claim.expires_at),
                ],
            )  # fmt: skip
            if cursor.rowcount == 1:
                return claim
    raise RuntimeError("no item could be claimed in many tries")


def renew(item_id: int, user: User, client: str) -> bool:
    """Prolong a claim that is still this client's; False when it is gone."""
    later = timezone.now() + CLAIM_LASTS
    return Claim.objects.filter(item=item_id, user=user, client=client).update(expires_at=later) == 1


def count_left(threshold: Threshold) -> int:
    """Count the flagged items that wait for a reviewer, at most `COUNT_AT_MOST` of them."""
    where, values = flagged_where(threshold)
    sql = f"""SELECT count(*) FROM (SELECT 1 FROM datasets_prediction p WHERE {where}
        AND {_NO_REMARK.format(kind="ask", whose="")} LIMIT {COUNT_AT_MOST}) AS waiting"""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.fetchone()[0])


def count_skipped(threshold: Threshold, user: User) -> int:
    """Count the flagged items that this person skipped and nobody has answered."""
    where, values = flagged_where(threshold)
    sql = f"""SELECT count(DISTINCT p.item_id) FROM reviews_remark m
        JOIN datasets_prediction p ON p.item_id = m.item_id
        WHERE m.dataset_id = %s AND m.kind = 'skip' AND m.user_id = %s AND {where}"""
    with connection.cursor() as cursor:
        cursor.execute(sql, [threshold.dataset_id, user.pk, *values])
        return int(cursor.fetchone()[0])


def first_asked(dataset: Dataset) -> int | None:
    """The longest-waiting undecided item that a manager was asked about."""
    sql = """SELECT m.item_id FROM reviews_remark m
        WHERE m.dataset_id = %s AND m.kind = 'ask'
        AND NOT EXISTS (SELECT 1 FROM reviews_decision d WHERE d.item_id = m.item_id AND d.outcome <> 'undo'
            AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = d.id))
        ORDER BY m.id LIMIT 1"""
    with connection.cursor() as cursor:
        cursor.execute(sql, [dataset.pk])
        row = cursor.fetchone()
    return row[0] if row else None
