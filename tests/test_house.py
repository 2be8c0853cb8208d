"""The house rules that no other tool checks: sizes, names, doors, vendored files, documented settings, safe pages."""

import ast
import base64
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from labelhub.settings import KNOWN

ROOT = Path(__file__).parent.parent
CODE = ("labelhub", "reviews", "datasets", "benchmarks", "tests", "static", "templates")
LONGEST_FILE = 400  # lines
BANNED_ROOMS = {"utils", "util", "helpers", "helper", "services", "common", "misc"}
# One door per library: the only files that import it, so that its errors become ours in one place.
DOORS = {
    "anthropic": {"labelhub/autolabel/labelers/llm.py"},
    "pandas": {"labelhub/autolabel/columns.py"},
    "django_rq": {"datasets/tasks.py"},
    "rq": {"labelhub/worker.py"},
    "granian": {"labelhub/serve.py"},
}


def files(*endings: str, folders: tuple[str, ...] = CODE) -> list[Path]:
    """Source files of ours with these endings, as paths below the root."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in endings]
    ours = [path.relative_to(ROOT) for path in found if "vendor" not in path.parts]
    return sorted(path for path in ours if "__pycache__" not in path.parts)


def imports(path: Path) -> set[str]:
    """Top-level packages that a Python file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


class TestRooms:
    def test_no_file_is_longer_than_a_person_reads_at_once(self):
        code = [path for path in files(".py", ".js", ".css", ".html") if "migrations" not in path.parts]
        lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in code}
        assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}

    def test_every_file_is_named_after_a_step(self):
        assert [str(path) for path in files(".py", ".js") if path.stem.lower() in BANNED_ROOMS] == []

    @pytest.mark.parametrize("library", DOORS)
    def test_a_library_has_one_door(self, library):
        code = files(".py", folders=("labelhub", "reviews", "datasets"))
        through = {path.as_posix() for path in code if library in imports(path)}
        assert through <= DOORS[library]

    def test_migrations_have_names(self):
        names = [path.name for path in files(".py", folders=("datasets/migrations", "reviews/migrations"))]
        assert any(re.fullmatch(r"\d{4}_\w+\.py", name) for name in names)
        assert [name for name in names if "_auto_" in name] == []


class TestVendored:
    LISTED = json.loads((ROOT / "static/vendor/vendor.json").read_text())

    @pytest.mark.parametrize("entry", LISTED, ids=lambda entry: entry["name"])
    def test_it_is_the_file_that_was_reviewed(self, entry):
        digest = hashlib.sha384((ROOT / entry["file"]).read_bytes()).digest()
        assert entry["sha384"] == f"sha384-{base64.b64encode(digest).decode()}"
        assert entry.keys() == {"name", "version", "licence", "file", "sha384"}
        assert all(entry.values())

    def test_nothing_is_vendored_unlisted(self):
        folders = ROOT / "static/vendor", ROOT / "tests/browser/vendor"
        found = {
            path.relative_to(ROOT).as_posix()
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        }
        found |= {f"static/fonts/{path.name}" for path in (ROOT / "static/fonts").glob("*.woff2")}
        assert (
            found - {"static/vendor/vendor.json"}
            == {entry["file"] for entry in self.LISTED}
            - {
                "static/icons.svg"  # put together from a vendored package: its hash says when it was last looked at
            }
        )


class TestDocumentation:
    @pytest.mark.parametrize("document", [".env.example", "README.md"])
    def test_every_setting_is_documented(self, document):
        text = (ROOT / document).read_text()
        assert {name for name in KNOWN if not re.search(rf"\b{name}\b", text)} == set()

    def test_the_example_names_no_other_setting(self):
        named = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
        assert sorted(named) == sorted(KNOWN)

    def test_the_lock_files_have_hashes_and_no_index(self):
        for name in ("requirements.txt", "requirements-dev.txt"):
            text = (ROOT / name).read_text()
            assert not re.search(r"https?://|--(extra-)?index|--find-links|file:", text)
            entries = re.split(r"\n(?=\S)", text.strip())
            assert len(entries) > 50
            assert [entry for entry in entries if "--hash=sha256:" not in entry] == []

    def test_the_developers_lock_agrees_with_the_other(self):
        def pins(name: str) -> set[str]:
            return set(re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))

        assert pins("requirements.txt") <= pins("requirements-dev.txt")


class TestPages:
    """What a strict Content-Security-Policy would break, and what would let data become markup."""

    FORBIDDEN = {
        "an inline style": r"<style\b|\sstyle\s*=",
        "an inline script": r"<script(?![^>]*\bsrc=)(?![^>]*\btype=\"application/json\")",
        "an inline handler": r"\son[a-z]+\s*=|hx-on",
        "evaluated attributes": r"\bjs:|javascript:",
        "another server": r"(?:src|href)\s*=\s*[\"'](?:https?:)?//",
        "data as markup": r"\|\s*safe\b|autoescape\s+off",
    }

    def test_every_icon_is_in_the_sprite(self):
        sprite = set(re.findall(r'symbol id="([^"]+)"', (ROOT / "static/icons.svg").read_text()))
        used = {
            name
            for path in files(".html", folders=("templates",))
            for name in re.findall(r'_icon\.html" with name="([^"]+)"', (ROOT / path).read_text())
        }
        assert used - sprite == set()

    @pytest.mark.parametrize("what", FORBIDDEN)
    def test_no_template_has(self, what):
        pattern = re.compile(self.FORBIDDEN[what], re.IGNORECASE)
        pages = files(".html", folders=("templates",))
        assert {str(path) for path in pages if pattern.search((ROOT / path).read_text())} == set()

    def test_no_code_turns_data_into_markup(self):
        pattern = re.compile(
            r"mark_safe|SafeString|innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\("
        )
        code = files(".py", ".js", folders=("labelhub", "reviews", "datasets", "static"))
        assert {str(path) for path in code if pattern.search((ROOT / path).read_text())} == set()

    def test_the_server_fetches_no_address(self):
        asks = {"requests", "httpx", "urllib3", "aiohttp"}
        code = files(".py", folders=("labelhub", "reviews", "datasets"))
        assert {str(path) for path in code if asks & imports(path)} == set()


def test_the_repository_holds_no_secret():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines()
    assert [
        name for name in names if re.search(r"(^|/)(\.env|secret_key|.*\.sqlite3.*|.*\.pem)$", name)
    ] == []
