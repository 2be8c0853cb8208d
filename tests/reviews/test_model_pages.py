"""Starting a run of the language model and watching it: form, estimate, cap and reasons to wait, as the browser gets them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from datasets import money, questions, slices
from datasets.models import AuditEvent, Call, Dataset, Gate, MessageBatch, Run, Slice
from labelhub.fakeclaude.server import Server
from reviews import learning, samples, tasks
from tests.reviews.asked import ANSWERS, ask_here, stance
from tests.reviews.model_things import speaking

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    """What answers instead of the model, for everything that asks it."""
    with speaking(settings, ANSWERS, everywhere=True) as server:
        yield server


@pytest.fixture
def dataset(db: None, tmp_path: Path) -> Dataset:
    return stance(tmp_path)


def words(answer: Any) -> str:
    """The text of a page, white space collapsed."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())).split())


def field(page: str, name: str) -> str:
    return re.search(rf'name="{name}"[^>]* value="([^"]*)"', page)[1]  # type: ignore[index]


def test_without_a_key_the_form_says_so_and_the_rest_works(dataset: Dataset, at: Client) -> None:
    page = at.get(f"/d/{dataset.pk}/")
    assert "No key for the language model" in words(page) and "model-options" not in page.content.decode()
    asked = at.get(f"/d/{dataset.pk}/estimate/", {"method": "llm"}, headers=HTMX)
    assert asked.status_code == 422 and "No key for the language model" in words(asked)
    refused = at.post(f"/d/{dataset.pk}/run/", {"method": "llm", "budget": "1"})
    assert refused.status_code == 422 and "No key for the language model" in words(refused)
    assert at.post(f"/d/{dataset.pk}/run/", {"method": "ensemble"}).status_code == 302


def test_the_form_says_what_leaves_and_where_to(dataset: Dataset, at: Client, server: Server) -> None:
    page = words(at.get(f"/d/{dataset.pk}/"))
    host = server.url.removeprefix("http://")
    assert f"The column text of up to 60 items is sent to {host} , with the labels" in page
    assert "nothing else of the file leaves" in page and "prices as of 20 Nov 2026" in page
    assert "Answers come from a local stand-in, not from a language model." in page
    assert "Choose other examples" not in page
    assert server.stats()["calls"] == {}, "looking at the form asks nobody"


@pytest.mark.parametrize("method", ["llm", "ensemble"])
def test_an_estimate_is_a_fragment_or_a_page_and_offers_its_cap(
    dataset: Dataset, at: Client, server: Server, method: str
) -> None:
    sent = {"method": method, "ask": "1"}
    part = at.get(f"/d/{dataset.pk}/estimate/", sent, headers=HTMX)
    assert part.status_code == 200 and part.content.decode().startswith('<div class="stack tight" id="est')
    assert "Asked about 60 of 60 items; none was answered before." in words(part)
    assert "by the API’s own count" in words(part)
    whole = at.get(f"/d/{dataset.pk}/estimate/", sent).content.decode()
    assert field(whole, "budget") == field(part.content.decode(), "budget") == "0.10"
    assert f'value="{method}" checked' in whole and 'name="ask" value="1" checked' in whole
    assert not dataset.runs.exists()


def test_another_estimate_replaces_what_was_offered_and_keeps_what_was_typed(
    dataset: Dataset, at: Client, server: Server
) -> None:
    sent = {"method": "llm", "batch": "1", "offered": "7.00"}
    for typed, kept in (("7.00", "0.10"), ("6.50", "6.50"), ("", "0.10")):
        answer = at.get(f"/d/{dataset.pk}/estimate/", sent | {"budget": typed}, headers=HTMX)
        assert field(answer.content.decode(), "budget") == kept


def test_answers_there_are_cost_nothing_again(
    dataset: Dataset, at: Client, boss: User, server: Server
) -> None:
    ask_here(dataset, boss)
    again = at.get(f"/d/{dataset.pk}/estimate/", {"method": "llm"}, headers=HTMX)
    assert "Nothing new is asked; 60 were answered and paid for before." in words(again)
    assert "Choose other examples" in words(at.get(f"/d/{dataset.pk}/"))


def test_a_method_that_asks_nobody_has_no_estimate(dataset: Dataset, at: Client, server: Server) -> None:
    answer = at.get(f"/d/{dataset.pk}/estimate/", {"method": "rules"}, headers=HTMX)
    assert answer.status_code == 422 and "This method costs nothing" in words(answer)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("key", "does not accept the key"),
        ("forbidden", "may not"),
    ],
)
def test_what_is_wrong_with_the_account_is_told_and_starts_nothing(
    dataset: Dataset, at: Client, server: Server, fault: str, sentence: str
) -> None:
    server.change(fault={fault: 1.0})
    asked = at.get(f"/d/{dataset.pk}/estimate/", {"method": "llm"}, headers=HTMX)
    begun = at.post(f"/d/{dataset.pk}/run/", {"method": "llm", "budget": "3", "batch": "1"})
    for answer in (asked, begun):
        assert answer.status_code == 422 and sentence in words(answer)
    page = begun.content.decode()
    assert 'value="llm" checked' in page and 'name="batch" value="1" checked' in page
    assert field(page, "budget") == "3" and not dataset.runs.exists()


