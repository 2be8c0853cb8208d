"""One line per log record: UTC time, level, logger, message. No control characters, no keys, no item texts."""

import logging
import re
import time
import traceback

from django.apps import apps
from django.conf import settings

LONGEST_REASON = 200  # characters of an exception's own words: what follows may quote data
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ONE_TIME_LINK = re.compile(r"(/(?:welcome|invite|signin)/)[^/\s'\"]+")


class OneLine(logging.Formatter):
    """Formats a record as a single line that no logged value can break, colour or forge."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break at its end."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {_reason(record.exc_info[1])}"
        message = _without_keys(message)
        message = _ONE_TIME_LINK.sub(r"\1[link]", message)
        line = f"{self.formatTime(record)} {record.levelname} {record.name} {message}"
        return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def _without_keys(text: str) -> str:
    if apps.models_ready:
        from datasets.model_settings import redact  # it knows those that are stored, too

        return redact(text)
    return text.replace(settings.ANTHROPIC_API_KEY, "[key]") if settings.ANTHROPIC_API_KEY else text


def _reason(error: BaseException) -> str:
    """Say what went wrong and where; only the first line of its words, since databases quote rows below it."""
    words = _without_keys(str(error)).partition("\n")[0][
        :LONGEST_REASON
    ]  # a key that is cut is still half a key
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{type(error).__name__}: {words} [{where}]" + (f" from {_reason(cause)}" if cause else "")
