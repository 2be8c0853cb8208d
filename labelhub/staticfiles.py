"""Scripts, styles and fonts: compressed and named by their content once `up` has collected them."""

import hashlib
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedFiles(CompressedManifestStaticFilesStorage):
    """Hands out names with hashes, and plain names where nothing was collected, as in tests."""

    manifest_strict = False

    def hashed_name(self, name: str, content: Any = None, filename: str | None = None) -> str:
        """Return the name under which a file is served."""
        if content is None and not self.exists(filename or name):
            return name
        return str(super().hashed_name(name, content, filename))


def collect() -> bool:
    """Collect and compress the static files if one of them changed; return whether that was needed."""
    root = Path(settings.STATIC_ROOT)
    done, state = root / ".collected", _fingerprint()
    if done.exists() and done.read_text() == state:
        return False
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    done.write_text(state)
    return True


def _fingerprint() -> str:
    """Digest of every source's path, size and time of change."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for path, storage in sorted(finder.list(None), key=lambda found: found[0]):
            found = Path(storage.path(path)).stat()
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
