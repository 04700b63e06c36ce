"""Winners of the tuner on disk: a file for each, so that two processes that write at once write two files or the same.

A file is written beside its place and renamed into it, which is atomic. One that cannot be read, or is of another key
or format, counts as not there: a log line says so, and the next winner replaces it.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Key:
    """What a winner holds for."""

    device: str
    op: str
    shape: str
    version: str

    @property
    def file_name(self) -> str:
        digest = hashlib.sha256("\n".join(asdict(self).values()).encode()).hexdigest()
        return f"{self.op}-{digest[:24]}.json"


@cache
def version() -> str:
    """Of this package and of torch, either of which may change what is fastest."""
    return f"{_version('ase-fastchgnet')}, torch {_version('torch')}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from a folder on the path"


def folder() -> Path:
    """Where this user's winners lie; in ~/.cache where the kernels are used without what the package installs."""
    try:
        import platformdirs
    except ImportError:
        return Path.home() / ".cache" / "fastchgnet" / "tuned"
    return Path(platformdirs.user_cache_dir("fastchgnet")) / "tuned"


def load(key: Key, where: Path | None = None) -> Any | None:
    """The winner of `key` as JSON holds it, or None."""
    path = (where or folder()) / key.file_name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["key"] != asdict(key):
            raise ValueError(f"format {content['format']}, key {content['key']}")
        return content["winner"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s holds no winner of this version for %s %s (%s); it is not used", path, key.op, key.shape, error)
        return None


def save(key: Key, winner: Any, where: Path | None = None) -> Path | None:
    """Writes the winner and returns its file; where that is not possible, None and a log line."""
    path = (where or folder()) / key.file_name
    content = json.dumps({"format": FORMAT, "key": asdict(key), "winner": winner}, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.warning("the tuner's result could not be kept in %s: %s", path, error)
        return None
    return path