def test_a_retired_model_is_told_and_starts_nothing(
    dataset: Dataset, at: Client, boss: User, server: Server
) -> None:
    from datasets import model_settings

    model_settings.save(boss, model="claude-haiku-9")
    asked = at.get(f"/d/{dataset.pk}/estimate/", {"method": "llm"}, headers=HTMX)
    assert asked.status_code == 422 and "claude-haiku-9" in words(asked)
    assert at.post(f"/d/{dataset.pk}/run/", {"method": "llm", "budget": "1"}).status_code == 422
    assert not dataset.runs.exists()


def test_the_ensemble_asks_only_where_the_box_is_checked(
    dataset: Dataset, at: Client, server: Server
) -> None:
    at.post(f"/d/{dataset.pk}/run/", {"method": "ensemble", "budget": "2"})
    silent = dataset.runs.get()
    assert silent.budget_nano is None
    tasks.cancel(silent, None)
    at.post(f"/d/{dataset.pk}/run/", {"method": "ensemble", "budget": "2,5", "ask": "1"})
    assert dataset.runs.get(number=2).budget_nano == 2_500_000_000


def test_a_start_without_a_cap_gets_the_one_that_the_estimate_offers(
    dataset: Dataset, at: Client, server: Server
) -> None:
    offered = field(
        at.get(f"/d/{dataset.pk}/estimate/", {"method": "llm"}, headers=HTMX).content.decode(), "budget"
    )
    assert at.post(f"/d/{dataset.pk}/run/", {"method": "llm", "budget": ""}).status_code == 302
    run = dataset.runs.get()
    assert run.budget_nano == money.to_nano(Decimal(offered)) and run.estimate["items"] == 60


@pytest.mark.parametrize("typed", ["0", "-1", "a lot", "nan", "inf", "1000000", "1.000,5"])
@pytest.mark.parametrize("method", ["llm", "ensemble"])
def test_a_cap_is_a_number_above_0(
    dataset: Dataset, at: Client, server: Server, method: str, typed: str
) -> None:
    answer = at.post(f"/d/{dataset.pk}/run/", {"method": method, "ask": "1", "budget": typed})
    assert answer.status_code == 422 and "The budget is a number of USD above 0" in words(answer)
    assert not dataset.runs.exists()


@pytest.fixture
def capped(db: None, tmp_path: Path, boss: User, server: Server) -> Run:
    """A run that paused because its cap allows no further request."""
    run = ask_here(stance(tmp_path, 200), boss, "0.002")
    assert run.state == "paused" and 0 < run.spent_nano <= 2_000_000
    return run


def test_a_run_at_its_cap_is_paused_with_its_reason_and_a_form(capped: Run, at: Client) -> None:
    answer = at.get(f"/d/{capped.dataset_id}/_progress", headers=HTMX)
    page, told = answer.content.decode(), words(answer)
    assert "Paused: The budget of 0.0020 USD is used up" in told and "three attempts" not in told
    assert "spent of at most $0.002" in told and "all answers that came are kept" in told
    assert "hx-get" not in page, "what is typed must not be overwritten"
    assert field(page, "budget") == "0.11"


@pytest.mark.parametrize(
    ("typed", "told"),
    [("0.0000001", "has spent"), ("much", "The budget is a number of USD"), ("", "The budget is a number")],
)
def test_a_cap_that_is_none_or_too_low_changes_nothing(
    capped: Run, at: Client, typed: str, told: str
) -> None:
    answer = at.post(f"/d/{capped.dataset_id}/run/1/cap", {"budget": typed}, follow=True)
    assert told in words(answer)
    capped.refresh_from_db()
    assert (capped.state, capped.budget_nano) == ("paused", 2_000_000)


def test_a_higher_cap_lets_the_run_go_on_to_its_end(capped: Run, at: Client, boss: User) -> None:
    answer = at.post(f"/d/{capped.dataset_id}/run/1/cap", {"budget": "0.5"}, follow=True)
    assert "Run 1 goes on, with a cap of $0.50." in words(answer)
    done = tasks.work_here(capped)
    assert (done.state, done.problem, done.budget_nano) == ("finished", None, 500_000_000)
    kept = AuditEvent.objects.get(action="budget changed")
    assert (kept.user, kept.detail) == (boss, {"run": 1, "usd": "0.5"})
    assert not tasks.raise_cap(done, 900_000_000, boss), "it has ended"
    assert "Run 1 is finished." in words(
        at.post(f"/d/{capped.dataset_id}/run/1/cap", {"budget": "9"}, follow=True)
    )


