"""What compilers made of sources, kept in the temporary folder by its content: each is compiled once a machine."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def folder(*key: str) -> Path:
    """A folder of this user's alone for what depends on all of the key."""
    root = Path(tempfile.gettempdir()) / f"mlx-embed-metal-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to somebody else.")
    found = root / digest(*key)
    found.mkdir(exist_ok=True)
    return found


def text(key: tuple[str, ...], source: str, make: Callable[[], str]) -> str:
    """What `make` says of the source, remembered."""
    file = folder(*key) / f"{digest(source)}.txt"
    if not file.exists():
        new = file.with_suffix(f".{os.getpid()}")
        new.write_text(make())
        new.replace(file)
    return file.read_text()


def digest(*parts: str) -> str:
    """A name for these texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
