"""The roof of the house as a Django app: commands, static files, and a check that the database can do its part."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.db import connection

OLDEST_SQLITE = (3, 38, 0)  # the operator ->> and UPDATE … FROM


class LabelHubConfig(AppConfig):
    """Django's view of the package `labelhub`; it holds no models."""

    name = "labelhub"


@register("labelhub")
def check_sqlite(**_: Any) -> Sequence[CheckMessage]:
    """Say so where the SQLite that Python was built with is too old."""
    if connection.vendor != "sqlite" or sqlite3.sqlite_version_info >= OLDEST_SQLITE:
        return []
    needed = ".".join(map(str, OLDEST_SQLITE))
    return [
        Error(
            f"SQLite {needed} is needed, and this Python has {sqlite3.sqlite_version}.",
            hint="Use a newer Python, or PostgreSQL by DATABASE_URL.",
            id="labelhub.E001",
        )
    ]
