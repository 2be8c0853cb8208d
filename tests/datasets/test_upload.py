"""The way from a file in the browser to a dataset, page by page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from datasets.models import Dataset, Item, Membership, UploadDraft

pytestmark = pytest.mark.django_db(transaction=True)

TABLE = "id,subject,body,topic\n1,Hi,the card was declined at the shop,billing\n2,Yo,cannot get into my account,login\n3,Hm,no idea what this is about,\n"


@pytest.fixture
def boss() -> User:
    user = User.objects.create_user("boss")
    Membership.objects.create(user=user, role="manager")
    return user


def send(at: Client, content: bytes | str = TABLE, name: str = "tickets.csv") -> Any:
    data = content.encode() if isinstance(content, str) else content
    return at.post(reverse("datasets:new"), {"file": SimpleUploadedFile(name, data)})


def fields(page: Any, **changes: str) -> dict[str, str]:
    """What a browser would send back from the columns page."""
    context = page.context
    sent = {
        "read_as": context["read_as"],
        "labels_of": context["labels_of"],
        "name": context["form"]["name"].value() or "",
    }
    sent |= {use.html_name: use.value() or "" for _, use in context["heads"]}
    sent |= {f"definition-{one.number}": one.definition for one in context["form"].found}
    return sent | changes


def test_a_file_becomes_a_draft_and_shows_its_rows_and_guesses(at: Client) -> None:
    answer = send(at)
    draft = UploadDraft.objects.get()
    assert answer.status_code == 302 and answer["Location"] == reverse("datasets:draft", args=[draft.pk])
    page = at.get(answer["Location"])
    text = page.content.decode()
    assert "the card was declined at the shop" in text and "Guessed text" in text
    roles = {profile.name: use.value() for profile, use in page.context["heads"]}
    assert roles["body"] == "text" and roles["topic"] == "label" and roles["id"] == "id"
    assert [(one.name, one.n) for one in page.context["form"].found] == [("billing", 1), ("login", 1)]


def test_the_columns_page_makes_the_dataset_and_reads_a_small_file_at_once(at: Client, boss: User) -> None:
    page = at.get(send(at)["Location"])
    address = reverse("datasets:draft", args=[UploadDraft.objects.get().pk])
    sent = fields(
        page, name="Tickets", more="other: anything else", **{"use-1": "text", "definition-0": "A charge"}
    )
    answer = at.post(address, sent)
    dataset = Dataset.objects.get()
    assert answer["Location"] == reverse("reviews:overview", args=[dataset.pk])
    assert dataset.ready_at is not None and dataset.problem is None and dataset.name == "Tickets"
    assert dataset.mapping["text"] == ["subject", "body"]
    assert list(dataset.labels.values_list("name", "definition")) == [
        ("billing", "A charge"), ("login", ""), ("other", "anything else"),
    ]  # fmt: skip
    assert Membership.objects.get(dataset=dataset).role == "owner"
    assert Item.objects.get(dataset=dataset, position=1).text == "Hi\nthe card was declined at the shop"
    assert "3 rows read" in at.get(answer["Location"]).content.decode()
    assert at.post(address, sent)["Location"] == answer["Location"] and Dataset.objects.count() == 1


def test_another_delimiter_redraws_the_columns_and_guesses_anew(at: Client) -> None:
    send(at, "text;label\nlong enough to be a text, really;a\nanother one, just as long;b\n")
    draft = UploadDraft.objects.get()
    page = at.get(reverse("datasets:draft", args=[draft.pk]))
    assert page.context["layout"].delimiter == ";"
    redrawn = at.get(reverse("datasets:preview", args=[draft.pk]), fields(page, delimiter=","))
    assert redrawn.status_code == 200 and "<html" not in redrawn.content.decode()
    assert redrawn.context["layout"].delimiter == "," and len(redrawn.context["heads"]) == 1
    assert redrawn.context["bad_count"] == 2  # each row has a comma too many
    back = at.get(reverse("datasets:preview", args=[draft.pk]), fields(redrawn, delimiter=";"))
    assert [profile.name for profile, _ in back.context["heads"]] == ["text", "label"]
    draft.refresh_from_db()
    assert draft.layout["delimiter"] == ";"  # looking changes nothing


def test_a_file_without_a_header_can_be_said_so(at: Client) -> None:
    send(at, "text,label\none two three,a\nfour five six,b\n")
    draft = UploadDraft.objects.get()
    page = at.get(reverse("datasets:preview", args=[draft.pk]), {"header": "no"})
    assert [profile.name for profile, _ in page.context["heads"]] == ["column 1", "column 2"]
    sent = fields(page, header="no", name="Rows", **{"use-0": "text", "use-1": "label"})
    at.post(reverse("datasets:draft", args=[draft.pk]), sent)
    assert Dataset.objects.get().report["rows_read"] == 3


def test_another_label_column_shows_its_labels_and_forgets_typed_definitions(at: Client) -> None:
    page = at.get(send(at)["Location"])
    draft = UploadDraft.objects.get()
    sent = fields(page, **{"use-3": "", "use-1": "label", "definition-0": "A charge"})
    redrawn = at.get(reverse("datasets:preview", args=[draft.pk]), sent)
    assert {(one.name, one.definition) for one in redrawn.context["form"].found} == {
        ("Hi", ""),
        ("Hm", ""),
        ("Yo", ""),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use-2": "", "use-1": ""}, "at least one column"),
        ({"use-1": "label"}, "Two columns are marked as given label"),
        ({"use-1": "predicted"}, "both columns"),
        ({"use-3": ""}, "Type the labels"),
        ({"name": ""}, "Give the dataset a name"),
        ({"more": "billing"}, "there twice"),
        ({"more": 'x: is "' + "y" * 600 + '"'}, "500"),
    ],
)
def test_what_is_wrong_with_the_columns_is_said_on_the_page(
    at: Client, changes: dict[str, str], words: str
) -> None:
    page = at.get(send(at)["Location"])
    answer = at.post(reverse("datasets:draft", args=[UploadDraft.objects.get().pk]), fields(page, **changes))
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"text\n", "no rows"),
        (b"PK\x03\x04" + bytes(200), ""),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, ""),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_sentence(
    at: Client, content: bytes, words: str
) -> None:
    answer = send(at, content)
    assert (
        answer.status_code == 422
        and words in answer.content.decode()
        and 'class="error"' in answer.content.decode()
    )
    assert not UploadDraft.objects.exists()


def test_no_file_at_all_is_said(at: Client) -> None:
    answer = at.post(reverse("datasets:new"), {})
    assert answer.status_code == 422 and "Choose a file first." in answer.content.decode()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.csv", "<img src=x onerror=alert(1)>.csv", "=cmd|x.csv", "\u202egnp.csv"]
)
def test_a_file_is_stored_under_our_own_name_and_its_name_is_only_shown(at: Client, name: str) -> None:
    answer = send(at, name=name)
    draft = UploadDraft.objects.get()
    assert draft.path.endswith(f"/uploads/{draft.pk.hex}") and "/" not in draft.file_name
    assert "<img" not in at.get(answer["Location"]).content.decode().replace('<img src="/static', "")


def test_cells_are_shown_as_text_only(at: Client) -> None:
    page = at.get(send(at, "text,label\n<script>alert(1)</script> {{ 7|add:7 }},<b>\nother,y\n")["Location"])
    text = page.content.decode()
    assert (
        "<script>alert" not in text
        and "&lt;script&gt;alert(1)" in text
        and "{{ 7|add:7 }}" in text
        and "<b>" not in text
    )


def test_a_draft_is_its_owners_alone(at: Client, client: Client) -> None:
    address = send(at)["Location"]
    other = User.objects.create_user("other")
    Membership.objects.create(user=other, role="owner")
    client.force_login(other)
    assert client.get(address).status_code == 404 and client.post(address).status_code == 404


def test_a_reviewer_cannot_upload(client: Client) -> None:
    user = User.objects.create_user("reader")
    Membership.objects.create(user=user, role="reviewer")
    client.force_login(user)
    for name in ("new", "sample"):
        assert client.post(reverse(f"datasets:{name}")).status_code == 403
    assert "Upload" not in client.get("/").content.decode()


def test_the_sample_is_one_click_and_says_where_it_comes_from(at: Client) -> None:
    answer = at.post(reverse("datasets:sample"), follow=True)
    dataset = Dataset.objects.get()
    assert dataset.ready_at is not None and dataset.labels.count() == 10
    assert dataset.report["rows_read"] == 1725 and dataset.report["given"] == 150
    text = answer.content.decode()
    assert "CC BY 4.0" in text and "Start labeling" in text


def test_the_first_page_offers_a_file_or_the_sample_and_then_lists_datasets(at: Client) -> None:
    empty = at.get("/").content.decode()
    assert "Upload a file" in empty and "Try the sample" in empty
    at.post(reverse("datasets:sample"))
    full = at.get("/").content.decode()
    assert "Bank support questions" in full and "Start labeling" in full and "1,725 items" in full
    assert "No dataset is called like that" in at.get("/?q=zzz").content.decode()


def test_a_file_of_one_column_keeps_what_was_typed_on_its_page(at: Client) -> None:
    page = at.get(send(at, "word\nred apple\ngreen pear\nblue saw\n", "one.csv")["Location"])
    text = page.content.decode()
    assert '<option value="none" selected>' in text
    sent = fields(page, name="One", more="fruit\ntool", encoding="utf-8", delimiter="none", header="yes")
    answer = at.post(reverse("datasets:draft", args=[UploadDraft.objects.get().pk]), sent | {"use-0": "text"})
    assert answer.status_code == 302
    dataset = Dataset.objects.get()
    assert dataset.items.count() == 3
    assert list(dataset.labels.values_list("name", flat=True)) == ["fruit", "tool"]
