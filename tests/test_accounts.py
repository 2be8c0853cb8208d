"""Getting in: the first account, one-time links, passwords, and everything that must keep strangers out."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import threading
from typing import Any

import pytest
from django.contrib.auth.hashers import get_hasher
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from datasets.models import AuditEvent, Dataset, Membership
from labelhub import accounts

pytestmark = pytest.mark.django_db
PASSWORD = "a quiet harbour at noon"


@pytest.fixture
def ada() -> User:
    """The owner, with a password."""
    user = accounts.make_user("ada", "owner")
    user.set_password(PASSWORD)
    user.save()
    return user


def try_password(client: Client, name: str, password: str, **extra: Any) -> Any:
    return client.post("/signin/", {"name": name, "password": password, **extra})


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


def path_of(link: str) -> str:
    return link.removeprefix("http://127.0.0.1:8000")


def run(command: str, *args: str) -> Any:
    out = io.StringIO()
    call_command(command, *args, "--json", stdout=out)
    return json.loads(out.getvalue())


class TestTheFirstAccount:
    def test_it_is_made_by_the_link_and_owns_everything(self, client: Client) -> None:
        link = accounts.first_link()
        assert "Welcome" in client.get(link).content.decode()
        answer = client.post(link, {"name": "ada", "password": ""})
        assert answer.status_code == 302 and answer["Location"] == "/"
        assert is_in(client)
        ada = User.objects.get()
        assert [(m.role, m.dataset) for m in ada.memberships.all()] == [("owner", None)]
        assert not ada.has_usable_password() and not ada.is_superuser and not ada.is_staff

    def test_looking_at_the_link_does_not_use_it_up(self, client: Client) -> None:
        link = accounts.first_link()
        for _ in range(3):
            assert client.get(link).status_code == client.head(link).status_code == 200
        assert User.objects.count() == 0

    def test_there_is_no_link_once_there_is_an_account(self, client: Client) -> None:
        link = accounts.first_link()
        accounts.make_user("ada", "owner")
        assert accounts.first_link() == ""
        assert client.get(link).status_code == client.post(link, {"name": "eve"}).status_code == 410
        assert User.objects.count() == 1

    def test_a_link_is_too_old_after_a_day(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        link = accounts.first_link()
        monkeypatch.setattr(accounts, "FIRST_LINK_LASTS", dt.timedelta(seconds=-1))
        assert client.post(link, {"name": "eve"}).status_code == 410

    @pytest.mark.parametrize("token", ["x", "first account", "a:b:c", "%00"])
    def test_a_made_up_link_opens_nothing(self, client: Client, token: str) -> None:
        assert client.post(f"/welcome/{token}/", {"name": "eve"}).status_code == 410
        assert User.objects.count() == 0

    @pytest.mark.parametrize(
        ("name", "password"),
        [("", ""), ("two words", ""), ("x" * 151, ""), ("ada", "short"), ("ada", "password")],
    )
    def test_a_bad_name_or_password_is_told_and_nothing_is_made(
        self, client: Client, name: str, password: str
    ) -> None:
        answer = client.post(accounts.first_link(), {"name": name, "password": password})
        assert answer.status_code == 422 and 'class="error"' in answer.content.decode()
        assert User.objects.count() == 0

    def test_the_form_cannot_ask_for_more_than_a_name(self, client: Client) -> None:
        client.post(accounts.first_link(), {"name": "ada", "is_superuser": "1", "is_staff": "1", "id": "77"})
        ada = User.objects.get()
        assert not ada.is_superuser and not ada.is_staff and ada.pk != 77


@pytest.mark.django_db(transaction=True)
def test_of_many_first_accounts_at_once_one_is_made() -> None:
    barrier, answers = threading.Barrier(4), []
    link = accounts.first_link()

    def race(name: str) -> None:
        client = Client()
        barrier.wait()
        try:
            answers.append(client.post(link, {"name": name}).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=race, args=(f"user{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [302, 410, 410, 410]
    assert User.objects.count() == Membership.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_uses_of_one_link_at_once_one_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    link = path_of(accounts.signin_link(accounts.make_user("ada", "owner")))
    barrier, here, answers = threading.Barrier(4), threading.local(), []
    look = accounts.user_of_link

    def look_together(token: str) -> User | None:
        """All have seen that the link is good before any of them uses it."""
        user = look(token)
        if not getattr(here, "looked", False):
            here.looked = True
            barrier.wait(30)
        return user

    monkeypatch.setattr(accounts, "user_of_link", look_together)

    def race() -> None:
        try:
            answers.append(Client().post(link).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [302, 410, 410, 410]


class TestMakeuserAndSignin:
    def test_it_prints_a_link_that_signs_in_once(self, client: Client) -> None:
        made = run("makeuser", "lin", "--role", "reviewer")
        assert made["link"].startswith("http://127.0.0.1:8000/signin/")
        link = path_of(made["link"])
        page = client.get(link).content.decode()
        assert "Sign in as" in page and "lin" in page and not is_in(client)
        assert client.post(link)["Location"] == "/"
        assert is_in(client)
        assert Client().post(link).status_code == Client().get(link).status_code == 410

    def test_a_new_link_works_after_the_first_is_used_up(self, client: Client) -> None:
        made = run("makeuser", "lin", "--role", "reviewer")
        client.post(path_of(made["link"]))
        again = Client()
        assert again.post(path_of(run("signin", "LIN")["link"])).status_code == 302
        assert is_in(again) and is_in(client)

    def test_any_sign_in_uses_up_the_links_that_lie_about(self, ada: User) -> None:
        first, second = (path_of(accounts.signin_link(ada)) for _ in range(2))
        Client().post(first)
        assert Client().post(second).status_code == 410
        third = path_of(accounts.signin_link(User.objects.get()))
        try_password(Client(), "ada", PASSWORD)
        assert Client().post(third).status_code == 410

    def test_a_link_dies_after_seven_days(self, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
        link = path_of(accounts.signin_link(ada))
        in_days = lambda days: lambda self: dt.datetime.now() + dt.timedelta(days=days)  # noqa: E731
        monkeypatch.setattr(accounts.LinkTokens, "_now", in_days(6.99))
        assert Client().get(link).status_code == 200
        monkeypatch.setattr(accounts.LinkTokens, "_now", in_days(7.01))
        assert Client().post(link).status_code == 410

    @pytest.mark.parametrize("token", ["1", "-", "1-", "zzzzzzzzzzzzzzzz-abc", "1-abc-def", "é-1"])
    def test_a_made_up_link_signs_nobody_in(self, ada: User, client: Client, token: str) -> None:
        for ask in (client.get, client.post):
            assert ask(f"/signin/{token}/").status_code == 410
        assert not is_in(client)

    def test_a_link_is_for_one_account_only(self, ada: User) -> None:
        eve = accounts.make_user("eve", "viewer")
        own = accounts.tokens.make_token(eve)
        assert accounts.user_of_link(f"{ada.pk}-{own}") is None

    def test_a_disabled_account_gets_no_link_and_no_entry(self, ada: User, client: Client) -> None:
        link = path_of(accounts.signin_link(ada))
        User.objects.update(is_active=False)
        assert client.post(link).status_code == 410
        with pytest.raises(CommandError, match="disabled"):
            run("signin", "ada")

    def test_calling_it_again_changes_the_role_and_keeps_a_record(self) -> None:
        dataset = Dataset.objects.create(name="Tickets")
        run("makeuser", "ada", "--role", "owner")
        run("makeuser", "lin", "--role", "reviewer")
        run("makeuser", "Lin", "--role", "viewer")
        run("makeuser", "lin", "--role", "manager", "--dataset", str(dataset.pk))
        lin = User.objects.get(username="lin")
        roles = {(m.role, m.dataset_id) for m in lin.memberships.all()}
        assert roles == {("viewer", None), ("manager", dataset.pk)}
        given = AuditEvent.objects.filter(action="role given", detail__name="lin").order_by("pk")
        changes = [(event.detail["was"], event.detail["role"]) for event in given]
        assert changes == [(None, "reviewer"), ("reviewer", "viewer"), (None, "manager")]

    def test_the_last_owner_cannot_be_demoted(self) -> None:
        run("makeuser", "ada", "--role", "owner")
        with pytest.raises(CommandError, match="only owner"):
            run("makeuser", "ada", "--role", "viewer")
        run("makeuser", "ola", "--role", "owner")
        run("makeuser", "ada", "--role", "viewer")

    @pytest.mark.parametrize(
        "arguments",
        [("two words", "--role", "viewer"), ("<b>", "--role", "viewer"),
         ("ada", "--role", "viewer", "--dataset", "404")],
    )  # fmt: skip
    def test_a_mistake_is_one_sentence_and_makes_nothing(self, arguments: tuple[str, ...]) -> None:
        with pytest.raises(CommandError) as told:
            run("makeuser", *arguments)
        assert str(told.value).endswith(".") and "\n" not in str(told.value)
        assert User.objects.count() == Membership.objects.count() == 0

    def test_it_tells_people_what_it_made(self) -> None:
        out = io.StringIO()
        call_command("makeuser", "ada", "--role", "owner", stdout=out)
        assert "ada is owner on all datasets" in out.getvalue()
        call_command("signin", "ada", stdout=out)
        assert len(re.findall(r"^http://127\.0\.0\.1:8000/signin/\S+$", out.getvalue(), re.M)) == 2
        with pytest.raises(CommandError, match="no account called eve"):
            call_command("signin", "eve")


class TestPasswords:
    def test_name_and_password_open_the_door(self, ada: User, client: Client) -> None:
        assert try_password(client, "Ada", PASSWORD)["Location"] == "/"
        assert is_in(client)

    def test_nobody_can_tell_which_names_exist(self, ada: User) -> None:
        accounts.make_user("bylink", "viewer")
        pages = set()
        for name in ("ada", "bylink", "nobody"):
            answer = try_password(Client(), name, "wrong")
            assert answer.status_code == 422
            shown = answer.content.decode().replace(name, "NAME")
            pages.add(re.sub(r'(csrfmiddlewaretoken" value="|X-CSRFToken": ")\w+', r"\1", shown))
        assert len(pages) == 1
        assert "by link only" in pages.pop()

    def test_an_unknown_name_costs_as_much_work_as_a_known_one(
        self, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accounts.make_user("bylink", "viewer")
        hasher = type(get_hasher())
        encode, hashed = hasher.encode, []
        monkeypatch.setattr(hasher, "encode", lambda *args, **more: hashed.append(1) or encode(*args, **more))
        work = {}
        for name in ("ada", "bylink", "nobody"):
            hashed.clear()
            with CaptureQueriesContext(connection) as queries:
                try_password(Client(), name, "wrong")
            work[name] = len(hashed), len(queries)
        assert work["ada"] == work["bylink"] == work["nobody"] and work["ada"][0] == 1, work

    def test_a_name_typed_as_password_is_not_written_down(self, ada: User) -> None:
        try_password(Client(), PASSWORD, "ada")
        told = json.dumps(list(AuditEvent.objects.values_list("detail", flat=True)))
        assert PASSWORD not in told

    def test_guessing_is_slowed_down(self, ada: User, moment: Moment) -> None:
        for _ in range(5):
            assert try_password(Client(), "ada", "guess").status_code == 422
        answer = try_password(Client(), "ada", PASSWORD)
        assert answer.status_code == 429 and answer["Retry-After"] == "2"
        assert "2 seconds" in answer.content.decode()
        moment.passes(2.1)
        assert try_password(Client(), "ada", "guess").status_code == 422
        moment.passes(2.1)
        assert try_password(Client(), "ada", "guess")["Retry-After"] == "2"  # of now 4

    def test_the_wait_is_never_longer_than_a_minute_and_ends(self, ada: User, moment: Moment) -> None:
        for _ in range(40):
            moment.passes(61)
            assert try_password(Client(), "ada", "guess").status_code == 422
        moment.passes(61)
        client = Client()
        assert try_password(client, "ada", PASSWORD).status_code == 302
        assert is_in(client)

    def test_an_unknown_name_is_slowed_down_in_the_same_way(self, ada: User, moment: Moment) -> None:
        for name in ("ada", "nobody"):
            answers = [try_password(Client(), name, "guess").status_code for _ in range(7)]
            assert answers == [422] * 5 + [429] * 2

    def test_the_person_himself_gets_in_while_somebody_else_guesses(self, ada: User, moment: Moment) -> None:
        own = Client()
        try_password(own, "ada", PASSWORD)
        own.post("/signout/")
        for _ in range(9):
            try_password(Client(), "ada", "guess")
        assert try_password(Client(), "ada", PASSWORD).status_code == 429
        assert try_password(own, "ada", PASSWORD).status_code == 302, "a browser that was in before"
        elsewhere = Client(REMOTE_ADDR="192.0.2.7")
        assert try_password(elsewhere, "ada", PASSWORD).status_code == 302, "another address"
        by_link = Client()
        assert by_link.post(path_of(run("signin", "ada")["link"])).status_code == 302, "a link"

    def test_a_known_browser_is_slowed_down_too(self, ada: User, moment: Moment) -> None:
        own = Client()
        try_password(own, "ada", PASSWORD)
        own.post("/signout/")
        answers = [try_password(own, "ada", "guess").status_code for _ in range(7)]
        assert answers == [422] * 5 + [429] * 2

    def test_a_browser_cannot_claim_to_be_known(self, ada: User, moment: Moment) -> None:
        for n in range(7):
            client = Client()
            client.cookies["browser"] = f"{ada.pk}:{n}"
            answer = try_password(client, "ada", "guess")
        assert answer.status_code == 429

    def test_one_password_tried_on_many_names_is_slowed_down(self, ada: User, moment: Moment) -> None:
        for n in range(50):
            assert try_password(Client(), f"user{n}", "guess").status_code == 422
        assert try_password(Client(), "user50", "guess")["Retry-After"] == "5"
        assert try_password(Client(REMOTE_ADDR="192.0.2.7"), "user51", "guess").status_code == 422

    def test_a_household_of_ipv6_counts_as_one_address(self, ada: User, moment: Moment) -> None:
        members = [Client(REMOTE_ADDR=f"2001:db8:1:1::{n:x}") for n in range(1, 8)]
        answers = [try_password(member, "ada", "guess").status_code for member in members]
        assert answers == [422] * 5 + [429] * 2

    def test_a_forwarded_address_is_not_believed(self, ada: User, moment: Moment) -> None:
        liars = [Client(headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(7)]
        answers = [try_password(liar, "ada", "guess").status_code for liar in liars]
        assert answers == [422] * 5 + [429] * 2

    @pytest.mark.parametrize(
        "onward",
        ["//evil.example", "https://evil.example/", "javascript:alert(1)", "\\\\evil.example",
         "/\\evil.example", "http:evil.example",
         "http:///evil.example", "https://testserver/account/", " //evil.example", "\t//evil.example"],
    )  # fmt: skip
    def test_it_never_leads_to_another_site(self, ada: User, client: Client, onward: str) -> None:
        answer = try_password(client, "ada", PASSWORD, next=onward)
        assert answer["Location"] == "/"
        assert client.get("/signin/", {"next": onward})["Location"] == "/"

    def test_it_leads_back_to_where_somebody_wanted_to_go(self, ada: User, client: Client) -> None:
        wanted = "/account/?a=1&b=2"
        page = client.get(wanted)
        assert page["Location"] == "/signin/?next=%2Faccount%2F%3Fa%3D1%26b%3D2"
        form = client.get(page["Location"]).content.decode()
        assert 'name="next" value="/account/?a=1&amp;b=2"' in form
        assert try_password(client, "ada", PASSWORD, next=wanted)["Location"] == wanted

    @pytest.mark.parametrize(
        "body", [{}, {"name": "ada"}, {"name": "ada\0", "password": "x"}, {"name": "x" * 9999}]
    )
    def test_half_a_form_is_an_answer(self, ada: User, client: Client, body: dict[str, str]) -> None:
        assert client.post("/signin/", body).status_code == 422


class Moment:
    """A clock that tests can set forward."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def passes(self, seconds: float) -> None:
        self.ahead += dt.timedelta(seconds=seconds)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    """Time stands still but for `passes`."""
    clock, began = Moment(), timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: began + clock.ahead)
    return clock
