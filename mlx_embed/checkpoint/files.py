"""One file of a checkpoint: there, absent, or a link to nothing; and JSON, which must be an object."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_embed.arguments import type_name
from mlx_embed.errors import CheckpointError

# Bytes. The longest file of JSON that is read here, an index of shards, has some hundred kilobytes.
MAX_JSON = 50_000_000


def present(path: Path) -> bool:
    """Whether a checkpoint has this file; CheckpointError where it is a link to nothing, or no file.

    The hub's cache keeps links to files that lie elsewhere. Where such a file is gone, the checkpoint did have it, and
    what it says must not be taken for absent.
    """
    # os.path takes a name that no file can have for an absent file, where Path's methods fail.
    if os.path.isfile(path):
        return True
    if not os.path.lexists(path):
        return False
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"{path} is a link to {os.readlink(path)}, which is missing; download the checkpoint again."
        )
    if path.exists():
        raise CheckpointError(f"{path} is no file; a checkpoint has a file of this name, or nothing.")
    return False


def optional_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, as `read_json`; an empty one where there is no such file."""
    return read_json(path) if present(path) else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError where it is missing, no JSON, or no object."""
    if not present(path):
        raise CheckpointError(f"{path} is missing; a checkpoint folder needs it.")
    if path.stat().st_size > MAX_JSON:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, too many for JSON; download it again.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download the checkpoint again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type_name(value)}, where a JSON object is needed.")
    return value


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# What says how a model computes: weights, settings, vocabularies. Not, for example, a README.
_DECIDING = (".safetensors", ".json", ".jinja", ".metadata", ".model", ".txt")
# Of a file of weights so many pieces, of so many bytes, are read to know it again.
_PIECES, _PIECE = 64, 4096


def state(*folders: Path) -> str:
    """By which a change of a model is seen: a hash of the names, sizes and times of the files in its folders."""
    import hashlib

    found = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in _deciding(folders)]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def fingerprint(*folders: Path) -> str:
    """By which a model is known wherever its files lie: a hash of their names and bytes, of weights of some of them."""
    import hashlib

    digest = hashlib.sha256()
    for name, path in _deciding(folders):
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        step = max(size // _PIECES, _PIECE) if path.suffix == ".safetensors" else _PIECE
        with path.open("rb") as file:
            for place in range(0, size, step):
                file.seek(place)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()[:16]


def _deciding(folders: Iterable[Path]) -> list[tuple[str, Path]]:
    """The files in a model's folders that say how it computes, and their names there, in order.

    Hidden files and folders are left out: an interrupted run keeps its state in some, and the hub's client the time of
    each download.
    """
    found = (
        (number, path.relative_to(folder), path) for number, folder in enumerate(folders) for path in folder.rglob("*")
    )
    return sorted(
        (f"{number} {place.as_posix()}", path)
        for number, place, path in found
        if path.suffix in _DECIDING and not any(part[0] == "." for part in place.parts) and path.is_file()
    )
