"""The savings page as people get it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from datasets.models import Dataset, Label, Membership
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import decisions, metrics, samples, thresholds
from tests.reviews.scenario import count_statements
from tests.reviews.test_metrics import answer_all, draw_calibration

pytestmark = pytest.mark.django_db


class Cells(HTMLParser):
    """The text of every table cell, tile note and fact of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td" or (tag == "div" and ("class", "tile") in attrs) or (tag == "dd" and not self._open):
            self._open.append(tag)
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells[-1] += data + " "


def get(client, world, who: str = "manager", **query: str):
    client.force_login(world.people[who])
    return client.get(f"/d/{world.dataset.pk}/savings/", query)


def checked_world(make_world, **fields):
    world = make_world([0.99, 0.95, 0.9, 0.88] * 60 + [0.6, 0.4] * 20, **fields)
    for item in world.items[240:250]:
        decisions.decide(item, world.people["reviewer"], "label", world.labels[0], seconds=4)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"], wrong=1)
    return world


def test_no_percentage_stands_without_its_n(make_world, client) -> None:
    world = checked_world(make_world)
    page = get(client, world, t="0.5").content.decode()
    cells = [cell for cell in Cells(page).cells if "%" in cell]
    assert len(cells) > 25
    for cell in cells:
        assert re.search(r"n = [\d,]+|without an error", cell) or "unknown" in cell, cell
    assert "unknown" in page


def test_a_page_without_a_check_says_unknown_and_how_many_checks_would_help(make_world, client) -> None:
    world = make_world([0.9] * 30)
    page = get(client, world).content.decode()
    assert "59 checks without an error would show at least 95\N{NO-BREAK SPACE}%" in page
    assert "Start a spot check" in page
    accuracies = [row.accuracy for row in metrics.report(world.dataset, world.threshold).rows]
    assert set(accuracies) == {None} and page.count(">unknown<") >= len(accuracies)
    stricter = make_world([0.9] * 30, name="strict", target_error=0.01)
    assert "299 checks" in get(client, stricter).content.decode()


def test_a_dataset_without_a_run_says_so(make_world, client) -> None:
    world = make_world([])
    world.threshold.delete()
    assert "No run yet" in get(client, world).content.decode()
    client.force_login(world.people["manager"])
    assert client.post(f"/d/{world.dataset.pk}/threshold/", {"t": "0.9"}).status_code == 302


@pytest.mark.parametrize(("typed", "rank"), [("0,9", 0.9), ("90 %", 0.9), ("0.853", 0.853), ("1", 1.0)])
def test_a_typed_threshold_is_read_as_people_write_it(make_world, client, typed: str, rank: float) -> None:
    world = make_world([0.9, 0.95, 0.8] * 5)
    page = get(client, world, t=typed)
    assert page.status_code == 200
    assert page.context["typed"].rank == to_rank(rank)
    client.post(f"/d/{world.dataset.pk}/threshold/", {"t": typed})
    assert thresholds.in_force(world.dataset).rank == to_rank(rank)


@pytest.mark.parametrize("typed", ["high", "1.5", "-1", "nan", "85", "1e999"])
def test_a_senseless_threshold_is_refused_in_one_sentence(make_world, client, typed: str) -> None:
    world = make_world([0.9])
    page = get(client, world, t=typed)
    assert page.status_code == 422
    assert "A threshold is a number from 0 to 1" in page.content.decode()
    client.post(f"/d/{world.dataset.pk}/threshold/", {"t": typed})
    assert thresholds.in_force(world.dataset) == world.threshold


def test_nothing_can_be_accepted_too(make_world, client) -> None:
    world = make_world([0.9] * 4)
    client.force_login(world.people["manager"])
    client.post(f"/d/{world.dataset.pk}/threshold/", {"t": "nothing"})
    assert thresholds.in_force(world.dataset).rank == ACCEPT_NOTHING
    assert "accept nothing" in get(client, world).content.decode()


def test_slider_and_steps_work_without_a_script(make_world, client) -> None:
    world = make_world([0.9] * 4)
    assert get(client, world, t="0.85", slide="0.92", was="0.85").context["typed"].rank == to_rank(0.92)
    assert get(client, world, t="0.87", slide="0.85", was="0.85").context["typed"].rank == to_rank(0.87)
    assert get(client, world, t="0.85", slide="0.85", was="0.85", by="0.01").context["typed"].rank == to_rank(
        0.86
    )
    assert get(client, world, t="1", slide="1.00", was="1.00", by="0.01").context["typed"].rank == to_rank(1)


