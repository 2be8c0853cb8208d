"""Where the language model is asked, with which key: stored safely, checked before it is stored, said on one page."""

from __future__ import annotations

import html
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from datasets import model_forms, model_settings
from datasets.models import AuditEvent, Call, Dataset, LabelerVersion, Membership, ModelSettings, Run
from labelhub.autolabel.labelers.llm import CallFailed
from labelhub.fakeclaude.server import Server
from tests.processes import bytes_on_disk

pytestmark = pytest.mark.django_db
KEY = "sk-ant-api03-Zm9vYmFyYmF6cXV4-0123456789"
OTHER = "sk-ant-api03-YW5vdGhlciBvbmU-9876543210"
PAGE, FORGET = "/settings/model/", "/settings/model/forget"
GOOD = {"model": "claude-haiku-5-5", "second_model": "", "asks": "2", "at_once": "8", "per_minute": ""}


@pytest.fixture
def unpaid(settings: Any) -> Iterator[str]:
    """An address that answers nothing to whoever has no credit; the stand-in still lists its models."""

    class Unpaid(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(402)

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    model_forms._offers.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Unpaid) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        settings.ANTHROPIC_BASE_URL = f"http://127.0.0.1:{server.server_port}"
        yield settings.ANTHROPIC_BASE_URL
        server.shutdown()


