"""The files below a folder that are to be indexed, and what is left out, and why."""

import errno
import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlx_embed import packed
from mlx_embed.arguments import path_of, require_list
from mlx_embed.index.documents import BINARY_KINDS, kind_of
from mlx_embed.index.entries import FileStat
from mlx_embed.index.ignored import Ignored
from mlx_embed.index.patterns import Patterns

# A zero byte among so many first bytes means that a file is no text, as for git and grep.
_LOOKED_AT = 8192
# Bytes of a file that is read whole, packed or not.
MAX_BYTES = 2**28
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Nanoseconds: a file that was changed just before it was read may be changed again at the same tick of its clock.
_TICK = 2 * 10**9


class MissingSourceError(ValueError):
    """A source that is not there."""


class BinaryError(ValueError):
    """A file that holds no text."""


@dataclass(frozen=True)
class Found:
    """A file that is to be indexed.

    Attributes:
        path: absolute, with "/" between folders: what the index calls it.
        size: bytes.
        changed_ns: when its bytes or its name were changed last: see `changed`.
    """

    path: str
    size: int
    changed_ns: int


@dataclass
class Walk:
    """What a walk over sources has come by.

    Attributes:
        left_out: how many files and folders were left out, by the reason: "hidden", "ignored", "link", "special".
        failed: files and folders that could not be read, and why.
        unread: folders whose files are not known for that reason; what an index has of them is to be kept.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def roots(sources: Iterable[str | Path]) -> list[Path]:
    """The absolute paths of folders and files to index, without those that are inside of others.

    Raises:
        MissingSourceError: one that is not there: nothing of an index is taken for removed by a mistake.
        ValueError: none at all, or "".
        TypeError: something that is no path.
    """
    found = []
    require_list("folders", sources)
    for source in sources:
        path = path_of("source", source).resolve()
        if not path.exists():
            raise MissingSourceError(f"There is no folder or file {source}.")
        found.append(path)
    if not found:
        raise ValueError("There is no source: name a folder or a file.")
    return sorted({path for path in found if not any(other in path.parents for other in found)})


def walk(roots: Sequence[Path], globs: Sequence[str], but: Callable[[Path], bool], seen: Walk) -> Iterator[Found]:
    """The files below `roots`, in order; `seen` gets what is left out or cannot be read.

    No link is followed, so nothing from outside a source comes in. What a name or a .gitignore hides is left out. A
    root that is a file is always taken.

    Args:
        roots: of the function of this name.
        globs: patterns in .gitignore's language, of which a file must match one; none take all.
        but: folders that are not entered, such as the index itself.
        seen: is filled.

    Raises:
        MissingSourceError: a root that was there is gone.
    """
    wanted = Patterns(globs) if globs else None
    for root in roots:
        try:
            state = root.stat()
        except FileNotFoundError as error:
            raise MissingSourceError(f"There is no folder or file {root} any more.") from error
        if stat.S_ISDIR(state.st_mode):
            yield from _below(root, root, Ignored(root), wanted, but, seen)
        else:
            yield _found(root, state)


def read(found: Found) -> tuple[bytes, FileStat]:
    """A file's bytes, unpacked, and its state at that time.

    Raises:
        BinaryError: no text, and no kind of file that is read in another way.
        ValueError: too large, or damaged.
        OSError: it cannot be read, has become a link, or changes while it is read.
    """
    path = Path(found.path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "it is no file any more", found.path)
        if before.st_size > MAX_BYTES:
            raise ValueError(f"{path} has {before.st_size >> 20} MiB; files of up to {MAX_BYTES >> 20} MiB are read.")
        with packed.unpacked(file, path) as within:
            data = within.read(_LOOKED_AT)
            if b"\0" in data and kind_of(path) not in BINARY_KINDS and not data.startswith(_UTF_16):
                raise BinaryError(f"{path} is no text.")
            data += within.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES and packed.is_packed(path):
            raise ValueError(f"{path} has more than {MAX_BYTES >> 20} MiB when it is unpacked, which are read at most.")
        size = file.tell()
        after = os.fstat(descriptor)
    if (size, changed(before)) != (after.st_size, changed(after)):
        raise OSError(errno.EAGAIN, "it was changed while it was read", found.path)
    settled = time.time_ns() - changed(after) > _TICK
    return data, FileStat(size, changed(after) if settled else 0, hashlib.sha256(data).hexdigest())


def changed(state: os.stat_result) -> int:
    """The later of the times that a file's bytes and its entry were changed, in nanoseconds.

    The time of the bytes alone can be set back, as tar, rsync and a renaming over the file do.
    """
    return max(state.st_mtime_ns, state.st_ctime_ns)


def _below(
    folder: Path, root: Path, ignored: Ignored, wanted: Patterns | None, but: Callable[[Path], bool], seen: Walk
) -> Iterator[Found]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        left = [
            entry.name.startswith(".") or ignored(Path(entry.path), is_folder=_is_folder(entry)) for entry in entries
        ]
    except OSError as error:
        seen.failed.append((str(folder), _reason(error)))
        seen.unread.append(str(folder))
        return
    for entry, out in zip(entries, left, strict=True):
        path = Path(entry.path)
        if out:
            seen.left_out["hidden" if _is_hidden(entry) else "ignored"] += 1
        elif entry.is_symlink():
            seen.left_out["link"] += 1
        elif _is_folder(entry):
            if not but(path):
                yield from _below(path, root, ignored, wanted, but, seen)
        elif wanted is not None and not wanted.takes(path.relative_to(root).as_posix()):
            continue
        elif not entry.is_file(follow_symlinks=False):
            seen.left_out["special"] += 1
        else:
            try:
                path.as_posix().encode()
                yield _found(path, entry.stat(follow_symlinks=False))
            except FileNotFoundError:  # removed since the folder was listed
                continue
            except OSError as error:
                seen.failed.append((str(path), _reason(error)))
            except UnicodeEncodeError:
                seen.failed.append((ascii(str(path)), "its name is not UTF-8"))


def _is_hidden(entry: "os.DirEntry[str]") -> bool:
    return entry.name.startswith(".")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _found(path: Path, state: os.stat_result) -> Found:
    return Found(path.as_posix(), state.st_size, changed(state))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