def test_a_run_without_credit_pauses_with_what_to_do(
    dataset: Dataset, at: Client, boss: User, server: Server
) -> None:
    server.change(fault={"credit": 1.0})  # which the API says only when it is asked to answer
    run = ask_here(dataset, boss, "1")
    page = words(at.get(f"/d/{dataset.pk}/_progress", headers=HTMX))
    assert run.state == "paused" and "Paused: The credit at Anthropic is used up: add credit" in page
    assert "Raise the cap" not in page
    server.change(fault={})
    at.post(f"/d/{dataset.pk}/run/1/resume")
    assert tasks.work_here(run).state == "finished"


def test_a_run_that_pays_nothing_gets_no_cap(dataset: Dataset, boss: User) -> None:
    run = learning.learn(dataset, "weak_model", boss, rings=False)
    assert not tasks.raise_cap(run, 1_000, boss)
    run.refresh_from_db()
    assert run.budget_nano is None and not AuditEvent.objects.filter(action="budget changed").exists()


def test_three_attempts_are_named_only_where_there_were_three(
    dataset: Dataset, at: Client, boss: User
) -> None:
    run = learning.learn(dataset, "weak_model", boss, rings=False)
    Run.objects.filter(pk=run.pk).update(paused_at=timezone.now(), problem="The key is gone.")
    address = f"/d/{dataset.pk}/_progress"
    assert "Paused: The key is gone." in words(at.get(address, headers=HTMX))
    Slice.objects.filter(run=run, number=1).update(attempts=slices.MOST_ATTEMPTS)
    assert "Paused after three attempts: The key is gone." in words(at.get(address, headers=HTMX))


def waiting(dataset: Dataset, boss: User) -> tuple[Run, str]:
    """A run of the model that nobody has begun, and the way to the model."""
    run = learning.learn(dataset, "llm", boss, learning.Spend(Decimal(1)), rings=False)
    return run, questions.of_version(run.version)["llm"].gate


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("busy", r"Waiting for the rate limit, \d\d? s\. Nothing is lost"),
        ("overloaded", r"The model does not answer since 14:02 UTC ; trying again in \d\d? s\. It is busy\."),
    ],
)
def test_a_closed_gate_is_told_with_its_seconds(
    dataset: Dataset, at: Client, boss: User, server: Server, kind: str, told: str
) -> None:
    run, gate = waiting(dataset, boss)
    now = timezone.now()
    since = now.replace(hour=14, minute=2)
    Gate.objects.create(
        model=gate, failures=5, reason="It is busy.", failing_since=since,
        closed_until=now + dt.timedelta(seconds=45),
    )  # fmt: skip
    Call.objects.create(
        run=run, version_id=questions.of_version(run.version)["llm"].version_id, gate=gate, slice_number=1,
        epoch=1, items=[], reserved_nano=0, reserved_at=now, settled_at=now, cost_nano=0, problem=kind,
    )  # fmt: skip
    page = words(at.get(f"/d/{dataset.pk}/_progress", headers=HTMX))
    assert re.search(told, page) and "No labeling worker" not in page
    Gate.objects.update(closed_until=now - dt.timedelta(seconds=1))
    assert not re.search(
        "rate limit|does not answer", words(at.get(f"/d/{dataset.pk}/_progress", headers=HTMX))
    )


def test_batches_are_told_with_their_latest_end(
    dataset: Dataset, at: Client, boss: User, server: Server
) -> None:
    run, _ = waiting(dataset, boss)
    since = dt.datetime(2026, 11, 23, 14, 2, tzinfo=dt.UTC)
    for token in "abc":
        MessageBatch.objects.create(
            run=run, token=token, wave=1, requests=3, api_id=token, submitted_at=since,
            expires_at=since + dt.timedelta(days=1),
        )  # fmt: skip
    MessageBatch.objects.create(run=run, token="old", wave=1, requests=3, collected_at=since)
    page = words(at.get(f"/d/{dataset.pk}/_progress", headers=HTMX))
    assert "Waiting for 3 batches handed in at 14:02 UTC : mostly within an hour" in page
    assert "at the latest 24 Nov 14:02 UTC" in page and "No labeling worker" not in page


def test_the_table_of_runs_has_a_cost_only_where_something_cost(
    dataset: Dataset, at: Client, boss: User, server: Server
) -> None:
    tasks.work_here(learning.learn(dataset, "weak_model", boss, rings=False))
    samples.discard(dataset, boss)
    assert ">Cost<" not in at.get(f"/d/{dataset.pk}/").content.decode()
    run = ask_here(dataset, boss)
    page = at.get(f"/d/{dataset.pk}/").content.decode()
    assert ">Cost<" in page and f'href="/d/{dataset.pk}/run/2/"' in page
    assert f"${float(money.to_usd(run.spent_nano)):.2g}" in page and '<td class="num">–</td>' in page