def test_the_preview_counts_what_would_change_and_writes_nothing(make_world, client) -> None:
    world = make_world([0.9, 0.95, 0.8, 0.5] * 5)
    client.force_login(world.people["viewer"])
    url = f"/d/{world.dataset.pk}/savings/preview"
    page = client.get(url, {"t": "0.92"}, headers={"HX-Request": "true"})
    assert page.templates[0].name == "reviews/_threshold.html"
    change = page.context["change"]
    assert (change.accepted, change.flagged, change.newly_accepted, change.newly_flagged) == (5, 15, 0, 5)
    assert "Apply" not in page.content.decode()
    assert thresholds.in_force(world.dataset) == world.threshold
    assert client.get(url, {"t": "x"}, headers={"HX-Request": "true"}).status_code == 422
    assert client.get(url, {"t": "0.92"}).url == f"/d/{world.dataset.pk}/savings/?t=0.92"


def test_preview_and_table_count_the_same_when_a_manager_was_asked(make_world, client) -> None:
    world = make_world([0.9] * 6)
    decisions.remark(world.items[0], world.people["reviewer"], "ask")
    page = get(client, world)
    assert page.context["change"].accepted == page.context["typed"].accepted == 5
    assert page.context["change"].flagged == metrics.states(world.dataset).flagged == 1


def test_a_moved_threshold_can_be_undone(make_world, client) -> None:
    world = make_world([0.9, 0.8] * 5)
    client.force_login(world.people["manager"])
    url = f"/d/{world.dataset.pk}/threshold/"
    page = client.post(url, {"t": "0.8"}, follow=True).content.decode()
    assert "5 more items are accepted" in page and "Back to 0.85" in page
    page = client.post(url, {"undo": "1"}, follow=True).content.decode()
    assert "Back to 0.85" in page
    assert thresholds.in_force(world.dataset).rank == to_rank(0.85)


def test_no_threshold_moves_while_a_sample_is_open(make_world, client) -> None:
    world = make_world([0.9] * 100)
    samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    client.force_login(world.people["manager"])
    page = client.post(f"/d/{world.dataset.pk}/threshold/", {"t": "0.9"}, follow=True).content.decode()
    assert (
        "is being answered: finish it, or discard" in page and f'href="/d/{world.dataset.pk}/spot/"' in page
    )
    assert "Apply" not in page
    assert thresholds.in_force(world.dataset) == world.threshold


def test_only_managers_move_the_threshold(make_world, client) -> None:
    world = make_world([0.9])
    for who, status in (("viewer", 200), ("reviewer", 403)):
        assert get(client, world, who).status_code == status
        assert client.post(f"/d/{world.dataset.pk}/threshold/", {"t": "0.9"}).status_code == 403


def test_the_hourly_rate_can_be_tried(make_world, client) -> None:
    world = checked_world(make_world)
    page = get(client, world, rate="60")
    assert page.context["report"].work.savings.cost_by_hand_usd == pytest.approx(
        60 * page.context["report"].work.savings.hours_by_hand
    )
    for rate in ("x", "-1", "nan", "1e9"):
        assert get(client, world, rate=rate).status_code == 422


def test_hostile_names_stay_text(make_world, client) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    world = checked_world(make_world, labels=(evil, "b"), name="evil")
    Dataset.objects.filter(pk=world.dataset.pk).update(name=evil)
    person = world.people["reviewer"]
    person.username = evil
    person.save()
    page = get(client, world).content.decode()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert Membership.objects.count() and Label.objects.filter(name=evil).exists()


def test_the_page_has_no_inline_script_or_style(make_world, client) -> None:
    page = get(client, checked_world(make_world)).content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=| defer)", page)


def test_the_charts_have_their_figures_in_words(make_world, client) -> None:
    page = get(client, checked_world(make_world)).content.decode()
    assert len(re.findall('<svg class="chart [^>]*role="img"', page)) == 3
    assert re.search(
        r"<title>0\.9: [\d,]+ of [\d,]+ accepted, [\d.]+ % right, interval .* n = \d+</title>", page
    )
    assert re.search(r"<title>From 0\.9: said 9\d %, right \d+ %, n = \d+</title>", page)
    numbers = re.findall(r'\sd="([^"]+)"', page)
    assert numbers and not any("nan" in path.lower() or "inf" in path.lower() for path in numbers)


