"""FastTokenizer: what makes ids in less time than `tokenizers`, which stays the reference of every id."""

import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from mlx_embed.errors import warn
from mlx_embed.ids import Ids
from mlx_embed.tokenizer import nano, pieces, probe
from mlx_embed.tokenizer.panics import is_the_librarys
from mlx_embed.tokenizer.tokens import Encoded, Frame

# Texts that the library makes tokens of before loading and comparing, which cost some 0.1 s, are worth it.
WORTH_LOADING = 256
# Of so many texts one is given to both.
CHECK_EVERY = 1000


class Make(Protocol):
    """What makes ids."""

    def __call__(self, texts: list[str], whole: bool = False) -> "Ids | None":
        """The ids of each text; None where the library is to make them, which `whole` forbids."""


class FastTokenizer:
    """Makes the ids that `tokenizers` makes, some times as fast, or says that it does not.

    For WordPiece as BERT has it nanotoken makes them, where it is installed (extra `fast`); else `pieces` does, for
    tokenizers that break at spaces. Once WORTH_LOADING texts have been asked for, it is loaded and compared with the
    library on the texts of `probe`, on a thread of its own; then one text in CHECK_EVERY is compared. A difference
    turns it off for good, with one warning.

    Attributes:
        name: what makes the ids; "" until something does.
    """

    def __init__(self, library: Tokenizer, frame: Frame, folder: Path) -> None:
        """Take the library's tokenizer of the checkpoint in `folder`; `frame` is what is to stand around a text."""
        self._library = library
        self._frame = frame
        self._folder = folder
        self._make: Make | None = None
        self.name = ""
        self._off = False
        self._complaint = ""
        self._seen = 0
        self._thread: threading.Thread | None = None

    @property
    def active(self) -> bool:
        """Whether texts come here rather than to the library now."""
        return self._make is not None and not self._off

    def __call__(self, texts: list[str]) -> Ids | None:
        """The ids of each text, on all cores and without Python's lock; None where the library is to make them.

        Raises:
            UnicodeEncodeError: a lone surrogate.
        """
        if self._complaint:
            complaint, self._complaint = self._complaint, ""
            warn(complaint)
        if self._off:
            return None
        before = self._seen
        self._seen += len(texts)
        if self._make is None:
            if self._thread is None and self._seen >= WORTH_LOADING:
                self._begin()
            return None
        checked = range(-before % CHECK_EVERY, len(texts), CHECK_EVERY)
        try:
            found = self._make(texts)
            chosen = [texts[place] for place in checked]
            same = found is None or not checked or self._same(chosen, found[checked])
        except UnicodeEncodeError:
            raise
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            same = False
        if same:
            return found
        self._refuse()
        return self(texts)

    def prepare(self) -> None:
        """Load it and compare it with the library, now; it is off afterwards where it differs or is not there."""
        if self._off:
            return
        try:
            for kind in (nano, pieces):
                if kind.known(self._library) and self._load(kind):
                    return
        finally:
            self._off = self._make is None

    def _load(self, kind: Any) -> bool:
        """Whether this kind is the one: it makes ids, even if they are wrong ones."""
        try:
            make: Make | None = kind.maker(self._library, self._frame)
            if make is None:
                return False
            texts = probe.texts(self._library)
            found = make(texts, whole=True)
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            return False
        self.name = kind.__name__.rpartition(".")[2]
        if self._same(texts, found):
            self._make = make
        else:
            self._refuse()
        return True

    def _begin(self) -> None:
        # No daemon: Python would end it at exit, in the middle of Rust code, which aborts the process.
        self._thread = threading.Thread(target=self.prepare, name="mlx-embed-tokenizer")
        try:
            self._thread.start()
        except RuntimeError:  # the process is ending
            self._off = True

    def ids(self, texts: list[str]) -> Ids:
        """The ids that it makes of texts, compared with nothing; for use while it is active."""
        assert self._make is not None
        found = self._make(texts, whole=True)
        assert found is not None
        return found

    def _same(self, texts: list[str], found: "Ids | None") -> bool:
        if found is None:
            return False
        made = Encoded(self._library.encode_batch_fast(texts, add_special_tokens=len(self._frame) > 0)).ids
        return np.array_equal(made.offsets, found.offsets) and np.array_equal(made.flat, found.flat)

    def _refuse(self) -> None:
        self._off = True
        self._complaint = (
            f"The fast tokenizer ({self.name}) makes other token ids than tokenizers with the checkpoint in "
            f"{self._folder}, so tokenizers makes them all from now on. Nothing that was compared before differed. "
            "Please report it."
        )
