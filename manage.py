#!/usr/bin/env python
"""The command line of LabelHub: `python manage.py up` starts everything, `python manage.py help` lists the rest."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run a command; a mistake in the settings is one sentence, not a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "labelhub.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as mistake:
        sys.exit(f"{mistake}")


if __name__ == "__main__":
    main()
