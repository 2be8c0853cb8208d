"""Django settings, read once from the environment and from the file `.env` beside manage.py.

Every variable that people may set is named in KNOWN and explained in `.env.example`. A name or a value
that makes no sense stops the start with one sentence.
"""

import difflib
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from labelhub import embedded

BASE_DIR = Path(__file__).resolve().parent.parent
KNOWN = frozenset(
    "LABELHUB_HOME LABELHUB_URL LABELHUB_PORT LABELHUB_WORKERS LABELHUB_MAX_UPLOAD_MB LABELHUB_MODEL LABELHUB_DEBUG "
    "DATABASE_URL TEST_DATABASE_URL REDIS_URL ANTHROPIC_API_KEY ANTHROPIC_BASE_URL".split()
)
FOR_TESTS_ONLY = frozenset({"LABELHUB_BROWSER_TESTS"})
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

environ.Env.read_env(BASE_DIR / ".env")  # what the environment says already wins


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def _whole(name: str, default: int, low: int, high: int) -> int:
    value = _text(name, str(default))
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise ImproperlyConfigured(f"{name} must be a whole number from {low:,} to {high:,}, not {value!r}.")
    return int(value)


def _address(name: str, default: str) -> str:
    """Return a web address without a path; raise if it is none."""
    value = _text(name, default).rstrip("/")
    try:
        parts = urlsplit(value)
        sound = (
            parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        )
        bare = not (parts.path or parts.query or parts.fragment or parts.username)
    except ValueError:
        sound = bare = False
    if not (sound and bare):
        raise ImproperlyConfigured(
            f"{name} must be an address such as https://labels.example.org, not {value!r}."
        )
    return value


def _refuse_unknown_names() -> None:
    for name in sorted(os.environ):
        if name.startswith("LABELHUB_") and name not in KNOWN | FOR_TESTS_ONLY:
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"did you mean {near[0]}?" if near else ".env.example lists those there are."
            raise ImproperlyConfigured(f"{name} is no setting of LabelHub; {hint}")


def _home() -> Path:
    home = BASE_DIR / Path(_text("LABELHUB_HOME", "var")).expanduser()
    try:
        for folder in (home, home / "uploads", home / "static"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"LABELHUB_HOME, {home}, cannot be used: {error.strerror}.") from error
    return home.resolve()


