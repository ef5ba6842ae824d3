"""Files that gzip has packed, such as NAME.jsonl.gz, as what is in them."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

SUFFIX = ".gz"


def is_packed(path: Path) -> bool:
    """Whether the file's name says so."""
    return path.suffix.lower() == SUFFIX


def inner(path: Path) -> Path:
    """The name of what is in a file: NAME.jsonl of NAME.jsonl.gz, and that of any other as it is."""
    return path.with_suffix("") if is_packed(path) else path


@contextmanager
def unpacked(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """The bytes in an open file of this name, unpacked as they are read; those of one that is not packed as they are.

    Raises:
        ValueError: within, where what is read is not gzip, or damaged.
    """
    if not is_packed(path):
        yield file
        return
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as within:
            yield cast(BinaryIO, within)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not gzip, as its name says, or damaged: {error}.") from error
