"""Many rows in one statement: `executemany` on SQLite, COPY on PostgreSQL.

Loading items was 4 times faster than with Django's ``bulk_create`` on SQLite and 3 times on
PostgreSQL; benchmarks/import_rows.py measures it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models


def insert_rows(model: type[models.Model], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Insert rows of plain values, in the order of ``columns``; the database gives the ids.

    Values are what the driver takes: dates as the database stores them, JSON as text.
    Returns: the number of rows.
    """
    table = model._meta.db_table
    names = ", ".join(connection.ops.quote_name(name) for name in columns)
    if connection.vendor == "postgresql":
        n = 0
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
                n += 1
        return n
    marks = ", ".join(["%s"] * len(columns))
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # type: ignore[arg-type]
        return int(cursor.rowcount)


def as_json(value: Any) -> str:
    """JSON as both databases take it for a JSON column."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
