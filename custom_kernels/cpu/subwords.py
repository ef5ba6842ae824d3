"""Subwords: a tokenizer's own rules, for pieces of texts of simple characters; see native/subwords.cpp."""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_kernels.cpu import library

CHARACTERS = 2**16
# Added to the kind of a character with which an added token may begin.
SUSPECT = 0x80


class Cut(IntEnum):
    """What ends a word: white space; a space, which is the next word's; BERT's and two regular expressions."""

    AT_SPACES = 0
    BEFORE_SPACES = 1
    BERT = 2
    GPT2 = 3
    QWEN = 4


class Model(IntEnum):
    """What makes ids of a word."""

    UNIGRAM = 0
    BPE = 1
    WORDPIECE = 2


class Kind(IntEnum):
    """What a character is: letters and numbers as regular expressions have them, or a word of its own."""

    NOT_SIMPLE = 0
    LETTER = 1
    NUMBER = 2
    OTHER = 3
    ALONE = 4
    SPACE = 5


@dataclass
class Rules:
    """What native/subwords.cpp is told of a tokenizer.

    Attributes:
        cut, model: which.
        kinds: uint8 [CHARACTERS], a Kind, and SUSPECT.
        normal: what the normalizer makes of characters that do not stay as they are, as UTF-8.
        tokens: the vocabulary as bytes, each once, and its ids.
        unknown: the id of what is in no token; -1 where there is nothing like that.
        scores: of Unigram, by id.
        merges: of BPE, int32 [M, 3]: two tokens and what becomes of them, the first to be merged first.
        of_bytes: of BPE, int32 [256], the token of each byte.
        whole_words: of BPE, whether a word that is a token is not put together.
        longest: of WordPiece, the characters of a word that is not unknown.
        inner: of WordPiece, what stands before tokens within a word.
        prefix: what stands before every word; where spaces belong to words, in place of one.
        first_prefix: and in place of none.
        digits: of QWEN, how many numbers are a word.
        prefixed: whether a space is put before a text that begins with none.
        added: what begins tokens that are looked for before a text is cut into words.
    """

    cut: Cut
    model: Model
    kinds: npt.NDArray[np.uint8]
    normal: dict[int, bytes]
    tokens: Sequence[tuple[bytes, int]]
    unknown: int = -1
    scores: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    merges: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int32))
    of_bytes: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(256, dtype=np.int32))
    whole_words: bool = False
    longest: int = 0
    inner: str = ""
    prefix: str = ""
    first_prefix: str = ""
    digits: int = 1
    prefixed: bool = False
    added: Sequence[bytes] = ()


class _Rules(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in ("cut", "model", "digits", "prefixed", "unknown", "whole_words", "longest")
        ),
        *((name, ctypes.c_void_p) for name in ("kinds", "normal")),
        ("normal_bytes", ctypes.c_char_p),
        ("normal_size", ctypes.c_int64),
        ("tokens", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("token_ends", "token_ids", "scores")),
        *((name, ctypes.c_int64) for name in ("count", "vocabulary")),
        *((name, ctypes.c_void_p) for name in ("merges", "merged", "of_bytes")),
        ("merge_count", ctypes.c_int64),
        *((name, ctypes.c_char_p) for name in ("prefix", "first_prefix", "inner", "added")),
        ("added_ends", ctypes.c_void_p),
        ("added_count", ctypes.c_int64),
    )


class Subwords:
    """The rules, as native code has them.

    Attributes:
        handle: for native code, as long as this is there.
    """

    handle: int

    def __init__(self, rules: Rules) -> None:
        """Lay them out.

        Raises:
            RuntimeError, OSError, AttributeError: the native library is not there; see `library.load`.
            MemoryError: there is no memory for them.
        """
        loaded = library.library()
        new, delete = loaded.mlx_embed_subwords_new, loaded.mlx_embed_subwords_delete
        new.restype, new.argtypes = ctypes.c_void_p, [ctypes.POINTER(_Rules)]
        delete.restype, delete.argtypes = None, [ctypes.c_void_p]
        places, normal = np.zeros(CHARACTERS, dtype=np.uint32), bytearray(1)  # place 0 is a character itself
        for code, content in rules.normal.items():
            places[code] = len(normal)
            normal += bytes([len(content)]) + content
        arrays: list[npt.NDArray[Any]] = []

        def address(array: npt.NDArray[Any], dtype: Any) -> int:
            arrays.append(np.ascontiguousarray(array, dtype=dtype))
            return arrays[-1].ctypes.data

        def ends(parts: Sequence[bytes]) -> int:
            return address(np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))), np.int64)

        tokens = [content for content, _ in rules.tokens]
        given = _Rules(
            rules.cut, rules.model, rules.digits, rules.prefixed, rules.unknown, rules.whole_words, rules.longest
        )
        given.kinds, given.normal = address(rules.kinds, np.uint8), address(places, np.uint32)
        given.normal_bytes, given.normal_size = bytes(normal), len(normal)
        given.tokens, given.token_ends, given.count = b"".join(tokens), ends(tokens), len(tokens)
        given.token_ids = address(np.array([number for _, number in rules.tokens]), np.int32)
        given.scores, given.vocabulary = address(rules.scores, np.float64), len(rules.scores)
        given.merges, given.merged = address(rules.merges[:, :2], np.int32), address(rules.merges[:, 2], np.int32)
        given.of_bytes, given.merge_count = address(rules.of_bytes, np.int32), len(rules.merges)
        given.prefix, given.first_prefix = rules.prefix.encode(), rules.first_prefix.encode()
        given.inner, given.added = rules.inner.encode(), b"".join(rules.added)
        given.added_ends, given.added_count = ends(rules.added), len(rules.added)
        handle = new(ctypes.byref(given))
        if not handle:
            raise MemoryError("There is no memory for a tokenizer's rules.")
        self.handle = int(handle)
        # At exit nothing is let go: a thread that goes with the process may be in it.
        weakref.finalize(self, delete, self.handle).atexit = False
