"""Settings come from the environment; what makes no sense stops the start with one sentence."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.conf import settings

from labelhub.settings import _secret_key

ROOT = Path(__file__).parent.parent


def manage(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    env = os.environ | {"LABELHUB_HOME": str(home), "DJANGO_SETTINGS_MODULE": "labelhub.settings"} | more
    return subprocess.run(
        [sys.executable, "manage.py", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


def shown(home: Path, expression: str, **more: str) -> str:
    code = f"from django.conf import settings; print({expression})"
    env = os.environ | {"LABELHUB_HOME": str(home), "DJANGO_SETTINGS_MODULE": "labelhub.settings"} | more
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LABELHUB_PROT", "1", "LABELHUB_PROT is no setting of LabelHub; did you mean LABELHUB_PORT?"),
        ("LABELHUB_PORT", "80a", "LABELHUB_PORT must be a whole number from 1 to 65,535, not '80a'."),
        ("LABELHUB_PORT", "0", "LABELHUB_PORT must be a whole number from 1 to 65,535, not '0'."),
        ("LABELHUB_WORKERS", "-1", "LABELHUB_WORKERS must be a whole number from 0 to 64, not '-1'."),
        ("LABELHUB_MAX_UPLOAD_MB", "1.5", "LABELHUB_MAX_UPLOAD_MB must be a whole number from 1 to 1,000,000, not '1.5'."),
        ("LABELHUB_DEBUG", "yes", "LABELHUB_DEBUG must be a whole number from 0 to 1, not 'yes'."),
        ("LABELHUB_URL", "labels.example.org", "LABELHUB_URL must be an address such as https://labels.example.org, not 'labels.example.org'."),
        ("LABELHUB_URL", "https://a.org/x", "LABELHUB_URL must be an address such as https://labels.example.org, not 'https://a.org/x'."),
        ("LABELHUB_URL", "http://a.org:99999", "LABELHUB_URL must be an address such as https://labels.example.org, not 'http://a.org:99999'."),
        ("DATABASE_URL", "mysql://a/b", "DATABASE_URL must begin with postgres:// or sqlite:///, not 'mysql'."),
        ("REDIS_URL", "localhost:6379", "REDIS_URL must begin with redis://, rediss:// or unix://."),
        ("ANTHROPIC_BASE_URL", "http://a.org", "ANTHROPIC_BASE_URL must be https: the key and the texts are sent there."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["up", "migrate"])
def test_a_mistake_is_one_sentence_and_exit_code_1(tmp_path, name, value, sentence, command):
    answer = manage(tmp_path, command, **{name: value})
    assert answer.returncode == 1
    assert answer.stderr.strip() == sentence


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    answer = manage(tmp_path / "file" / "home", "up")
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"LABELHUB_HOME, {tmp_path}/file/home, cannot be used: Not a directory."


def test_the_secret_key_is_made_once_and_for_us_alone(tmp_path):
    first = shown(tmp_path, "settings.SECRET_KEY")
    assert len(first) >= 64
    assert shown(tmp_path, "settings.SECRET_KEY") == first
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    assert shown(tmp_path / "other", "settings.SECRET_KEY") != first


def test_processes_that_start_together_agree_on_the_secret_key(tmp_path):
    path, found, ready = tmp_path / "secret_key", [], threading.Barrier(16)

    def read() -> None:
        ready.wait()
        found.append(_secret_key(path))

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


@pytest.mark.parametrize("key", ["short", "a" * 80, ""])
def test_a_weak_secret_key_is_refused(tmp_path, key):
    (tmp_path / "secret_key").write_text(key)
    answer = manage(tmp_path, "up")
    assert answer.returncode == 1
    assert answer.stderr.strip().endswith("is too short to be safe: delete the file to get a new one.")


def test_https_switches_secure_cookies_and_hsts_on(tmp_path):
    values = "[settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, " \
        "settings.CSRF_COOKIE_SECURE, settings.SECURE_HSTS_SECONDS > 0, settings.ALLOWED_HOSTS[0]]"  # fmt: skip
    secure = shown(tmp_path, values, LABELHUB_URL="https://labels.example.org/")
    assert (
        secure
        == "['__Host-labelhub_session', '__Host-labelhub_csrf', True, True, True, 'labels.example.org']"
    )
    assert (
        shown(tmp_path, values) == "['labelhub_session', 'labelhub_csrf', False, False, False, '127.0.0.1']"
    )


def test_production_settings_pass_the_deployment_check(tmp_path, monkeypatch):
    monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE")
    answer = manage(
        tmp_path, "check", "--deploy", "--fail-level", "WARNING", LABELHUB_URL="https://labels.example.org"
    )
    assert answer.returncode == 0, answer.stderr


def test_no_host_is_allowed_but_the_public_one_and_loopback(tmp_path):
    hosts = shown(tmp_path, "settings.ALLOWED_HOSTS", LABELHUB_URL="http://[fd00::1]:8000")
    assert hosts == "['[fd00::1]', '127.0.0.1', 'localhost', '[::1]']"


def test_a_relative_data_folder_does_not_depend_on_where_a_command_starts(tmp_path):
    code = "from django.conf import settings; print(settings.LABELHUB_HOME)"
    env = os.environ | {
        "LABELHUB_HOME": "",
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "labelhub.settings",
    }
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(ROOT / "var")


def test_nothing_of_a_developer_reaches_a_test():
    assert settings.ANTHROPIC_API_KEY == ""
    assert settings.EMBEDDED_REDIS
    assert not settings.DEBUG
    assert "labelhub-" in str(settings.LABELHUB_HOME)


def test_sqlite_and_the_queue_are_set_up_as_the_measurements_say(tmp_path):
    options = shown(tmp_path, "settings.DATABASES['default']['OPTIONS']['transaction_mode']", DATABASE_URL="")
    assert options == "IMMEDIATE"
    assert shown(tmp_path, "settings.RQ_QUEUES['default']['SERIALIZER']") == "json"
    assert shown(tmp_path, "settings.RQ['COMMIT_MODE']") == "on_db_commit"
