"""The review page works by plain HTML, says why an item is there and never shows what must stay hidden."""

from __future__ import annotations

import re
import uuid

import pytest
from django.urls import reverse

from datasets.models import RunVotes
from reviews import samples
from reviews.models import Claim, Decision, Remark

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def world(make_world):
    return make_world([0.3, 0.4, 0.5, 0.95])


@pytest.fixture
def reviewer(client, world):
    client.force_login(world.people["reviewer"])
    return client


def page(client, world):
    return client.get(reverse("reviews:review", args=[world.dataset.pk]))


def decide_url(world, item):
    return reverse("reviews:decide", args=[world.dataset.pk, item.pk])


def sent_uuid(response):
    return re.search(r'name="uuid" value="([0-9a-f-]{36})"', response.content.decode()).group(1)


def test_the_page_shows_the_least_certain_item_with_a_key_on_every_label(reviewer, world):
    html = page(reviewer, world).content.decode()
    assert "text 1" in html
    assert "confidence 0.30 is below 0.85" in html
    for key in "12":
        assert f'data-key="{key}"' in html


def test_a_plain_form_post_stores_the_answer_and_goes_to_the_next_item(reviewer, world):
    sent = sent_uuid(page(reviewer, world))
    response = reviewer.post(
        decide_url(world, world.items[0]),
        {"uuid": sent, "label": world.labels[1].pk, "note": "odd"},
        follow=True,
    )
    assert "text 2" in response.content.decode()
    stored = Decision.objects.get()
    assert (str(stored.uuid), stored.label, stored.note) == (sent, world.labels[1], "odd")
    assert stored.seconds is not None, "without a script the age of the claim is the time it took"


def test_a_script_gets_the_next_card_in_the_same_answer(reviewer, world):
    page(reviewer, world)
    response = reviewer.post(
        decide_url(world, world.items[0]), {"label": world.labels[0].pk, "seconds": "2.5"}, headers=HTMX
    )
    html = response.content.decode()
    assert response.status_code == 200
    assert html.lstrip().startswith('<div id="card"')
    assert "text 2" in html
    assert Decision.objects.get().seconds == 2.5


def test_a_double_click_is_one_decision(reviewer, world):
    sent = sent_uuid(page(reviewer, world))
    for _ in range(2):
        reviewer.post(
            decide_url(world, world.items[0]), {"uuid": sent, "label": world.labels[0].pk}, headers=HTMX
        )
    assert Decision.objects.count() == 1


def test_the_same_uuid_with_another_label_is_refused_and_says_so(reviewer, world):
    sent = sent_uuid(page(reviewer, world))
    reviewer.post(
        decide_url(world, world.items[0]), {"uuid": sent, "label": world.labels[0].pk}, headers=HTMX
    )
    response = reviewer.post(
        decide_url(world, world.items[0]), {"uuid": sent, "label": world.labels[1].pk}, headers=HTMX
    )
    assert response.status_code == 409
    assert "the first one stands" in response.content.decode()


def test_an_answer_without_a_label_is_refused_and_nothing_is_stored(reviewer, world):
    page(reviewer, world)
    response = reviewer.post(decide_url(world, world.items[0]), {"uuid": uuid.uuid4()}, headers=HTMX)
    assert response.status_code == 422
    assert "Choose a label" in response.content.decode()
    assert "text 1" in response.content.decode()
    assert not Decision.objects.exists()


def test_a_label_retired_meanwhile_is_refused_with_a_sentence(reviewer, world):
    page(reviewer, world)
    from django.utils import timezone

    world.labels[0].retired_at = timezone.now()
    world.labels[0].save()
    response = reviewer.post(decide_url(world, world.items[0]), {"label": world.labels[0].pk}, headers=HTMX)
    assert response.status_code == 422
    assert "no longer in use" in response.content.decode()


def test_an_item_of_another_dataset_does_not_exist(reviewer, world, make_world):
    other = make_world([0.3], name="Other")
    url = reverse("reviews:decide", args=[world.dataset.pk, other.items[0].pk])
    assert reviewer.post(url, {"label": world.labels[0].pk}).status_code == 404
    assert reviewer.post(decide_url(other, other.items[0]), {"label": other.labels[0].pk}).status_code == 404


def test_undo_brings_the_same_item_back(reviewer, world):
    page(reviewer, world)
    reviewer.post(decide_url(world, world.items[0]), {"label": world.labels[0].pk}, headers=HTMX)
    response = reviewer.post(reverse("reviews:undo", args=[world.dataset.pk]), headers=HTMX)
    html = response.content.decode()
    assert "Took back “spam” for item 1" in html
    assert "text 1" in html


def test_a_second_persons_answer_is_told_and_kept(client, world):
    client.force_login(world.people["reviewer"])
    client.post(decide_url(world, world.items[0]), {"label": world.labels[0].pk})
    client.force_login(world.people["second"])
    response = client.post(decide_url(world, world.items[0]), {"label": world.labels[1].pk}, headers=HTMX)
    assert "had already answered spam" in response.content.decode()
    assert Decision.objects.answers().count() == 2