def test_every_row_says_what_its_sample_proves_and_the_table_that_rows_do_not_hold_together(
    make_world, client
) -> None:
    world = checked_world(make_world)
    page = get(client, world)
    html = page.content.decode()
    table = html.split('id="thresholds"')[1].split("</section>")[0]
    rows = page.context["report"].rows
    proven = [f"at least {100 * row.at_least:.1f}" for row in rows if row.at_least is not None]
    assert len(proven) == 3 and re.findall(r"at least [\d.]+", table) == proven
    assert table.count("right, 95\N{NO-BREAK SPACE}% sure") == 3
    assert html.count("Not simultaneous:") == 1 and "Not simultaneous:" in table
    assert "check afresh</span>" not in table
    thresholds.move(world.dataset, to_rank(0.95), world.people["manager"])
    table = get(client, world).content.decode().split('id="thresholds"')[1].split("</table>")[0]
    current = table.split('aria-current="true"')[1].split("</tr>")[0]
    assert table.count("chosen on this sample: check afresh") == 1
    assert "chosen on this sample: check afresh" in current


def test_the_preview_says_how_large_a_fresh_check_would_have_to_be(make_world, client) -> None:
    world = checked_world(make_world)
    client.force_login(world.people["viewer"])
    url = f"/d/{world.dataset.pk}/savings/preview"
    page = client.get(url, {"t": "0.85"}, headers={"HX-Request": "true"})
    fresh = page.context["fresh"]
    assert fresh.size and f"{fresh.size} new answers" in page.content.decode()
    assert "at least" in page.content.decode()
    Dataset.objects.filter(pk=world.dataset.pk).update(target_error=0.001)
    page = client.get(url, {"t": "0.85"}, headers={"HX-Request": "true"}).content.decode()
    assert "no check could" in page and "wrong: raise the threshold" in page


def test_the_ledger_adds_up_as_it_is_read(make_world, client) -> None:
    world = checked_world(make_world, hourly_rate_usd=29.99)
    page = get(client, world).content.decode()
    ledger = page.split('id="ledger"')[1].split("</table>")[0]
    bodies = [
        [
            [
                re.sub(r"<[^>]+>|[$,h\s]", "", cell) or "0"
                for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)
            ]
            for row in re.findall(r"<tr.*?</tr>", body, re.S)
        ]
        for body in re.findall(r"<tbody.*?</tbody>", ledger, re.S)
    ]
    lines, (total, by_hand, saved) = bodies[0], bodies[1]
    for column in range(4):
        values = [float(line[column].replace("–", "0")) for line in lines]
        assert round(sum(values), 2) == float(total[column])
        if column:
            assert round(float(by_hand[column]) - float(total[column]), 2) == float(saved[column])
    assert "Language model" in ledger and "none was used" in ledger


def test_the_contents_lead_to_the_sections_and_the_answer_comes_first(make_world, client) -> None:
    page = get(client, make_world([0.9] * 4)).content.decode()
    places = re.findall(r'href="#([\w-]+)"', page.split('class="toc"')[1].split("</nav>")[0])
    assert len(places) == 6
    found = [page.index(f'id="{place}"') for place in places]
    assert found == sorted(found)
    answer = page.index("The machine labels <strong>")
    assert answer < page.index('class="tiles"') < page.index('class="toc"') < found[0]
    assert "predicted, not proven" in page


def test_the_page_asks_no_more_statements_than_before(make_world, client) -> None:
    world = checked_world(make_world)
    client.force_login(world.people["manager"])
    count = count_statements(lambda: client.get(f"/d/{world.dataset.pk}/savings/"))
    assert count <= 40  # 36 of them before it told of promises and of work by purpose


def test_a_threshold_proven_by_target_points_to_the_certificate(make_world, client) -> None:
    world = make_world([0.99, 0.9] * 60)
    sample = draw_calibration(world.dataset, world.people["manager"], 60)
    answer_all(world.dataset, sample, world.people["second"])
    thresholds.move(world.dataset, to_rank(0.9), None, sample=sample)
    page = get(client, world).content.decode()
    assert "A random sample proved the threshold" in page
    current = page.split('id="thresholds"')[1].split('aria-current="true"')[1].split("</tr>")[0]
    assert "the certificate counts" in current and "at least" not in current


def test_a_dataset_that_accepts_nothing_says_who_labels(make_world, client) -> None:
    world = make_world([0.9] * 80)
    thresholds.move(world.dataset, ACCEPT_NOTHING, world.people["manager"])
    page = get(client, world).content.decode()
    assert "Nothing is accepted unseen yet, so people label all 80 items." in page
    assert "no sample could prove this" in page


def test_enter_shows_the_typed_value_and_steps_nowhere(make_world, client) -> None:
    page = get(client, make_world([0.9])).content.decode()
    form = page.split('id="threshold"')[1].split("</form>")[0]
    assert 'name="by"' not in re.findall(r"<button[^>]*>", form)[0]
