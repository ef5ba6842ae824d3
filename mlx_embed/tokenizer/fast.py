"""FastTokenizer: nanotoken in the place of `tokenizers`, which stays the reference of every id."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from mlx_embed.errors import warn
from mlx_embed.ids import Ids
from mlx_embed.tokenizer import probe
from mlx_embed.tokenizer.classes import normalizer_steps, state
from mlx_embed.tokenizer.panics import is_the_librarys
from mlx_embed.tokenizer.tokens import Encoded

# Texts that the library makes tokens of before loading and comparing, which cost some 0.1 s, are worth it.
WORTH_LOADING = 256
# Of so many texts one is given to both.
CHECK_EVERY = 1000
# Words that each thread of nanotoken remembers, in some 16 MiB; its own choice is eight times as many.
CACHE_ENTRIES = 2**17


class FastTokenizer:
    """Makes the ids that `tokenizers` makes, some forty times as fast, or says that it does not.

    It is for WordPiece as BERT has it, where nanotoken is installed (extra `fast`). Once WORTH_LOADING texts have been
    asked for, it is loaded and compared with the library on the texts of `probe`, on a thread of its own; then one text
    in CHECK_EVERY is compared. A difference turns it off for good, with one warning.
    """

    def __init__(self, library: Tokenizer, special: bool, folder: Path) -> None:
        """Take the library's tokenizer of the checkpoint in `folder`; `special` asks for special tokens."""
        self._library = library
        self._special = special
        self._folder = folder
        self._made: Any = None
        self._off = not known(library)
        self._complaint = ""
        self._seen = 0
        self._thread: threading.Thread | None = None

    @property
    def active(self) -> bool:
        """Whether texts go to nanotoken now."""
        return self._made is not None and not self._off

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
        if self._made is None:
            if self._thread is None and self._seen >= WORTH_LOADING:
                self._begin()
            return None
        checked = range(-before % CHECK_EVERY, len(texts), CHECK_EVERY)
        try:
            found = self.ids(texts)
            same = not checked or self._same([texts[place] for place in checked], found[checked])
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
            import nanotoken

            if not os.environ.get("NANOTOKEN_CACHE_ENTRIES"):
                nanotoken.set_cache_entries(CACHE_ENTRIES)
            made = nanotoken.Tokenizer.from_json(self._library.to_str())
            texts = probe.texts(self._library)
            if self._same(texts, _ids(made, texts, self._special)):
                self._made = made
            else:
                self._refuse()
        except ImportError:
            self._off = True
        except BaseException as error:
            self._off = True
            if not is_the_librarys(error):
                raise

    def _begin(self) -> None:
        # No daemon: Python would end it at exit, in the middle of Rust code, which aborts the process.
        self._thread = threading.Thread(target=self.prepare, name="mlx-embed-tokenizer")
        try:
            self._thread.start()
        except RuntimeError:  # the process is ending
            self._off = True

    def ids(self, texts: list[str]) -> Ids:
        """The ids that it makes of texts, compared with nothing; for use while it is active."""
        return _ids(self._made, texts, self._special)

    def _same(self, texts: list[str], found: Ids) -> bool:
        made = Encoded(self._library.encode_batch_fast(texts, add_special_tokens=self._special)).ids
        return np.array_equal(made.offsets, found.offsets) and np.array_equal(made.flat, found.flat)

    def _refuse(self) -> None:
        self._off = True
        self._complaint = (
            f"nanotoken makes other token ids than tokenizers with the checkpoint in {self._folder}, so tokenizers "
            "makes them all from now on. Nothing that was compared before differed. Please report it."
        )


def _ids(made: Any, texts: list[str], special: bool) -> Ids:
    ids = made.encode_batch(texts, add_special_tokens=special)
    return Ids(ids.ids.view(np.int32), ids.offsets)


def known(library: Tokenizer) -> bool:
    """Whether a tokenizer is of the kind that nanotoken was compared with at length: BERT's."""
    allowed = {"BertNormalizer", "Lowercase"}
    return (
        isinstance(library.model, models.WordPiece)
        and {part.get("type") for part in normalizer_steps(library.normalizer)} <= allowed
        and state(library.pre_tokenizer).get("type") == "BertPreTokenizer"
        and not library.encode_special_tokens
    )