def test_skip_ask_and_note_are_kept_apart_from_answers(reviewer, world):
    for item, kind in zip(world.items, ("skip", "ask", "note"), strict=False):
        url = reverse("reviews:remark", args=[world.dataset.pk, item.pk])
        assert reviewer.post(url, {"kind": kind, "text": "why?"}, headers=HTMX).status_code == 200
    assert set(Remark.objects.values_list("kind", flat=True)) == {"skip", "ask", "note"}
    assert not Decision.objects.exists()


def test_votes_are_shown_with_their_evidence_as_text(reviewer, world):
    RunVotes.objects.create(
        run=world.run, item=world.items[0],
        votes={"rules": [world.labels[0].pk, 0.8, "<b>win</b>"], "weak_model": [world.labels[1].pk, 0.6, ""]},
    )  # fmt: skip
    html = page(reviewer, world).content.decode()
    assert "&lt;b&gt;win&lt;/b&gt;" in html
    assert "<b>win" not in html
    assert "the labelers disagree" in html


def test_markup_in_texts_labels_and_notes_is_inert(client, make_world):
    hostile = "<script>alert(1)</script>{{ 7|add:7 }}{% now 'Y' %}<img src=x onerror=a>"
    world = make_world([0.3], labels=[hostile[:200], "b"], name=hostile[:60])
    world.items[0].text = hostile
    world.items[0].row = '{"text": "x", "<i>col": "</script>"}'
    world.items[0].save()
    client.force_login(world.people["reviewer"])
    html = page(client, world).content.decode()
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "{{ 7|add:7 }}" in html


class TestBlind:
    @pytest.fixture
    def sample(self, make_world, client):
        world = make_world([0.91234] * 40, labels=["alpha", "beta", "gamma"])
        sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
        client.force_login(world.people["reviewer"])
        return world, sample

    def test_nothing_about_the_machine_is_in_the_html_before_the_answer(self, client, sample):
        world, drawn = sample
        html = client.get(reverse("reviews:sample", args=[world.dataset.pk, drawn.pk])).content.decode()
        assert "suggested" not in html.lower()
        assert "0.91" not in html
        assert 'data-key="enter"' not in html
        # The three labels are offered alike: cut the names out and their buttons are the same.
        buttons = re.findall(r'<button class="choice.*?</button>', html, re.S)
        shapes = {re.sub(r"alpha|beta|gamma|\d+", "", button) for button in buttons}
        assert len(buttons) == 3 and len(shapes) == 1

    def test_the_item_page_of_a_drawn_item_shows_only_its_text(self, client, sample):
        world, drawn = sample
        item = drawn.drawn.first().item
        html = client.get(reverse("reviews:item", args=[world.dataset.pk, item.pk])).content.decode()
        assert item.text in html
        assert "0.91" not in html and "choice" not in html

    def test_answers_go_into_the_sample_and_the_last_one_leads_to_the_result(self, client, sample):
        world, drawn = sample
        for _ in range(drawn.size):
            url = reverse("reviews:sample", args=[world.dataset.pk, drawn.pk])
            html = client.get(url).content.decode()
            item = re.search(r"/items/(\d+)/decide", html).group(1)
            response = client.post(
                reverse("reviews:decide", args=[world.dataset.pk, item]),
                {"label": world.labels[0].pk, "lane": drawn.pk}, follow=True,
            )  # fmt: skip
        drawn.refresh_from_db()
        assert drawn.closed_at is not None
        assert "answers differ from the machine" in response.content.decode()
        assert Decision.objects.filter(sample=drawn, showed_machine=False).count() == drawn.size

    def test_a_manager_who_looked_gets_no_card(self, client, sample):
        world, drawn = sample
        client.force_login(world.people["manager"])
        client.post(reverse("reviews:look", args=[world.dataset.pk, drawn.pk]))
        html = client.get(reverse("reviews:sample", args=[world.dataset.pk, drawn.pk])).content.decode()
        assert "You looked at the counts" in html
        assert not Claim.objects.filter(user=world.people["manager"]).exists()

    def test_figures_of_an_open_sample_are_nowhere_on_the_list(self, client, sample):
        world, drawn = sample
        client.force_login(world.people["manager"])
        html = client.get(reverse("reviews:spot", args=[world.dataset.pk])).content.decode()
        assert "unknown" in html
        assert not re.search(r"\d %\s*\[", html)


def test_a_decision_and_the_next_card_take_the_same_statements_whatever_the_size(client, make_world):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    counts = []
    for size in (5, 400):
        world = make_world([0.3] * size, name=f"Size {size}")
        client.force_login(world.people["reviewer"])
        page(client, world)
        for item in world.items[:2]:  # the first request of a process also loads content types and the like
            with CaptureQueriesContext(connection) as captured:
                client.post(decide_url(world, item), {"label": world.labels[0].pk}, headers=HTMX)
        counts.append(len(captured))
    assert counts[0] == counts[1]
    assert counts[0] <= 34, "savepoints of the test included"