def shown(answer: Any) -> str:
    """What a person reads, in one line."""
    page = re.sub(r"<(script|style).*?</\1>", "", answer.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def send(at: Client, **changes: str) -> Any:
    return at.post(PAGE, GOOD | changes, follow=True)


def stored_bytes() -> list[bytes]:
    return [bytes(row.key) for row in ModelSettings.objects.exclude(key=None) if row.key is not None]


class TestStoring:
    def test_without_a_row_the_environments_model_counts(self, settings: Any) -> None:
        settings.LABELHUB_MODEL = "claude-sonnet-5-5"
        now = model_settings.current()
        assert now.pk is None and now.per_minute is None
        assert (now.model, now.asks, now.at_once) == ("claude-sonnet-5-5", 1, 8)

    def test_the_newest_row_counts_and_the_older_ones_stay(self, boss: User) -> None:
        model_settings.save(boss, model="claude-haiku-5-5")
        model_settings.save(boss, model="claude-opus-5-5", asks=3, per_minute=90)
        rows = ModelSettings.objects.order_by("pk")
        assert [row.model for row in rows] == ["claude-haiku-5-5", "claude-opus-5-5"]
        now = model_settings.current()
        assert (now.model, now.asks, now.per_minute, now.by) == ("claude-opus-5-5", 3, 90, boss)

    def test_a_key_comes_back_and_is_not_stored_as_it_is(self, boss: User) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        assert model_settings.key() == KEY
        (stored,) = stored_bytes()
        assert KEY.encode() not in stored and KEY[7:25].encode() not in stored

    def test_later_settings_keep_the_key_its_time_and_its_person(self, boss: User) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        since = model_settings.key_state().since
        model_settings.save(User.objects.create_user("ola"), model="claude-opus-5-5")
        state = model_settings.key_state()
        assert model_settings.key() == KEY
        assert (state.source, state.since, state.by) == ("stored", since, boss)

    def test_a_replaced_key_is_erased(self, boss: User) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        before = stored_bytes()
        model_settings.save(boss, model="claude-haiku-5-5", key=OTHER)
        assert model_settings.key() == OTHER
        assert len(stored_bytes()) == 1 and stored_bytes() != before

    def test_a_forgotten_key_is_in_no_row_and_the_settings_stay(self, boss: User) -> None:
        model_settings.save(boss, model="claude-opus-5-5", asks=4, key=KEY)
        model_settings.save(boss, model="claude-opus-5-5", asks=5, at_once=3)
        model_settings.forget(boss)
        assert stored_bytes() == [] and model_settings.key() == ""
        now = model_settings.current()
        assert (now.model, now.asks, now.at_once) == ("claude-opus-5-5", 5, 3)

    @pytest.mark.django_db(transaction=True)
    def test_a_forgotten_key_leaves_the_file_of_the_database(self, boss: User) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("a file of its own is SQLite's")
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        (stored,) = stored_bytes()
        assert stored in on_disk()
        model_settings.forget(boss)
        assert stored not in on_disk()

    def test_the_environments_key_wins(self, boss: User, settings: Any) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        settings.ANTHROPIC_API_KEY = OTHER
        assert model_settings.key() == OTHER and model_settings.key_state().source == "environment"

    def test_with_another_secret_key_there_is_no_key(self, boss: User, settings: Any) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        settings.SECRET_KEY = "x" * 25 + "y" * 25
        assert model_settings.key() == "" and model_settings.key_state().source == "unreadable"
        assert "cannot be read" in model_settings.missing()

    def test_the_audit_trail_says_who_and_what_but_no_key(self, boss: User) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        model_settings.save(boss, model="claude-opus-5-5")
        model_settings.forget(boss)
        events = list(AuditEvent.objects.filter(action="model settings changed").order_by("pk"))
        assert [event.detail["key"] for event in events] == ["typed in", "kept", "forgotten"]
        assert {event.user for event in events} == {boss}
        assert not any(KEY in str(event.detail) for event in events)


def on_disk() -> bytes:
    """The database's file and its log."""
    return bytes_on_disk(str(connection.settings_dict["NAME"]))


class TestAsking:
    def test_without_a_key_there_is_no_client_but_a_sentence(self) -> None:
        with pytest.raises(CallFailed, match="an owner can type one in") as caught:
            model_settings.client()
        assert caught.value.kind == "key" and caught.value.fatal
        assert str(caught.value) == model_settings.missing()

    def test_one_client_serves_a_process_until_the_key_changes(self, boss: User, address: Server) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        first = model_settings.client()
        assert model_settings.client() is first and model_settings.missing() == ""
        model_settings.save(boss, model="claude-haiku-5-5", key=OTHER)
        assert model_settings.client() is not first

    def test_a_forked_process_gets_a_client_of_its_own(self, boss: User, address: Server) -> None:
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        before = model_settings.client()
        before.models()  # it has a socket now
        plain = model_settings.key()
        child = os.fork()
        if child == 0:  # without the database: its connection is the parent's
            try:
                ours = model_settings._client(plain, 5.0)
                os._exit(0 if ours is not before and len(ours.models()) > 5 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert model_settings.client() is before and before.models()

    @pytest.mark.parametrize(
        ("base_url", "where", "is_local"),
        [
            ("", "api.anthropic.com", False),
            ("https://gateway.example.org/claude", "gateway.example.org", False),
            ("https://gateway.example.org:8443", "gateway.example.org:8443", False),
            ("https://someone:secret@gateway.example.org", "gateway.example.org", False),
            ("http://127.0.0.1:8010", "127.0.0.1:8010", True),
            ("http://localhost:8010", "localhost:8010", True),
            ("http://[::1]:8010", "[::1]:8010", True),
            ("https://10.0.0.7", "10.0.0.7", False),
        ],
    )
    def test_it_says_where_texts_go(self, settings: Any, base_url: str, where: str, is_local: bool) -> None:
        settings.ANTHROPIC_BASE_URL = base_url
        assert (model_settings.where(), model_settings.is_local()) == (where, is_local)


class TestPage:
    def test_only_owners_of_everything_see_it_and_the_way_to_it(self, at: Client, boss: User) -> None:
        assert f'href="{PAGE}"' in at.get("/account/").content.decode()
        Membership.objects.filter(user=boss).update(role="manager")
        assert f'href="{PAGE}"' not in at.get("/account/").content.decode()
        assert at.get(PAGE).status_code == 403
        assert at.post(PAGE, GOOD).status_code == 403 and at.post(FORGET).status_code == 403
        assert not ModelSettings.objects.exists()

    def test_a_key_and_a_model_are_checked_and_stored(self, at: Client, address: Server) -> None:
        page = shown(send(at, key=KEY, second_model="claude-sonnet-5-5", per_minute="120"))
        assert "The settings are saved." in page and "could not be checked" not in page
        now = model_settings.current()
        assert (now.model, now.second_model) == ("claude-haiku-5-5", "claude-sonnet-5-5")
        assert (now.asks, now.at_once, now.per_minute) == (2, 8, 120)
        assert model_settings.key() == KEY

    def test_the_key_field_is_never_filled_in(self, at: Client, address: Server) -> None:
        stored = send(at, key=KEY).content.decode()
        refused = at.post(PAGE, GOOD | {"key": OTHER, "asks": "9"}).content.decode()
        for page in (stored, refused):
            assert KEY not in page and OTHER not in page
            (field,) = re.findall(r"<input[^>]*name=\"key\"[^>]*>", page)
            assert 'type="password"' in field and "value" not in field and 'autocomplete="off"' in field

    def test_it_says_since_when_and_by_whom_there_is_a_key(self, at: Client, address: Server) -> None:
        page = shown(send(at, key=KEY))
        assert re.search(r"A key is stored, typed in by boss on \d+ \w+ \d{4} \d\d:\d\d UTC", page)

    def test_an_empty_field_keeps_the_key(self, at: Client, address: Server) -> None:
        send(at, key=KEY)
        send(at, key="", model="claude-opus-5-5")
        assert model_settings.key() == KEY and model_settings.current().model == "claude-opus-5-5"

    def test_the_key_can_be_forgotten(self, at: Client, address: Server) -> None:
        assert "Forget the key" in shown(send(at, key=KEY))
        page = shown(at.post(FORGET, follow=True))
        assert "The stored key is erased." in page and "There is no key yet" in page
        assert 'action="/settings/model/forget"' not in at.get(PAGE).content.decode()
        assert stored_bytes() == []

    def test_the_models_are_offered_with_where_they_are_in_their_life(
        self, at: Client, address: Server
    ) -> None:
        page = html.unescape(send(at, key=KEY).content.decode())
        offers = dict(re.findall(r'<option value="([^"]+)">([^<]+)</option>', page))
        assert offers["claude-haiku-5-5"].endswith(", active")
        assert offers["claude-sonnet-4-5-20250929"].endswith(", retires 30 Nov 2026")
        assert "claude-3-5-sonnet-20241022" not in offers  # retired

    def test_it_says_what_leaves_what_it_costs_and_where_it_goes(self, at: Client, address: Server) -> None:
        page = shown(send(at, key=KEY, second_model="claude-opus-5-5"))
        assert "the text columns that were chosen" in page and "Nothing else" in page
        assert "$0.10" in page and "$0.50" in page and "$4.00" in page and "Prices as of 20 Nov 2026" in page
        assert f"Texts are sent to this computer, {model_settings.where()}, not to Anthropic." in page

    def test_it_says_so_when_answers_were_played_back(self, at: Client, boss: User, address: Server) -> None:
        assert "latest answers came from the local stand-in" not in shown(at.get(PAGE))
        dataset = Dataset.objects.create(name="A", columns=["text"], created_by=boss)
        version = LabelerVersion.objects.create(dataset=dataset, method="llm")
        run = Run.objects.create(dataset=dataset, number=1, version=version, seed="1" * 32)
        Call.objects.create(
            run=run, version=version, slice_number=0, epoch=0, items=[], fake=True, reserved_nano=1,
            reserved_at=timezone.now(), settled_at=timezone.now(), cost_nano=0,
        )  # fmt: skip
        assert "latest answers came from the local stand-in" in shown(at.get(PAGE))

    def test_the_environments_key_has_no_field(self, at: Client, address: Server, settings: Any) -> None:
        settings.ANTHROPIC_API_KEY = OTHER
        page = at.get(PAGE)
        assert 'name="key"' not in page.content.decode() and OTHER not in page.content.decode()
        assert "The key comes from the environment" in shown(page)
        send(at, key=KEY)  # a page that was opened before
        assert stored_bytes() == []
        assert model_settings.current().asks == 2

    def test_a_key_that_cannot_be_read_is_said_and_can_be_typed_again(
        self, at: Client, boss: User, address: Server, settings: Any
    ) -> None:
        send(at, key=KEY)
        settings.SECRET_KEY = "x" * 25 + "y" * 25
        at.force_login(boss)  # sessions are signed with it too
        assert "The stored key cannot be read," in shown(at.get(PAGE))
        send(at, key=OTHER)
        assert model_settings.key() == OTHER and len(stored_bytes()) == 1

    def test_without_a_key_a_model_can_be_chosen_unchecked(self, at: Client) -> None:
        page = shown(send(at))
        assert "The settings are saved." in page and "could not be checked, since there is no key yet" in page


class TestRefusals:
    """Each a sentence at its field, and nothing is stored."""

    def refused(self, at: Client, field: str, sentence: str, **changes: str) -> None:
        rows = ModelSettings.objects.count()
        answer = at.post(PAGE, GOOD | changes)
        page = answer.content.decode()
        assert answer.status_code == 422
        told = re.findall(
            rf'<p class="error" id="id_{field}_error"[^>]*>.*?<span>(.*?)</span>', page, re.DOTALL
        )
        assert [html.unescape(words) for words in told] == [sentence]
        assert f'aria-describedby="id_{field}' in page and 'aria-invalid="true"' in page
        assert ModelSettings.objects.count() == rows

    def test_a_wrong_key(self, at: Client, address: Server) -> None:
        address.change(fault={"key": 1.0})
        told = "This key is not accepted: copy it from the Anthropic Console once more."
        self.refused(at, "key", told, key=KEY)

    def test_a_key_without_credit(self, at: Client, unpaid: str) -> None:
        told = "This key has no credit left: add credit in the Anthropic Console, then save again."
        self.refused(at, "key", told, key=KEY)

    def test_the_stored_key_when_it_is_not_accepted_any_more(self, at: Client, address: Server) -> None:
        send(at, key=KEY)
        address.change(fault={"key": 1.0})
        told = "The present key is not accepted: copy it from the Anthropic Console once more."
        self.refused(at, "key", told)

    def test_the_environments_key_when_it_is_not_accepted(
        self, at: Client, address: Server, settings: Any
    ) -> None:
        settings.ANTHROPIC_API_KEY = OTHER
        address.change(fault={"key": 1.0})
        answer = at.post(PAGE, GOOD)
        assert answer.status_code == 422 and "The present key is not accepted" in shown(answer)
        assert not ModelSettings.objects.exists()

    def test_a_retired_model(self, at: Client, address: Server) -> None:
        name = "claude-3-5-sonnet-20241022"
        self.refused(
            at, "model", f"{name} was retired on 28 October 2025; choose another model.", key=KEY, model=name
        )

    @pytest.mark.parametrize("field", ["model", "second_model"])
    def test_an_unknown_model(self, at: Client, address: Server, field: str) -> None:
        told = "Anthropic knows no model claude-haiku-9; choose another, such as claude-haiku-5-5."
        self.refused(at, field, told, **{"key": KEY, field: "claude-haiku-9"})

    def test_a_model_without_a_price(self, at: Client, address: Server) -> None:
        told = (
            "LabelHub has no price for claude-mythos-5-2, so it could keep no budget: choose another model."
        )
        self.refused(at, "model", told, key=KEY, model="claude-mythos-5-2")

    @pytest.mark.parametrize(
        ("field", "value", "sentence"),
        [
            ("asks", "6", "The number of wordings is a whole number from 1 to 5."),
            ("asks", "", "The number of wordings is a whole number from 1 to 5."),
            ("at_once", "0", "Calls at the same time are a whole number from 1 to 64."),
            ("per_minute", "many", "Calls a minute are a whole number from 1 to 100,000, or empty."),
            ("model", "", "Name the model, for example claude-haiku-5-5."),
            ("model", "haiku five", "The name of a model looks like claude-haiku-5-5, without spaces."),
            ("second_model", "claude-haiku-5-5", "The second model is the same as the first: choose another, or none."),
            ("key", "two words", "This is not a key: it holds characters that no key has, or is too short."),
        ],
    )  # fmt: skip
    def test_a_value_that_makes_no_sense(self, at: Client, field: str, value: str, sentence: str) -> None:
        self.refused(at, field, sentence, **{field: value})


class TestWithoutAnAnswer:
    def test_what_cannot_be_checked_is_saved_with_a_warning(self, at: Client, address: Server) -> None:
        address.stop()
        page, where = shown(send(at, key=KEY)), model_settings.where()
        assert "The settings are saved." in page and model_settings.key() == KEY
        assert f"The key and the models could not be checked: {where} could not be reached." in page

    @pytest.mark.parametrize("fault", ["overloaded", "server", "rate_limit", "drop"])
    def test_an_address_in_trouble_stops_nobody(self, at: Client, address: Server, fault: str) -> None:
        address.change(fault={fault: 1.0})
        assert "could not be checked" in shown(send(at, key=KEY))
        assert model_settings.key() == KEY

    def test_a_model_without_a_price_is_refused_all_the_same(self, at: Client, address: Server) -> None:
        address.stop()
        assert at.post(PAGE, GOOD | {"key": KEY, "model": "claude-mythos-5-2"}).status_code == 422

    def test_a_model_near_its_end_is_saved_with_a_warning(self, at: Client, address: Server) -> None:
        # It has no price in our table, so the check itself is asked.
        found = model_forms.check("claude-sonnet-4-5", typed=KEY)
        assert found.warnings == ("claude-sonnet-4-5-20250929 will be retired on 30 November 2026.",)

    def test_the_page_opens_and_remembers_the_trouble_for_a_moment(
        self, at: Client, boss: User, address: Server
    ) -> None:
        address.change(fault={"overloaded": 1.0})
        model_settings.save(boss, model="claude-haiku-5-5", key=KEY)
        assert "is overloaded at the moment" in shown(at.get(PAGE))
        address.change(fault={})
        assert "is overloaded at the moment" in shown(at.get(PAGE))
