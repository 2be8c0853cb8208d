"""Every address, visited as every kind of person: who gets in, who does not, and what that looks like.

The addresses come from the URLconf, so a new one that states no rule, or has an argument that
this file cannot fill, fails here.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from datasets.access import AUDIENCES, NEEDS
from datasets.models import (
    AuditEvent,
    Backtest,
    Dataset,
    Item,
    Label,
    LabelerVersion,
    Membership,
    Prediction,
    Run,
    UploadDraft,
)
from labelhub.autolabel import tables
from labelhub.autolabel.rank import to_rank
from reviews import samples
from reviews.models import Certificate, Decision, Threshold
from tests.rules import RULES

pytestmark = pytest.mark.django_db

ON_DATASET = ("viewer", "reviewer", "manager", "owner")  # a role on this dataset alone
ON_ALL = ("reviewer of all", "manager of all", "owner of all")
OWN = {"draft_id", "backtest_id"}  # things that are nobody's but their maker's, the manager of all
PEOPLE = ("anonymous", "stranger", *ON_DATASET, *ON_ALL)  # a stranger owns another dataset
SIGN_IN = "/signin/?next="
# Addresses where looking writes: a reviewer's card is leased to him.
LEASES = {"reviews:review", "reviews:next", "reviews:sample"}


@dataclass(frozen=True)
class Address:
    """One line of the URLconf."""

    name: str
    names_of_arguments: tuple[str, ...]
    view: Any

    @property
    def rule(self) -> str:
        return str(getattr(self.view, "needs", ""))


def walk(resolver: URLResolver, space: str = "") -> Iterator[Address]:
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from walk(entry, f"{space}{entry.namespace}:" if entry.namespace else space)
        elif isinstance(entry, URLPattern):
            yield Address(f"{space}{entry.name}", tuple(entry.pattern.converters), entry.callback)


ADDRESSES = list(walk(get_resolver()))
visits = pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: address.name)


class World:
    """Two datasets with everything in them, and people with every role on the first."""

    def __init__(self) -> None:
        self.people: dict[str, User | None] = {"anonymous": None}
        for name in PEOPLE[1:]:
            self.people[name] = User.objects.create_user(name.replace(" ", "_"))
        self.dataset, self.other = (self._dataset(name) for name in ("Mine", "Theirs"))
        for name in ON_DATASET:
            Membership.objects.create(user=self.people[name], dataset=self.dataset, role=name)
        for name in ON_ALL:
            Membership.objects.create(user=self.people[name], role=name.split()[0])
        Membership.objects.create(user=self.people["stranger"], dataset=self.other, role="owner")

    def _dataset(self, name: str) -> Dataset:
        by = self.people["manager of all"]
        now = timezone.now()
        dataset = Dataset.objects.create(name=name, columns=["text"], ready_at=now, created_by=by)
        labels = [
            Label.objects.create(dataset=dataset, name=n, position=i) for i, n in enumerate(("spam", "ham"))
        ]
        Item.objects.bulk_create(
            Item(dataset=dataset, position=n, text=f"{name} {n}", row="{}", text_hash=n) for n in range(1, 31)
        )
        version = LabelerVersion.objects.create(dataset=dataset, method="rules")
        run = Run.objects.create(
            dataset=dataset, number=1, version=version, seed="1" * 32, started_at=now, finished_at=now
        )
        Prediction.objects.bulk_create(
            Prediction(run=run, item=item, label=labels[n % 2], rank=to_rank(0.4 + n / 50, n))
            for n, item in enumerate(dataset.items.order_by("position"))
        )
        threshold = Threshold.objects.create(dataset=dataset, run=run, rank=to_rank(0.8), by=by)
        assert by is not None
        samples.draw_spot_check(dataset, threshold, by)
        return dataset

    def arguments(self, address: Address, dataset: Dataset, things: Dataset | None = None) -> dict[str, Any]:
        """Real ids for an address: of a dataset, and of things that may belong to another one."""
        things = things or dataset
        run, sample = things.runs.get(), things.samples.get()
        known: dict[str, Any] = {
            "dataset_id": dataset.pk,
            "item_id": things.items.order_by("position")[0].pk,
            "sample_id": sample.pk,
            "run_id": run.pk,
            "number": run.number if things is dataset else 99,
            "token": "made-up",
        }
        if address.name.startswith("reviews:certificate") and not things.certificates.exists():
            told: dict[str, Any] = {
                "evidence": {"alpha": 0.05, "promise": "accepted"},
                "by": self.people["manager of all"],
            }
            Certificate.objects.create(dataset=things, sample=sample, statement="A promise.", **told)
        if "backtest_id" in address.names_of_arguments:
            person = self.people["manager of all" if things == self.dataset else "stranger"]
            known["backtest_id"] = Backtest.objects.create(user=person, file_name="a.csv", result={}).pk
        if "draft_id" in address.names_of_arguments:
            known["draft_id"] = self.draft(things).pk
        unknown = set(address.names_of_arguments) - set(known)
        assert not unknown, f"teach World.arguments what {unknown} of {address.name} are"
        return {name: known[name] for name in address.names_of_arguments}

    def draft(self, dataset: Dataset) -> UploadDraft:
        """A file that is being uploaded: by the manager of all, or by a stranger for the other dataset."""
        person = self.people["manager of all" if dataset == self.dataset else "stranger"]
        draft = UploadDraft(user=person, file_name="a.csv")
        path = Path(settings.LABELHUB_HOME, "uploads", draft.pk.hex)
        path.write_text("text,label\nhello there,ham\nbuy now,spam\n")
        draft.path, draft.layout = str(path), asdict(tables.sniff(path))
        draft.save()
        return draft

    def url(self, address: Address, things: Dataset | None = None) -> str:
        return reverse(address.name, kwargs=self.arguments(address, self.dataset, things))

    def client(self, person: str, **options: Any) -> Client:
        client = Client(raise_request_exception=False, **options)
        user = self.people[person]
        if user is not None:
            client.force_login(user)
        return client


@pytest.fixture
def world() -> World:
    return World()


def role_of(person: str) -> str:
    return person.split()[0] if person in (*ON_DATASET, *ON_ALL) else ""


def expected(rule: str, person: str) -> str:
    """What the rule says about this person: in, sign in, not found or refused."""
    if rule == "everybody":
        return "in"
    if person == "anonymous":
        return "sign in"
    if rule == "signed_in":
        return "in"
    if rule in ("creators", "owners"):
        return "in" if person in (ON_ALL[1:] if rule == "creators" else ON_ALL[2:]) else "refused"
    if person == "stranger":
        return "not found"
    return "in" if role_of(person) in NEEDS[rule] else "refused"


def happened(response: Any) -> str:
    if response.status_code == 404:
        return "not found"
    if response.status_code == 403:
        return "refused"
    if response.status_code == 302 and response["Location"].startswith(SIGN_IN):
        return "sign in"
    return "in" if response.status_code < 500 else f"broken: {response.status_code}"


def ask(client: Client, method: str, url: str, **options: Any) -> Any:
    """Ask, look at what every answer must have, and leave the database as it was."""
    with transaction.atomic():
        response = client.generic(method, url, **options)
        if response.streaming:
            response.content_read = b"".join(response.streaming_content)
        transaction.set_rollback(True)
    policy = response["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"] in ("no-store", "private, no-store")
    return response


def test_the_house_has_addresses() -> None:
    names = {address.name for address in ADDRESSES}
    assert {"home", "signin", "reviews:review", "reviews:decide", "reviews:approve"} <= names
    assert len(names) == len(ADDRESSES), "two addresses share a name"


def test_the_roles_are_what_they_are_meant_to_be() -> None:
    assert {right: set(roles) for right, roles in NEEDS.items()} == {
        "read": {"owner", "manager", "reviewer", "viewer"},
        "review": {"owner", "manager", "reviewer"},
        "watch": {"owner", "manager", "viewer"},
        "manage": {"owner", "manager"},
        "own": {"owner"},
    }


@visits
def test_every_address_states_its_rule(address: Address) -> None:
    assert address.rule in NEEDS.keys() | AUDIENCES, f"{address.name} needs @needs(…) or @open_to(…)"
    assert address.name in RULES.get(address.rule, "").split(), f"RULES says otherwise about {address.name}"
    on_dataset = "dataset_id" in address.names_of_arguments
    assert on_dataset == (address.rule in NEEDS), "an address with a dataset needs a right on it"


@visits
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_lets_in_whom_the_rule_names_and_nobody_else(world: World, address: Address, method: str) -> None:
    if address.name == "styleguide":
        pytest.skip("only while developing; see test_headers.py")
    url = world.url(address)
    found, wanted = {}, {}
    for person in PEOPLE:
        response = ask(world.client(person), method, url)
        if response.status_code == 405:
            found[person] = wanted[person] = "wrong method"
            continue
        found[person] = happened(response)
        wanted[person] = "in" if address.name == "light" else expected(address.rule, person)
        if person == "owner of all" and OWN & {*address.names_of_arguments}:
            wanted[person] = "not found"
    assert found == wanted
    methods = set(found.values())
    assert "wrong method" not in methods or methods == {"wrong method"}, (
        "who may ask how must not depend on the person"
    )


@visits
def test_a_refusal_is_written_down_and_says_why(world: World, address: Address) -> None:
    refused = [person for person in PEOPLE if expected(address.rule, person) == "refused"]
    for person in refused:
        for method in ("GET", "POST"):
            before = AuditEvent.objects.count()
            response = world.client(person).generic(method, world.url(address))
            if response.status_code == 405:
                continue
            event = AuditEvent.objects.order_by("-pk")[0]
            assert AuditEvent.objects.count() == before + 1
            assert event.action == "refused" and event.user == world.people[person]
            page = response.content.decode()
            assert re.search(r"E-[0-9A-F]{6}", page) and "Traceback" not in page


@visits
def test_a_thing_of_another_dataset_is_not_there(world: World, address: Address) -> None:
    if not (things := [name for name in address.names_of_arguments if name not in ("dataset_id", "token")]):
        return
    foreign = world.url(address, world.other)
    if "number" in things:
        assert foreign != world.url(address)
    whose = "owner" if "dataset_id" in address.names_of_arguments else "manager of all"
    for method in ("GET", "POST"):
        response = ask(world.client(whose), method, foreign)
        assert response.status_code in (404, 405), f"{method} {foreign}"


@visits
def test_a_dataset_that_does_not_exist_looks_like_a_foreign_one(world: World, address: Address) -> None:
    if "dataset_id" not in address.names_of_arguments:
        return
    gone = reverse(address.name, kwargs=world.arguments(address, world.dataset) | {"dataset_id": 10**9})
    stranger = world.client("stranger")
    for method in ("GET", "POST"):
        foreign, missing = ask(stranger, method, world.url(address)), ask(stranger, method, gone)
        assert foreign.status_code == missing.status_code
        without_id = [re.sub(r"E-[0-9A-F]{6}|\"X-CSRFToken\": \"\w+\"|value=\"\w{64}\"", "", page.content.decode())
                      for page in (foreign, missing)]  # fmt: skip
        assert without_id[0] == without_id[1]


def fitting(address: Address) -> str:  # whom the rule lets in, and whose things it shows
    return (
        "owner" if address.rule in NEEDS else "owner of all" if address.rule == "owners" else "manager of all"
    )


@visits
def test_a_form_without_its_token_changes_nothing(world: World, address: Address) -> None:
    strict, url = world.client(fitting(address), enforce_csrf_checks=True), world.url(address)
    with CaptureQueriesContext(connection) as queries:
        response = ask(strict, "POST", url)
    assert response.status_code in (403, 405)
    assert not writes(queries)


def writes(queries: CaptureQueriesContext) -> list[str]:
    """Statements that change something; the audit trail may note who took a copy."""
    verbs = re.compile(r"\s*(INSERT|UPDATE|DELETE)(?!.*(django_session|datasets_auditevent))", re.IGNORECASE)
    return [query["sql"] for query in queries.captured_queries if verbs.match(query["sql"])]


@visits
def test_looking_changes_nothing(world: World, address: Address) -> None:
    if address.name in LEASES:
        return
    client, url = world.client(fitting(address)), world.url(address)
    with CaptureQueriesContext(connection) as queries:
        ask(client, "GET", url)
    assert not writes(queries)


@visits
def test_other_methods_are_refused(world: World, address: Address) -> None:
    url = world.url(address)
    for person in ("anonymous", "manager of all"):
        client = world.client(person)
        for method in ("TRACE", "PUT", "PATCH", "DELETE", "BREW", "CONNECT"):
            assert ask(client, method, url).status_code == 405, method


@visits
def test_a_fragment_never_becomes_a_sign_in_page(world: World, address: Address) -> None:
    fragment = {"HX-Request": "true", "HX-Current-URL": "http://testserver/d/7/review/?a=1"}
    for method in ("GET", "POST"):
        response = ask(world.client("anonymous"), method, world.url(address), headers=fragment)
        if response.status_code == 405 or address.rule == "everybody":
            continue
        assert response.status_code == 401
        assert response["HX-Redirect"] == "/signin/?next=%2Fd%2F7%2Freview%2F%3Fa%3D1"
        assert not response.content


@visits
def test_an_error_inside_a_page_is_a_small_one(world: World, address: Address) -> None:
    if "dataset_id" not in address.names_of_arguments:
        return
    for method in ("GET", "POST"):
        response = ask(world.client("stranger"), method, world.url(address), headers={"HX-Request": "true"})
        if response.status_code == 405:
            continue
        page = response.content.decode()
        assert response.status_code == 404 and "<html" not in page and 'role="alert"' in page


def test_who_posts_after_the_session_ended_comes_back_to_the_page(world: World) -> None:
    url = reverse("reviews:undo", args=[world.dataset.pk])
    page = "http://testserver/d/7/review/"
    response = Client().post(url, headers={"Referer": page})
    assert response["Location"] == "/signin/?next=%2Fd%2F7%2Freview%2F"


def test_an_id_in_the_body_is_checked_like_one_in_the_address(world: World) -> None:
    url = reverse("reviews:decide", args=[world.dataset.pk, world.dataset.items.order_by("position")[0].pk])
    foreign = world.other.labels.first()
    assert foreign is not None
    response = world.client("reviewer").post(url, {"label": foreign.pk, "uuid": str(uuid.uuid4())})
    assert response.status_code == 422
    assert not Decision.objects.exists()


def test_who_loses_his_role_is_out_with_the_next_request(world: World) -> None:
    client = world.client("reviewer")
    url = reverse("reviews:review", args=[world.dataset.pk])
    assert client.get(url).status_code == 200
    member = Membership.objects.filter(user=world.people["reviewer"])
    member.update(role="viewer")
    assert client.get(url).status_code == 403
    member.delete()
    assert client.get(url).status_code == 404


def test_a_role_on_the_dataset_wins_over_one_on_all(world: World) -> None:
    user = world.people["manager of all"]
    Membership.objects.create(user=user, dataset=world.dataset, role="viewer")
    draw = reverse("reviews:draw", args=[world.dataset.pk])
    client = world.client("manager of all")
    assert client.post(draw).status_code == 403
    assert client.post(reverse("reviews:draw", args=[world.other.pk])).status_code == 302
