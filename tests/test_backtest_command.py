"""`manage.py backtest`: a table for people, JSON for programs, a bar for those who wait."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

DATA = Path(__file__).parent / "data"
STANCE = (DATA / "stance_gpt4o.csv", "--text", "text", "--gold", "gold")
GIVEN = (*STANCE, "--predicted", "predicted_label", "--confidence", "confidence")
QUICK = (*GIVEN, "--simple", "--sample", "400", "--floor", "0")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*words: object, out: io.StringIO, errors: io.StringIO) -> tuple[str, str]:
    call_command("backtest", *map(str, words), stdout=out, stderr=errors)
    return out.getvalue(), errors.getvalue()


def test_a_program_gets_json_and_its_user_the_table() -> None:
    out, errors = run(*QUICK, "--reps", 5, out=io.StringIO(), errors=io.StringIO())
    figures = json.loads(out)
    lines = errors.splitlines()
    assert [head.strip() for head in lines[0].split("  ") if head] == [
        "Confidence threshold", "Auto-accept rate", "Auto-accepted accuracy", "Manual work",
    ]  # fmt: skip
    assert len(figures["table"]) == 5
    for line, row in zip(lines[2:7], figures["table"], strict=True):
        accepted = round(row["auto_accept_rate"] * 2046)
        assert line.startswith(f"≥ {row['threshold']:.2f} ")
        assert f"{100 * row['auto_accept_rate']:.1f} % ({accepted:,} of 2,046)" in line
        assert (
            f"{100 * row['accuracy']:.1f} % (n = {accepted:,})" in line
            and f"({2046 - accepted:,} items)" in line
        )
    held = sum(play["certified"] for play in figures["repetitions"])
    assert f"in {held} of 5 replays: at least 95 % of 2,046 labels are right, with 95 % confidence" in errors
    assert f"{100 * figures['summary']['manual_share']:.1f} % (mean of 5 replays, from " in errors
    broken = sum(play["violation"] for play in figures["repetitions"])
    assert f"{broken} of 5 replays broke the promise" in errors and "\x1b" not in errors


def test_json_alone_is_json_alone() -> None:
    for out in (io.StringIO(), Terminal()):
        said, errors = run(*QUICK, "--json", out=out, errors=io.StringIO())
        assert set(json.loads(said)) == {"summary", "table", "repetitions"} and errors == ""


def test_a_terminal_gets_the_table_alone_and_a_bar_while_it_waits() -> None:
    out, errors = run(*QUICK, "--reps", 2, "--draws", 2, out=Terminal(), errors=Terminal())
    assert out.startswith("Confidence threshold  ") and "{" not in out and "Certified" in out
    states = errors.split("\r\x1b[K")
    assert "[" in states[1] and "repetition 1 of 2, draw 0 of 2" in states[1] and "left" not in states[1]
    assert "repetition 2 of 2, draw 0 of 2, about 0:0" in states[3]
    assert states[-1].strip() == ""  # taken away in the end


def test_a_mistake_takes_the_bar_away_and_is_one_sentence() -> None:
    errors = Terminal()
    with pytest.raises(CommandError, match="between 0 and 1"):
        run(*QUICK, "--target", "2", out=Terminal(), errors=errors)
    assert errors.getvalue().endswith("\r\x1b[K")
    with pytest.raises(CommandError, match="no column “text”"):
        run(DATA / "README.md", "--text", "text", "--gold", "gold", out=Terminal(), errors=errors)
