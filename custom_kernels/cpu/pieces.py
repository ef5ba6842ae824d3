"""PieceMemory: the ids of texts, put together from remembered ids of their pieces; see native/pieces.cpp."""

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_kernels.cpu import library
from custom_kernels.cpu.subwords import Subwords

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
_NEW_PIECES, _NO_ROOM = -1, -2
# To ask a tokenizer for a piece costs about what so many bytes of a text do, and its own.
LOOK_UP = 32


class PieceMemory:
    """What a tokenizer makes of pieces of texts, by their bytes. For use by several threads at a time."""

    def __init__(
        self,
        capacity: int,
        before: tuple[int, ...] = (),
        after: tuple[int, ...] = (),
        lines: int = 0,
        rules: Subwords | None = None,
    ) -> None:
        """Remember about `capacity` pieces; `before` and `after` are ids that stand around every text.

        `lines` says which ends of lines begin a piece: 0 none, 1 those behind a letter or number of ASCII, 2 all behind
        what is not white space. With `rules`, pieces that are new have to be learnt only where those do not know them.

        Raises:
            RuntimeError, OSError, AttributeError: the native library is not there; see `library.load`.
            MemoryError: there is no memory for it.
        """
        self._functions = _functions()
        ids = [np.array(side, dtype=np.int32) for side in (before, after)]
        self._handle = self._functions["new"](
            capacity,
            lines,
            *(x for side in ids for x in (side.ctypes.data, len(side))),
            None if rules is None else rules.handle,
        )
        if not self._handle:
            raise MemoryError("There is no memory for the pieces of texts.")
        self._rules = rules  # which the memory uses as long as it is there
        self._read = self._functions["read"]
        self._around = len(before) + len(after)
        # At exit nothing is let go: a thread that goes with the process may be in it.
        weakref.finalize(self, self._functions["delete"], self._handle).atexit = False

    def read(self, texts: bytes, count: int, threads: int) -> tuple[Int32, Int64, Int64] | None:
        """The ids of `count` texts of UTF-8, with a zero byte between two; None where `learn` has to come first.

        Returns:
            ids: int32 [T], the texts' ids end to end.
            offsets: int64 [count + 1], the start of each text, and T.
            lengths: int64 [count + 1], the ids of each text; -1 of a text that is left to the tokenizer, and has none
                here. Behind them stands how many are left.
        """
        rows = np.empty((2, count + 1), dtype=np.int64)
        room = len(texts) // 2 + count * (self._around + 1)
        # Half a microsecond less than `rows.ctypes.data`.
        lengths = rows.__array_interface__["data"][0]
        offsets = lengths + 8 * (count + 1)
        while True:
            flat = np.empty(room, dtype=np.int32)
            there = flat.__array_interface__["data"][0]
            total = self._read(self._handle, texts, len(texts), count, threads, lengths, offsets, there, room)
            if total >= 0:
                return flat[:total], rows[1], rows[0]
            if total == _NEW_PIECES:
                return None
            if total != _NO_ROOM:
                raise MemoryError("There is no memory for the ids of these texts.")
            room = int(rows[0, 0])

    def unknown(self, texts: bytes, count: int, budget: int) -> tuple[Int64, Int64, bool]:
        """Where pieces start and stop in `texts` that are not known, each once, and whether these are all.

        They are all unless to ask for them costs more than `budget`: LOOK_UP for each, and its bytes.
        """
        room = len(texts) // 2 + count
        starts, stops = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
        found = self._functions["unknown"](
            self._handle, texts, len(texts), count, budget, starts.ctypes.data, stops.ctypes.data, room
        )
        if found < -room - 1:
            raise MemoryError("There is no memory for the pieces of these texts.")
        some = found if found >= 0 else _NEW_PIECES - found
        return starts[:some], stops[:some], found >= 0

    def learn(
        self,
        texts: bytes,
        starts: Int64,
        stops: Int64,
        ids: Int32,
        offsets: Int64,
        left: npt.NDArray[np.bool_],
        *,
        renew: bool,
    ) -> None:
        """Remember pieces of `texts`: the ids of piece i are ids[offsets[i] : offsets[i + 1]].

        Texts with a piece that is `left` are left to the tokenizer. `renew` empties a memory that is full before.
        """
        status = self._functions["learn"](
            self._handle,
            texts,
            starts.ctypes.data,
            stops.ctypes.data,
            len(starts),
            ids.ctypes.data,
            offsets.ctypes.data,
            left.ctypes.data,
            renew,
        )
        if status:
            raise MemoryError("There is no memory for the pieces of texts.")


def _functions() -> dict[str, Any]:
    pointer, integer, content = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
    loaded = library.library()
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "new": (pointer, [integer, ctypes.c_int, pointer, integer, pointer, integer, pointer]),
        "delete": (None, [pointer]),
        "read": (integer, [pointer, content, integer, integer, integer, *[pointer] * 3, integer]),
        "unknown": (integer, [pointer, content, integer, integer, integer, pointer, pointer, integer]),
        "learn": (integer, [pointer, content, *[pointer] * 2, integer, *[pointer] * 3, ctypes.c_int]),
    }
    functions = {}
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, f"mlx_embed_pieces_{name}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions
