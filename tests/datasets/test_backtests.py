"""A labeled file is replayed in the background, once, whatever happens to workers; its result is its user's alone."""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from datasets import backtests, slices, tasks
from datasets.models import AuditEvent, Backtest, Dataset, Membership

pytestmark = pytest.mark.django_db
real_transactions = pytest.mark.django_db(transaction=True)  # where jobs are enqueued, or a thread beats
DATA = Path(__file__).resolve().parents[1] / "data"
ROWS = 300  # of the file that is replayed: less than a second
HTMX = {"HX-Request": "true"}


def rows_of(name: str, n: int = ROWS) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(itertools.islice(csv.DictReader(file), n))


def as_csv(rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


SPAM = as_csv(rows_of("sms_spam.csv"))


def send(at: Client, content: str = SPAM, name: str = "spam.csv") -> Backtest:
    answer = at.post(reverse("datasets:backtests"), {"file": SimpleUploadedFile(name, content.encode())})
    assert answer.status_code == 302, answer.content.decode()
    made = Backtest.objects.order_by("-created_at")[0]
    assert answer["Location"] == page_of(made)
    return made


def page_of(made: Backtest) -> str:
    return reverse("datasets:backtest", args=[made.pk])


def fields(page: Any, **changes: str) -> dict[str, str]:
    """What a browser would send from the columns page."""
    form = page.context["form"]
    sent = {use.html_name: use.value() or "" for _, use in page.context["heads"]}
    sent |= {name: form[name].value() for name in ("target", "floor", "repetitions")}
    return sent | changes


def start(at: Client, made: Backtest, **changes: str) -> Any:
    return at.post(page_of(made), fields(at.get(page_of(made)), **changes))


def asked_for(at: Client, **changes: str) -> Backtest:
    """A backtest that waits for a worker."""
    made = send(at)
    assert start(at, made, **changes).status_code == 302
    made.refresh_from_db()
    assert made.state == "waiting" and made.path.exists()
    return made


def abandon(made: Backtest) -> None:
    """Let the last beat be so long ago that the attempt counts as dead."""
    long_ago = slices.now() - tasks.READER_DEAD_AFTER - dt.timedelta(seconds=1)
    Backtest.objects.filter(pk=made.pk).update(beat_at=long_ago)


# The way through


@real_transactions
def test_a_labeled_file_is_replayed_and_told_as_the_command_tells_it(
    at: Client, boss: User, tmp_path: Path
) -> None:
    made = send(at)
    page = at.get(page_of(made))
    roles = {name: use.value() for name, use in page.context["heads"]}
    assert roles == {"item_id": "", "text": "text", "gold": "gold"}
    assert page.context["form"]["target"].value() == "95" and page.context["form"]["floor"].value() == "90"
    assert start(at, made, target="90", floor="85,5")["Location"] == page_of(made)
    backtests.work(str(made.pk))
    made.refresh_from_db()
    assert made.state == "finished" and made.result is not None and (made.done, made.total) == (1, 1)
    assert not made.path.exists()
    path, out = tmp_path / "spam.csv", io.StringIO()
    path.write_text(SPAM, encoding="utf-8")
    words = ("--text", "text", "--gold", "gold", "--target", "0.9", "--floor", "0.855", "--json")
    call_command("backtest", path, *words, stdout=out)
    assert {name: made.result[name] for name in ("summary", "table", "repetitions")} == json.loads(
        out.getvalue()
    )
    assert made.result["items"] == 296 and made.result["labels"] == 2
    text = at.get(page_of(made)).content.decode()
    told = backtests.told(made)
    assert told.sentence in text and "of 296 labels are right" in text
    for head in ("Confidence threshold", "Auto-accept rate", "Auto-accepted accuracy", "Manual work"):
        assert head in text
    assert all(value in text for _, value in told.facts) and "What it does not say" in text
    whole = at.get(reverse("datasets:backtest_json", args=[made.pk]))
    assert "attachment" in whole["Content-Disposition"] and whole.json()["summary"] == made.result["summary"]
    listed = at.get(reverse("datasets:backtests")).content.decode()
    assert "spam.csv" in listed and told.sentence in listed
    assert AuditEvent.objects.get(action="backtest started").user == boss


def test_given_labels_of_a_machine_are_used_beside_the_texts(at: Client) -> None:
    made = send(at, as_csv(rows_of("stance_gpt4o.csv", 60)))
    assert start(at, made).status_code == 302
    made.refresh_from_db()
    assert (made.options["predicted"], made.options["confidence"]) == ("predicted_label", "confidence")
    known = backtests.read(made.path, made.options)
    assert known.votes is not None and known.learns and len(known.gold) == 55
    votes = send(at, as_csv(rows_of("media_bias_llm_votes.csv", 60)))
    columns = list(rows_of("media_bias_llm_votes.csv", 1)[0])
    told = {f"use-{n}": "votes" for n, name in enumerate(columns) if name.startswith("pred_")}
    told |= {f"use-{columns.index(name)}": "" for name in ("predicted_label", "confidence")}
    assert start(at, votes, **told).status_code == 302
    votes.refresh_from_db()
    known = backtests.read(votes.path, votes.options)
    assert known.votes is not None and known.votes.classes.shape[1] == len(told) - 2 == 32


@real_transactions
def test_the_given_labels_of_a_dataset_can_be_replayed(at: Client) -> None:
    at.post(reverse("datasets:sample"))
    dataset = Dataset.objects.get()
    item = dataset.items.exclude(given_label=None).order_by("position")[0]
    item.row = json.dumps(json.loads(item.row), indent=1)  # as a JSON file may have it
    item.save()
    assert dataset.name in at.get(reverse("datasets:backtests")).content.decode()
    answer = at.post(reverse("datasets:backtests"), {"dataset": dataset.pk})
    made = Backtest.objects.get()
    assert answer["Location"] == page_of(made)
    roles = {name: use.value() for name, use in at.get(page_of(made)).context["heads"] if use.value()}
    assert roles == {dataset.mapping["text"][0]: "text", dataset.mapping["label"]: "gold"}
    assert start(at, made).status_code == 302
    made.refresh_from_db()
    known = backtests.read(made.path, made.options)
    assert (len(known.gold), known.count) == (150, 10)


def test_a_dataset_without_given_labels_is_refused_with_a_sentence(at: Client) -> None:
    empty = Dataset.objects.create(name="Empty")
    answer = at.post(reverse("datasets:backtests"), {"dataset": empty.pk})
    assert answer.status_code == 422 and "no item with a known label" in answer.content.decode()
    assert not Backtest.objects.exists()


def test_another_delimiter_is_read_again_and_kept(at: Client) -> None:
    made = send(at, SPAM.replace(",", ";").replace("item_id;text;gold", "item_id|text|gold"))
    page = at.get(page_of(made), {"delimiter": "|", "header": "yes"})
    assert page.context["layout"].delimiter == "|" and len(page.context["heads"]) == 3
    made.refresh_from_db()
    assert made.options["layout"]["delimiter"] != "|"  # looking changes nothing


# What is wrong with a file


def table(rows: int, text: str = "text {}", gold: str = "{}", extra: str = "") -> str:
    lines = [f"{text.format(n)},{gold.format('ab'[n % 2])}{extra}" for n in range(rows)]
    return "\n".join(["text,gold" + (",sure" if extra else ""), *lines]) + "\n"


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (table(30, gold=""), {"use-1": "gold"}, "“gold” is empty in every row"),
        (table(30, text="the same"), {}, "only 1 different texts with a known label"),
        (table(19), {}, "only 19 different texts"),
        (table(30) + "one,two,three\n", {}, "Row 31 (line 32)"),
        (table(30), {"use-0": ""}, "Choose the column that holds the text"),
        (table(30), {"use-1": ""}, "Choose the column that holds the known labels"),
        (table(30), {"use-0": "gold", "use-1": "gold"}, "Two columns are marked as known label"),
        (table(30, extra=",0.5"), {"use-2": "predicted"}, "belong together"),
        (table(30, extra=",0.5"), {"use-2": "what?"}, "something that does not exist"),
        (table(30), {"target": "100"}, "The target is a percentage"),
        (table(30), {"target": ""}, "The target is a percentage"),
        (table(30), {"floor": "nan"}, "The floor is a percentage"),
        (table(30), {"repetitions": "6"}, "from 1 to 5 replays"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_starts(
    at: Client, content: str, changes: dict[str, str], words: str
) -> None:
    made = send(at, content)
    roles = {"use-0": "text", "use-1": "gold"}
    answer = start(at, made, **roles | changes)
    assert answer.status_code == 422 and words in answer.content.decode()
    made.refresh_from_db()
    assert made.state == "new" and made.path.exists()


def test_a_file_with_a_row_too_many_is_refused(at: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backtests.MOST_ROWS == 50_000
    monkeypatch.setattr(backtests, "MOST_ROWS", 30)
    for rows, status in ((30, 302), (31, 422)):
        answer = start(at, send(at, table(rows)))
        assert answer.status_code == status
    assert "more than 30 rows" in answer.content.decode()


def test_a_confidence_that_is_no_number_is_named_with_its_row(at: Client) -> None:
    rows = [row | {"said": row["gold"], "sure": "0.5"} for row in rows_of("sms_spam.csv", 30)]
    rows[11]["sure"] = "high"
    made = send(at, as_csv(rows))
    answer = start(at, made, **{"use-3": "predicted", "use-4": "confidence"})
    assert answer.status_code == 422 and "Row 12 has the confidence “high”" in answer.content.decode()


@pytest.mark.parametrize("content", ["", "text\n", "\x89PNG\r\n\x1a\n\0\0\0"])
def test_a_file_that_cannot_be_read_leaves_nothing(at: Client, content: str) -> None:
    answer = at.post(
        reverse("datasets:backtests"), {"file": SimpleUploadedFile("a.csv", content.encode("latin-1"))}
    )
    assert answer.status_code == 422 and 'id="file-error"' in answer.content.decode()
    assert not Backtest.objects.exists()


def test_what_goes_wrong_in_the_worker_is_kept_as_a_sentence(at: Client) -> None:
    made = asked_for(at)
    made.path.write_text("text,gold\n")
    backtests.work(str(made.pk))
    made.refresh_from_db()
    assert made.state == "failed" and made.problem == "The file has no rows." and not made.path.exists()
    gone = asked_for(at)
    gone.path.unlink()
    backtests.work(str(gone.pk))
    text = at.get(page_of(gone)).content.decode()
    assert "The uploaded file is gone. Upload it again." in text and "This replay failed" in text


def test_a_file_that_is_gone_before_the_start_is_said(at: Client) -> None:
    made = send(at)
    made.path.unlink()
    for answer in (at.get(page_of(made)), at.post(page_of(made))):
        assert answer.status_code == 422 and backtests.GONE in answer.content.decode()


# Workers that vanish, come twice or are told to stop


@real_transactions
def test_it_is_asked_for_once_and_again_when_the_queue_forgot_it(server: Any, at: Client) -> None:
    made = asked_for(at)
    name = f"backtest-{made.pk.hex}"
    assert tasks.is_enqueued(name) and tasks.sweep_files() == 0
    redis.Redis.from_url(settings.REDIS_URL).flushall()
    assert not tasks.is_enqueued(name)
    assert tasks.sweep_files() == 1 and tasks.is_enqueued(name)


def test_it_is_never_replayed_twice_at_once(at: Client) -> None:
    made, other = asked_for(at), asked_for(at)
    first = backtests._claim(made.pk)
    assert first is not None and backtests._claim(made.pk) is None
    assert backtests._claim(other.pk) is None  # one worker stays free for labeling
    text = at.get(page_of(other)).content.decode()
    assert "waiting until another replay has ended" in text
    backtests._end(first, result=None, problem="x")
    assert backtests._claim(other.pk) is not None and backtests._claim(made.pk) is None


def test_a_second_click_starts_nothing_anew(at: Client) -> None:
    made = send(at)
    sent = fields(at.get(page_of(made)))
    for _ in range(2):
        assert at.post(page_of(made), sent)["Location" if _ == 0 else "Content-Type"]
    assert AuditEvent.objects.filter(action="backtest started").count() == 1


def test_a_dead_attempt_is_followed_by_another_and_writes_nothing_when_it_wakes_up(at: Client) -> None:
    made = asked_for(at)
    frozen = backtests._claim(made.pk)
    assert frozen is not None
    abandon(made)
    assert tasks.sweep_files() in (0, 1)  # 0 where a queue of another test still knows it
    second = backtests._claim(made.pk)
    assert second is not None and second.attempts == 2
    with pytest.raises(backtests.NotMine):
        backtests._replay(frozen)
    backtests._end(frozen, problem="of the frozen one")
    made.refresh_from_db()
    assert made.state == "replaying" and made.problem is None and made.path.exists()


def test_after_three_attempts_it_ends_with_a_sentence(at: Client) -> None:
    made = asked_for(at)
    for number in (1, 2, 3):
        claimed = backtests._claim(made.pk)
        assert claimed is not None and claimed.attempts == number
        abandon(made)
    assert "Attempt 3 of 3" in at.get(page_of(made)).content.decode()
    backtests.work(str(made.pk))
    made.refresh_from_db()
    assert made.problem == backtests.TOO_OFTEN and made.state == "failed" and not made.path.exists()
    backtests.work(str(made.pk))
    made.refresh_from_db()
    assert made.attempts == 4


@real_transactions
def test_a_worker_that_is_told_to_stop_gives_the_attempt_back(
    at: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asked_for(at, repetitions="2")
    monkeypatch.setattr(backtests, "shall_finish", lambda: True)
    backtests.work(str(made.pk))
    made.refresh_from_db()
    assert (made.state, made.attempts, made.beat_at, made.result) == ("waiting", 0, None, None)
    assert made.path.exists()


def test_one_that_is_deleted_meanwhile_is_gone(at: Client) -> None:
    made = asked_for(at)
    claimed = backtests._claim(made.pk)
    assert claimed is not None
    path = made.path
    answer = at.post(reverse("datasets:backtest_delete", args=[made.pk]), follow=True)
    assert "is deleted" in answer.content.decode() and not path.exists()
    backtests._end(claimed, result={})
    backtests.work(str(made.pk))
    assert not Backtest.objects.exists()


def test_progress_asks_again_until_the_replay_is_over(at: Client) -> None:
    made = asked_for(at, repetitions="2")
    address = reverse("datasets:backtest_progress", args=[made.pk])
    waiting = at.get(address, headers=HTMX).content.decode()
    assert 'hx-trigger="every 2s"' in waiting and "waiting for a worker" in waiting
    claimed = backtests._claim(made.pk)
    assert claimed is not None
    assert "0 of 2" in at.get(address, headers=HTMX).content.decode()
    Backtest.objects.filter(pk=made.pk).update(done=1)
    assert "ready about" in at.get(address, headers=HTMX).content.decode()
    backtests._end(claimed, problem="It broke.")
    after = at.get(address, headers=HTMX)
    assert "hx-trigger" not in after.content.decode() and after["HX-Refresh"] == "true"
    assert at.get(address).status_code == 302  # as a page it leads to the whole one


# Who may


def test_a_backtest_is_its_users_alone(at: Client, client: Client) -> None:
    made = asked_for(at)
    other = User.objects.create_user("other")
    Membership.objects.create(user=other, role="owner")
    client.force_login(other)
    for name in ("backtest", "backtest_progress", "backtest_delete", "backtest_json"):
        address = reverse(f"datasets:{name}", args=[made.pk])
        for answer in (client.get(address), client.post(address)):
            assert answer.status_code in (404, 405)
    assert "spam.csv" not in client.get(reverse("datasets:backtests")).content.decode()
    assert Backtest.objects.filter(pk=made.pk).exists()


def test_who_may_not_make_datasets_makes_no_backtests(client: Client) -> None:
    user = User.objects.create_user("reader")
    Membership.objects.create(user=user, role="reviewer")
    client.force_login(user)
    assert client.get(reverse("datasets:backtests")).status_code == 403
    assert client.post(reverse("datasets:backtests")).status_code == 403


@real_transactions
def test_given_labels_are_taken_only_by_who_manages_their_dataset(at: Client, boss: User) -> None:
    at.post(reverse("datasets:sample"))
    dataset = Dataset.objects.get()
    Membership.objects.filter(user=boss, dataset=dataset).update(role="viewer")
    assert at.post(reverse("datasets:backtests"), {"dataset": dataset.pk}).status_code == 403
    for unknown in (dataset.pk + 1, "x", "٣", "9" * 30):
        assert at.post(reverse("datasets:backtests"), {"dataset": unknown}).status_code == 404
    assert not Backtest.objects.exists()
