"""Sessions, the worker light and health: what every page and every machine asks for."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from datasets.models import Dataset, Heartbeat
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


def try_password(client: Client, name: str, password: str) -> Any:
    return client.post("/signin/", {"name": name, "password": password})


def use_link(client: Client, user: User) -> None:
    link = accounts.signin_link(user).removeprefix("http://127.0.0.1:8000")
    assert client.post(link).status_code == 302


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


class TestSessions:
    def test_signing_in_gives_a_new_session(self, ada: User, client: Client) -> None:
        client.session["planted"] = True
        planted = client.session
        planted["by"] = "somebody"
        planted.save()
        client.cookies["labelhub_session"] = planted.session_key
        try_password(client, "ada", PASSWORD)
        assert client.session.session_key != planted.session_key
        assert not Session.objects.filter(session_key=planted.session_key).exists()

    def test_signing_out_ends_the_session_on_the_server(self, ada: User, client: Client) -> None:
        try_password(client, "ada", PASSWORD)
        stolen = client.cookies["labelhub_session"].value
        assert client.post("/signout/")["Location"] == "/signin/"
        thief = Client()
        thief.cookies["labelhub_session"] = stolen
        assert not is_in(client) and not is_in(thief)

    def test_a_link_to_sign_out_does_nothing(self, ada: User, client: Client) -> None:
        try_password(client, "ada", PASSWORD)
        assert client.get("/signout/").status_code == 405
        assert is_in(client)

    def test_a_new_password_ends_all_other_sessions(self, ada: User, client: Client) -> None:
        other = Client()
        try_password(client, "ada", PASSWORD)
        try_password(other, "ada", PASSWORD)
        new = "an even quieter harbour"
        assert client.post("/account/", {"old": PASSWORD, "new": new}).status_code == 302
        assert is_in(client) and not is_in(other)
        assert try_password(other, "ada", PASSWORD).status_code == 422
        assert try_password(other, "ada", new).status_code == 302

    def test_a_disabled_account_is_out_at_once(self, ada: User, client: Client) -> None:
        try_password(client, "ada", PASSWORD)
        User.objects.update(is_active=False)
        assert not is_in(client)
        assert try_password(client, "ada", PASSWORD).status_code == 422

    def test_the_old_password_must_be_known(self, ada: User, client: Client) -> None:
        try_password(client, "ada", PASSWORD)
        for body in ({"new": "something long enough"}, {"old": "wrong", "new": "something long enough"}):
            assert client.post("/account/", body).status_code == 422
        ada.refresh_from_db()
        assert ada.check_password(PASSWORD)

    def test_a_fresh_link_stands_for_a_forgotten_password(
        self, ada: User, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_link(client, ada)
        assert client.post("/account/", {"new": "something long enough"}).status_code == 302
        monkeypatch.setattr(accounts, "FRESH_LINK_LASTS", dt.timedelta(seconds=-1))
        assert client.post("/account/", {"new": "something else long"}).status_code == 422

    def test_who_came_by_link_can_set_a_first_password(self, client: Client) -> None:
        lin = accounts.make_user("lin", "reviewer")
        use_link(client, lin)
        assert client.post("/account/", {"new": "12345678"}).status_code == 422
        assert client.post("/account/", {"new": "x" * 64 + " and a bit more"}).status_code == 302
        assert try_password(Client(), "lin", "x" * 64 + " and a bit more").status_code == 302

    def test_the_account_page_cannot_raise_anybody(self, client: Client) -> None:
        lin = accounts.make_user("lin", "reviewer")
        use_link(client, lin)
        body = {"new": "something long enough", "role": "owner", "is_staff": "1", "username": "ada"}
        assert client.post("/account/", body).status_code == 302
        lin.refresh_from_db()
        assert lin.username == "lin" and not lin.is_staff and lin.memberships.get().role == "reviewer"

    def test_the_account_page_lists_the_own_roles(self, client: Client) -> None:
        dataset = Dataset.objects.create(name="Tickets <b>")
        lin = accounts.make_user("lin", "reviewer", dataset)
        use_link(client, lin)
        page = client.get("/account/").content.decode()
        assert "Reviewer" in page and "Tickets &lt;b&gt;" in page

    def test_a_form_from_another_site_is_refused(self, ada: User) -> None:
        strict = Client(enforce_csrf_checks=True)
        answer = strict.post("/signin/", {"name": "ada", "password": PASSWORD})
        assert answer.status_code == 403 and "out of date" in answer.content.decode()
        token = strict.get("/signin/").context["csrf_token"]
        body = {"name": "ada", "password": PASSWORD, "csrfmiddlewaretoken": str(token)}
        assert strict.post("/signin/", body, headers={"Origin": "https://evil.example"}).status_code == 403
        assert strict.post("/signin/", body).status_code == 302

    def test_an_outbox_gets_a_fresh_token_to_send_again(self, ada: User) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(ada)
        refused = strict.post("/signout/", headers={"X-CSRFToken": "x" * 32})
        assert refused.status_code == 403
        assert strict.post("/signout/", headers={"X-CSRFToken": refused["X-CSRFToken"]}).status_code == 302


class TestTheLight:
    def test_it_says_when_no_worker_runs(self, ada: User, client: Client) -> None:
        client.force_login(ada)
        Heartbeat.objects.create(name="dead", beat_at=timezone.now() - dt.timedelta(seconds=9))
        shown = client.get("/_light").content.decode()
        assert "No worker running" in shown and "how to start" in shown and 'hx-trigger="every 5s"' in shown

    def test_it_says_when_a_worker_is_ready_or_busy(self, ada: User, client: Client) -> None:
        client.force_login(ada)
        beat = Heartbeat.objects.create(name="one", beat_at=timezone.now() - dt.timedelta(seconds=5))
        assert "Worker ready" in client.get("/_light").content.decode()
        beat.busy_with = "run 7"
        beat.save()
        assert "Worker busy" in client.get("/_light").content.decode()

    def test_it_needs_few_statements(
        self, ada: User, client: Client, django_assert_max_num_queries: Any
    ) -> None:
        client.force_login(ada)
        with django_assert_max_num_queries(7):  # with session, user and health check
            client.get("/_light")

    def test_it_does_not_send_away_somebody_whose_session_ended(self, client: Client) -> None:
        page = "http://testserver/d/1/review/?x=1"
        answer = client.get("/_light", headers={"HX-Request": "true", "HX-Current-URL": page})
        assert answer.status_code == 401 and "HX-Redirect" not in answer
        shown = answer.content.decode()
        assert "/signin/?next=%2Fd%2F1%2Freview%2F%3Fx%3D1" in shown and "hx-trigger" not in shown


class TestHealth:
    def test_it_is_well_while_the_database_answers(self, client: Client) -> None:
        answer = client.get("/healthz")
        assert answer.status_code == 200 and answer.json() == {"status": "ok"}

    def test_it_is_ill_when_the_database_is_gone(self) -> None:
        asked = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v0", "-c",
             "from django.test import Client; r = Client(headers={'host': '127.0.0.1'}).get('/healthz');"
             "print(r.status_code, r.content.decode())"],
            cwd=settings.BASE_DIR, env={**os.environ, "DATABASE_URL": "postgres://nobody@127.0.0.1:1/gone"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert asked.stdout.strip() == '503 {"status": "error"}', asked.stderr
