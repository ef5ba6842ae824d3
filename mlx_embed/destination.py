"""The folder that `convert` writes: what there may be replaced, and how it is, with no moment at which it is lost."""

import ctypes
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_embed.errors import CheckpointError

# In every folder that `convert` has written: the names of its files, since only those may be replaced.
RECORD = "mlx_embed.json"


def check_destination(target: Path, overwrite: bool) -> None:
    """Raise where `target` cannot be written, or what is there is not to be replaced.

    Raises:
        FileExistsError: something is there, and `overwrite` is not given or it is not all from an earlier `convert`.
        ValueError: a name that is not UTF-8, which neither MLX nor `tokenizers` opens.
    """
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The destination {str(target)!r} is not named in UTF-8; choose another name.") from error
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FileExistsError(f"{target} is not a folder; name another destination.")
    if not target.exists() or not any(target.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{target} is not empty; pass overwrite (--overwrite) to replace it, or name another.")
    written = _recorded(target)
    if written is None:
        raise FileExistsError(
            f"{target} has no {RECORD}, as folders that convert has written do; it will not be replaced. Move it away, "
            "or name another destination."
        )
    if foreign := sorted(_entries(target) - written):
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise FileExistsError(
            f"{target} holds {shown}, which convert has not written; it will not be replaced. Move that away, or name "
            "another destination."
        )


def record(folder: Path) -> None:
    """Write down what is in a finished folder, so that `check_destination` knows it again."""
    files = sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} | {RECORD})
    (folder / RECORD).write_text(json.dumps({"written_by": "mlx_embed.convert", "files": files}, indent=2) + "\n")


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A new folder beside `target` to write in, which is removed afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent):
        work = Path(tempfile.mkdtemp(prefix=_prefix(target, "partial"), dir=target.parent))
        held = os.open(work, os.O_RDONLY)
        _lock(held)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(held)


def restore(target: Path) -> None:
    """Put back what a run that was killed while it replaced `target` had moved away; remove what else it has left."""
    if not target.parent.is_dir():
        return
    with _locked(target.parent):
        for left in _beside(target, "replaced"):
            if not target.exists() and (left / "checkpoint").is_dir():
                os.rename(left / "checkpoint", target)
            shutil.rmtree(left, ignore_errors=True)
        for left in _beside(target, "partial"):
            held = os.open(left, os.O_RDONLY)
            if _lock(held, fcntl.LOCK_NB):  # else a run that is alive writes there
                shutil.rmtree(left, ignore_errors=True)
            os.close(held)


def put(written: Path, target: Path) -> None:
    """Give a finished folder the place of `target`, in one step where the system can exchange two folders.

    Raises:
        CheckpointError: the system does not let it; what was there is there.
    """
    with _locked(target.parent):
        if not target.exists():
            os.rename(written, target)
            return
        if not any(target.iterdir()):
            target.rmdir()
            os.rename(written, target)
            return
        if _exchange(written, target):
            return  # what was there is now where the new one was written, and goes with that
        away = Path(tempfile.mkdtemp(prefix=_prefix(target, "replaced"), dir=target.parent))
        os.rename(target, away / "checkpoint")
        try:
            os.rename(written, target)
        except OSError as error:
            os.rename(away / "checkpoint", target)
            away.rmdir()
            raise CheckpointError(f"{target} could not be replaced: {error}") from error
        shutil.rmtree(away, ignore_errors=True)


def _prefix(target: Path, kind: str) -> str:
    return f".{target.name}.{kind}-"


def _beside(target: Path, kind: str) -> list[Path]:
    """The folders of a kind that are beside `target`, the newest first."""
    prefix = _prefix(target, kind)
    found = [path for path in target.parent.iterdir() if path.name.startswith(prefix) and path.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _recorded(folder: Path) -> set[str] | None:
    """The files of a folder that `convert` has written, and their folders; None where it has not."""
    try:
        files = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        paths = [Path(file) for file in files]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return {place.as_posix() for path in paths for place in (path, *path.parents)}


def _entries(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold off other conversions into this folder, where its file system has locks."""
    held = os.open(folder, os.O_RDONLY)
    try:
        _lock(held)
        yield
    finally:
        os.close(held)


def _lock(held: int, how: int = 0) -> bool:
    """Lock an open folder; False where somebody else has, or the file system has no locks."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | how)
    except OSError:
        return False
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places; False where the system or the file system cannot."""
    libc = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    swap = ctypes.c_uint(2)  # RENAME_SWAP of macOS, RENAME_EXCHANGE of Linux
    try:
        if sys.platform == "darwin":
            return int(libc.renamex_np(*names, swap)) == 0
        here = ctypes.c_int(-100)  # AT_FDCWD
        return int(libc.renameat2(here, names[0], here, names[1], swap)) == 0
    except AttributeError:  # a C library older than the call
        return False