def _secret_key(path: Path) -> str:
    """Return the key that signs sessions; make it at the first start. Two processes may start at once."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(64))
        try:
            os.link(draft, path)  # unlike a rename, this fails if another process was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    key = path.read_text().strip()
    if len(key) < 50 or len(set(key)) < 5:
        raise ImproperlyConfigured(
            f"The secret key in {path} is too short to be safe: delete the file to get a new one."
        )
    return key


def _database(url: str) -> dict[str, Any]:
    if not url:
        url = f"sqlite:///{LABELHUB_HOME / 'labelhub.sqlite3'}"
    scheme = url.partition("://")[0]
    if scheme in ("postgres", "postgresql"):
        try:
            found: dict[str, Any] = environ.Env.db_url_config(url)
        except ValueError as error:
            raise ImproperlyConfigured(f"DATABASE_URL cannot be read: {error}.") from error
        # A worker that was stopped inside a transaction must not hold its rows for ever.
        options = {"options": "-c idle_in_transaction_session_timeout=60000"}
        return found | {
            "CONN_MAX_AGE": 600,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": options | found.get("OPTIONS", {}),
        }
    if scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": url.removeprefix("sqlite:///"),
            "CONN_MAX_AGE": 600,  # opening one costs more than most requests
            "OPTIONS": {
                # A transaction that reads and then writes would fail at once under DEFERRED, whatever the timeout.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA mmap_size=134217728;"
                "PRAGMA journal_size_limit=27103364;PRAGMA cache_size=-65536;PRAGMA temp_store=MEMORY",
            },
            # A file, as in production: in memory there is neither WAL nor a second connection.
            "TEST": {"NAME": str(LABELHUB_HOME / "test.sqlite3")},
        }
    raise ImproperlyConfigured(f"DATABASE_URL must begin with postgres:// or sqlite:///, not {scheme!r}.")


def _redis_url() -> str:
    value = _text("REDIS_URL")
    if value and value.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise ImproperlyConfigured("REDIS_URL must begin with redis://, rediss:// or unix://.")
    return value


def _anthropic_base_url() -> str:
    value = _text("ANTHROPIC_BASE_URL")
    parts = urlsplit(value)
    if value and parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ImproperlyConfigured("ANTHROPIC_BASE_URL must be https: the key and the texts are sent there.")
    return value


_refuse_unknown_names()
LABELHUB_HOME = _home()
LABELHUB_PORT = _whole("LABELHUB_PORT", 8000, 1, 65535)
LABELHUB_URL = _address("LABELHUB_URL", f"http://127.0.0.1:{LABELHUB_PORT}")
LABELHUB_WORKERS = _whole("LABELHUB_WORKERS", 2, 0, 64)
LABELHUB_MAX_UPLOAD_MB = _whole("LABELHUB_MAX_UPLOAD_MB", 1024, 1, 1_000_000)
LABELHUB_MODEL = _text("LABELHUB_MODEL", "claude-haiku-5-5")
ANTHROPIC_API_KEY = _text("ANTHROPIC_API_KEY")
ANTHROPIC_BASE_URL = _anthropic_base_url()
DEBUG = bool(_whole("LABELHUB_DEBUG", 0, 0, 1))
SECRET_KEY = _secret_key(LABELHUB_HOME / "secret_key")

# The public address decides who may ask, and whether cookies need a secure channel.
_public = urlsplit(LABELHUB_URL)
_https = _public.scheme == "https"
_host = f"[{_public.hostname}]" if ":" in str(_public.hostname) else str(_public.hostname)
ALLOWED_HOSTS = [_host, *LOOPBACK]
CSRF_TRUSTED_ORIGINS = [LABELHUB_URL]
SESSION_COOKIE_NAME = "__Host-labelhub_session" if _https else "labelhub_session"
CSRF_COOKIE_NAME = "__Host-labelhub_csrf" if _https else "labelhub_csrf"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = _https
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
if _https:  # a proxy ends TLS and says so; LabelHub itself listens on loopback
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if _https else 0
# Whether other hosts of the domain speak https, and browsers preload it, is its owner's to say, not ours.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

INSTALLED_APPS = [
    "labelhub",
    "datasets",
    "reviews",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_rq",
]
MIDDLEWARE = [
    "labelhub.middleware.ResponseHeaders",  # first, so that errors and static files carry them too
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "labelhub.middleware.UploadLimit",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "labelhub.urls"
WSGI_APPLICATION = "labelhub.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": _database(_text("DATABASE_URL"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

EMBEDDED_REDIS = not _redis_url()  # then `up` starts a server, and all other commands find it at its socket
REDIS_URL = _redis_url() or embedded.url(LABELHUB_HOME)
# JSON, since whoever can write a pickle to Redis can run code here.
RQ_QUEUES = {"default": {"URL": REDIS_URL, "DEFAULT_TIMEOUT": 180, "SERIALIZER": "json"}}
RQ = {"COMMIT_MODE": "on_db_commit"}
RQ_SHOW_ADMIN_LINK = False

STATIC_URL = "/static/"
STATIC_ROOT = LABELHUB_HOME / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder"
]  # ours only, no third-party pages
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "labelhub.staticfiles.HashedFiles"},
}
WHITENOISE_USE_FINDERS = DEBUG or not (STATIC_ROOT / "staticfiles.json").exists()
WHITENOISE_ALLOW_ALL_ORIGINS = False

# Uploads are read from disk by a process with a memory limit, so they always become files, never memory.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
FILE_UPLOAD_TEMP_DIR = LABELHUB_HOME / "uploads"
FILE_UPLOAD_PERMISSIONS = 0o600
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000

LOGIN_URL = "/signin/"
LOGIN_REDIRECT_URL = "/"
PASSWORD_RESET_TIMEOUT = 7 * 24 * 3600  # seconds that a one-time sign-in link works
CSRF_FAILURE_VIEW = "labelhub.views.csrf_failure"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
SESSION_ENGINE = "django.contrib.sessions.backends.db"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "labelhub.logs.OneLine"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        "rq": {"level": "WARNING"},
        "rq.worker": {"level": "WARNING"},
        # Below this they write down requests, and with them texts of people.
        "anthropic": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "httpcore2": {"level": "WARNING"},
    },
}
