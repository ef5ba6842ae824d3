"""Ops of text encoders on numpy float32 arrays, by C++ kernels for the processor this runs on.

The kernels are one shared library with a plain C interface, built by `pip install` where a C++ compiler is there
(`python setup.py build_ext --inplace` does it alone). It links neither MLX nor Python, is loaded at first use, and
picks AVX-512, AVX2 or the baseline (NEON on aarch64) by what the processor has. Ask `available()` first: every op
raises RuntimeError without the library.

All arrays are C-contiguous float32 unless said otherwise, T counts the packed tokens of a batch, and `cu_seqlens`
[n + 1] int32 says where each of its n sequences begins. A result does not depend on the number of threads, nor on
what else is in the batch. Ops may be called from several threads; a forked child may call them too.
"""

import ctypes
import hashlib
import os
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]

LIBRARY = Path(__file__).with_name("libmlx_embed_cpu.so")
SOURCE_SUFFIXES = (".h", ".inl", ".cpp")
ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "silu": 4}
GATED = {False: 0, True: 1, "first": 1, "second": 2}
MAX_LOOKUPS = 8

# Below this many floats numpy's own memory is as good; above twice the second, blocks are not kept.
SMALL_FLOATS = 1 << 16
MAX_KEPT_FLOATS = 1 << 26


def source_hash(folder: Path = LIBRARY.parent) -> str:
    """A hash of the C++ sources in `folder`, or "" where there are none; the library carries that of its own."""
    digest = hashlib.sha256()
    sources = sorted(path for path in folder.iterdir() if path.suffix in SOURCE_SUFFIXES)
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16] if sources else ""


def available() -> bool:
    """Whether the library is there, up to date, and loads."""
    return not why_unavailable()


@cache
def why_unavailable() -> str:
    """A sentence that says why the kernels cannot be used and what to do, or "" where they can."""
    try:
        _library()
    except (OSError, AttributeError, RuntimeError) as error:
        return str(error)
    return ""


def instruction_set() -> str:
    """What the kernels run on: "AVX-512", "AVX2", "NEON" or "baseline". MLX_EMBED_CPU_ISA can ask for less."""
    return str(_library()[1])


def num_threads() -> int:
    """How many threads an op uses, its caller included."""
    return int(_library()[0].mlx_embed_threads())


def set_num_threads(count: int) -> None:
    """Let ops use `count` threads.

    Raises:
        ValueError: `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"set_num_threads needs at least 1 thread, got {count}.")
    _library()[0].mlx_embed_set_threads(count)


def usable_cores() -> int:
    """The cores that this process may use, by its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    root = Path("/sys/fs/cgroup")
    for quota, period in _quotas(root):
        if quota > 0 and period > 0:
            cores = min(cores, max(1, -(-quota // period)))
    return max(cores, 1)


class Linear:
    """A weight [N, K] and bias [N] or None, packed once for `linear`, `output_norm` and `feed_forward`.

    The packed copy belongs to the library and goes with this object; the arrays are not kept.

    Raises:
        TypeError, ValueError: arrays that are not float32 of these shapes.
        MemoryError: no room for the copy.
    """

    __slots__ = ("__weakref__", "handle", "in_features", "out_features")

    def __init__(self, weight: Floats, bias: Floats | None = None) -> None:
        _floats("Linear", "weight", weight, (None, None))
        if bias is not None:
            _floats("Linear", "bias", bias, (weight.shape[0],))
        if not weight.size:
            raise ValueError(f"Linear needs a weight with elements, got shape {weight.shape}.")
        library = _library()[0]
        self.out_features, self.in_features = weight.shape
        self.handle: int = library.mlx_embed_pack(_at(weight), _at(bias), self.out_features, self.in_features)
        if not self.handle:
            raise MemoryError(f"There is no memory to pack a weight of shape {weight.shape}.")
        weakref.finalize(self, library.mlx_embed_unpack, self.handle)


def linear(x: Floats, packed: Linear, activation: str | None = None, residual: Floats | None = None) -> Floats:
    """act(x W^T + bias) + residual.

    Args:
        x: [T, K].
        packed: the weight [N, K] and its bias.
        activation: "gelu" (by erf), "gelu_tanh", "relu", "silu" or None.
        residual: [T, N], or None.

    Returns:
        [T, N].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or an unknown activation.
    """
    rows = _rows("linear", "x", x, packed.in_features)
    act = _activation("linear", activation)
    if residual is not None:
        _floats("linear", "residual", residual, (rows, packed.out_features))
    out = empty((rows, packed.out_features))
    _check(_library()[0].mlx_embed_linear(_at(x), rows, packed.handle, act, _at(residual), _at(out)))
    return out


def layer_norm(x: Floats, weight: Floats, bias: Floats | None, eps: float, residual: Floats | None = None) -> Floats:
    """Normalise the rows of `x + residual`, [..., H], to mean 0 and variance 1, then scale and shift.

    Args:
        x: [..., H].
        weight: [H].
        bias: [H], or None for no offset.
        eps: added to the variance.
        residual: of x's shape, or None.

    Returns:
        An array of x's shape.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape.
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"layer_norm normalises the last axis, but x has shape {x.shape}.")
    _floats("layer_norm", "x", x, x.shape)
    if residual is not None:
        _floats("layer_norm", "residual", residual, x.shape)
    width = x.shape[-1]
    _norm("layer_norm", weight, bias, width)
    out = empty(x.shape)
    rows = x.size // width
    _check(
        _library()[0].mlx_embed_layer_norm(_at(x), _at(residual), _at(weight), _at(bias), eps, rows, width, _at(out))
    )
    return out


def embedding_norm(
    lookups: Sequence[tuple[Floats, Ints]], weight: Floats | None, bias: Floats | None, eps: float
) -> Floats:
    """The sum of rows looked up in tables, then LayerNorm.

    Args:
        lookups: at most 8 pairs of a table [V, H] and ids [T] int32 into it.
        weight: [H], or None for the sum alone.
        bias: [H], or None for no offset.
        eps: added to the variance.

    Returns:
        [T, H].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or an id outside its table.
    """
    if not 1 <= len(lookups) <= MAX_LOOKUPS:
        raise ValueError(f"embedding_norm takes 1 to {MAX_LOOKUPS} lookups, got {len(lookups)}.")
    width, rows = lookups[0][0].shape[-1], lookups[0][1].size
    if width == 0:
        raise ValueError("embedding_norm needs tables with at least one column.")
    for table, ids in lookups:
        _floats("embedding_norm", "table", table, (None, width))
        _ints("embedding_norm", "ids", ids, (rows,))
    _norm("embedding_norm", weight, bias, width)
    out = empty((rows, width))
    count = len(lookups)
    status = _library()[0].mlx_embed_embedding_norm(
        (ctypes.c_void_p * count)(*(_at(table) for table, _ in lookups)),
        (ctypes.c_int64 * count)(*(table.shape[0] for table, _ in lookups)),
        (ctypes.c_void_p * count)(*(_at(ids) for _, ids in lookups)),
        count,
        _at(weight),
        _at(bias),
        eps,
        rows,
        width,
        _at(out),
    )
    if status == _BAD_IDS:
        raise ValueError("embedding_norm got an id that is not a row of its table.")
    _check(status)
    return out


def attention(
    qkv: Floats,
    cu_seqlens: Ints,
    num_heads: int,
    scale: float,
    bias: Floats | None = None,
    *,
    max_seqlen: int | None = None,
    window: int | None = None,
) -> Floats:
    """softmax(scale * Q K^T + bias) V within each sequence of a packed batch.

    Args:
        qkv: [T, 3 * hidden]: query, key and value side by side, each split into `num_heads` heads.
        cu_seqlens: [n + 1] int32, from 0 to T.
        num_heads: heads; must divide hidden.
        scale: usually 1 / sqrt(head_dim).
        bias: shared by all sequences: [num_heads, L, L], or [num_heads, 2 L - 1] indexed by j - i + L - 1 for a bias
            that depends on the distance alone, which is faster; L >= the longest sequence.
        max_seqlen: taken for the sake of the other back ends; nothing here needs it.
        window: attend only where |i - j| <= window. None attends everywhere.

    Returns:
        [T, hidden].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, sequences that do not run from 0 to T, or one
            longer than L.
    """
    del max_seqlen
    if qkv.ndim != 2 or num_heads < 1 or qkv.shape[1] == 0 or qkv.shape[1] % (3 * num_heads):
        raise ValueError(f"attention needs qkv [T, 3 * heads * head_dim], got {qkv.shape} for {num_heads} heads.")
    _floats("attention", "qkv", qkv, qkv.shape)
    _ints("attention", "cu_seqlens", cu_seqlens, (None,))
    if window is not None and window < 0:
        raise ValueError(f"attention needs a window of at least 0, got {window}.")
    length, relative = _attention_bias("attention", bias, num_heads)
    total, hidden = qkv.shape[0], qkv.shape[1] // 3
    out = empty((total, hidden))
    status = _library()[0].mlx_embed_attention(
        _at(qkv),
        _at(cu_seqlens),
        cu_seqlens.size - 1,
        total,
        num_heads,
        hidden // num_heads,
        scale,
        _at(bias),
        length,
        relative,
        -1 if window is None else window,
        _at(out),
    )
    _check_sequences("attention", status, total, None if bias is None else length)
    return out


def output_norm(
    x: Floats, packed: Linear, residual: Floats | None, weight: Floats | None, bias: Floats | None, eps: float
) -> Floats:
    """LayerNorm(x W^T + bias + residual), in one pass over blocks of rows: what follows attention.

    Args:
        x: [T, K].
        packed: the weight [H, K] and its bias.
        residual: [T, H], or None.
        weight: LayerNorm's [H], or None for the sum alone.
        bias: LayerNorm's [H], or None for no offset.
        eps: added to the variance.

    Returns:
        [T, H].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape.
    """
    rows, width = _rows("output_norm", "x", x, packed.in_features), packed.out_features
    if residual is not None:
        _floats("output_norm", "residual", residual, (rows, width))
    _norm("output_norm", weight, bias, width)
    out = empty((rows, width))
    _check(
        _library()[0].mlx_embed_output_norm(
            _at(x), rows, packed.handle, _at(residual), _at(weight), _at(bias), eps, _at(out)
        )
    )
    return out


def feed_forward(
    x: Floats,
    up: Linear,
    down: Linear,
    activation: str | None,
    weight: Floats | None,
    bias: Floats | None,
    eps: float,
    *,
    gated: bool | str = False,
    residual: bool | Floats = True,
) -> Floats:
    """LayerNorm(down(act(up(x))) + residual), in one pass over blocks of rows that stay in the cache.

    Args:
        x: [T, H].
        up: [F, H], or [2 F, H] when gated.
        down: [N, F].
        activation: "gelu" (by erf), "gelu_tanh", "relu", "silu" or None.
        weight: LayerNorm's [N], or None for the sum alone.
        bias: LayerNorm's [N], or None for no offset.
        eps: added to the variance.
        gated: "first" (or True) for act(first half of up) * second half, "second" for act(second half) * first half.
        residual: True adds x, False nothing, an array [T, N] itself (a pre-norm block adds what went into its norm).

    Returns:
        [T, N].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or an unknown activation or gate.
    """
    rows, width = _rows("feed_forward", "x", x, up.in_features), down.out_features
    act = _activation("feed_forward", activation)
    if gated not in GATED:
        raise ValueError(f"feed_forward knows gated=False, True, 'first' and 'second', got {gated!r}.")
    gate = GATED[gated]
    if up.out_features != down.in_features * (2 if gate else 1):
        raise ValueError(
            f"feed_forward needs down to take {'half of ' if gate else ''}what up gives, "
            f"got {up.out_features} and {down.in_features}."
        )
    added = x if residual is True else None if residual is False else residual
    if added is not None:
        _floats("feed_forward", "residual", added, (rows, width))
    _norm("feed_forward", weight, bias, width)
    out = empty((rows, width))
    _check(
        _library()[0].mlx_embed_feed_forward(
            _at(x), rows, up.handle, down.handle, act, gate, _at(added), _at(weight), _at(bias), eps, _at(out)
        )
    )
    return out


class Norm(NamedTuple):
    """A LayerNorm's weight [H], bias [H] or None, and what it adds to the variance."""

    weight: Floats
    bias: Floats | None
    eps: float


class EncoderLayer(NamedTuple):
    """A post-norm layer (BERT's): norm(out(attention(qkv(x))) + x), then norm(down(act(up(x))) + x)."""

    qkv: Linear
    out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


class Encoder:
    """Post-norm layers, one or more, to be run in one call, which a short text feels.

    Args:
        layers: all of one width H.
        num_heads: heads; must divide H.
        scale: of the attention, usually 1 / sqrt(head_dim).
        activation: as in `feed_forward`.

    Raises:
        TypeError, ValueError: weights that do not fit, or an unknown activation.
    """

    def __init__(self, layers: Sequence[EncoderLayer], num_heads: int, scale: float, activation: str | None) -> None:
        self._layers = tuple(layers)
        self._width = width = layers[0].down.out_features
        self._num_heads, self._scale, self._activation = num_heads, scale, _activation("Encoder", activation)
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"Encoder needs heads that divide the width {width}, got {num_heads}.")
        self._table = (_EncoderLayer * len(self._layers))()
        for row, (qkv, out, attention_norm, up, down, output_norm) in zip(self._table, self._layers, strict=True):
            shapes = [(w.out_features, w.in_features) for w in (qkv, out, up, down)]
            inner = up.out_features
            if shapes != [(3 * width, width), (width, width), (inner, width), (width, inner)]:
                raise ValueError(f"Encoder got a layer with weights of shapes {shapes}, which do not fit each other.")
            row.qkv, row.out, row.up, row.down = qkv.handle, out.handle, up.handle, down.handle
            for name, (weight, bias, eps) in (("attention", attention_norm), ("output", output_norm)):
                _norm("Encoder", weight, bias, width)
                setattr(row, f"{name}_weight", _at(weight))
                setattr(row, f"{name}_bias", _at(bias))
                setattr(row, f"{name}_eps", eps)

    def __call__(self, x: Floats, cu_seqlens: Ints, bias: Floats | None = None) -> Floats:
        """Run the layers.

        Args:
            x: [T, H].
            cu_seqlens: as in `attention`.
            bias: as in `attention`, for all layers.

        Returns:
            [T, H].

        Raises:
            TypeError, ValueError: as from `attention`.
        """
        width = self._width
        total = _rows("Encoder", "x", x, width)
        _ints("Encoder", "cu_seqlens", cu_seqlens, (None,))
        length, relative = _attention_bias("Encoder", bias, self._num_heads)
        qkv, attended, between, out = (empty((total, n * width)) for n in (3, 1, 1, 1))
        status = _library()[0].mlx_embed_encoder(
            _at(x),
            ctypes.addressof(self._table),
            len(self._layers),
            width,
            _at(cu_seqlens),
            cu_seqlens.size - 1,
            total,
            self._num_heads,
            self._scale,
            _at(bias),
            length,
            relative,
            self._activation,
            _at(qkv),
            _at(attended),
            _at(between),
            _at(out),
        )
        _check_sequences("Encoder", status, total, None if bias is None else length)
        return out


class _EncoderLayer(ctypes.Structure):
    """`EncoderLayer` of ops.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "out", "up", "down")),
        *((f"{norm}_{name}", ctypes.c_void_p) for norm in ("attention", "output") for name in ("weight", "bias")),
        ("attention_eps", ctypes.c_float),
        ("output_eps", ctypes.c_float),
    )


def rope(qkv: Floats, positions: Ints, cos: Floats, sin: Floats, num_heads: int) -> Floats:
    """Rotate query and key by position, the halves of each head being the pairs. Works in place.

    Args:
        qkv: [T, 3 * hidden], as `attention` takes it; overwritten.
        positions: [T] int32, rows of the tables.
        cos: [P, head_dim / 2].
        sin: [P, head_dim / 2].
        num_heads: heads; must divide hidden into heads of even size.

    Returns:
        `qkv` itself.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or a position outside the tables.
    """
    if qkv.ndim != 2 or num_heads < 1 or qkv.shape[1] == 0 or qkv.shape[1] % (6 * num_heads):
        raise ValueError(
            f"rope needs qkv [T, 3 * heads * head_dim] with an even head_dim, got {qkv.shape} for {num_heads} heads."
        )
    _floats("rope", "qkv", qkv, qkv.shape)
    if not qkv.flags.writeable:
        raise ValueError("rope works in place, but qkv is read-only.")
    rows, head_dim = qkv.shape[0], qkv.shape[1] // 3 // num_heads
    _ints("rope", "positions", positions, (rows,))
    _floats("rope", "cos", cos, (None, head_dim // 2))
    _floats("rope", "sin", sin, cos.shape)
    status = _library()[0].mlx_embed_rope(
        _at(qkv), _at(positions), _at(cos), _at(sin), cos.shape[0], rows, num_heads, head_dim
    )
    if status == _BAD_IDS:
        raise ValueError(f"rope got a position that is not one of the tables' {cos.shape[0]} rows.")
    _check(status)
    return qkv


def mean_pool(hidden: Floats, cu_seqlens: Ints, skip: int = 0, normalize: bool = False) -> Floats:
    """The average of each sequence's tokens but its first `skip` (all of them, where it has no more).

    Args:
        hidden: [T, H].
        cu_seqlens: [n + 1] int32, from 0 to T.
        skip: tokens of a prompt, left out.
        normalize: scale each row to length 1; a zero row stays zero.

    Returns:
        [n, H]; zeros for an empty sequence.

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or sequences that do not run from 0 to T.
    """
    _floats("mean_pool", "hidden", hidden, (None, None))
    _ints("mean_pool", "cu_seqlens", cu_seqlens, (None,))
    if skip < 0:
        raise ValueError(f"mean_pool needs a skip of at least 0, got {skip}.")
    total, width = hidden.shape
    count = cu_seqlens.size - 1
    out = empty((count, width))
    status = _library()[0].mlx_embed_mean_pool(
        _at(hidden), _at(cu_seqlens), count, total, width, skip, normalize, _at(out)
    )
    if status == _BAD_SEQUENCES:
        raise ValueError(f"mean_pool needs cu_seqlens that rise from 0 to {total}.")
    _check(status)
    return out


def empty(shape: tuple[int, ...]) -> Floats:
    """An uninitialised array; a large one takes memory that an earlier one gave back, so its pages are there."""
    floats = 1
    for extent in shape:
        floats *= extent
    if floats < SMALL_FLOATS:
        return np.empty(shape, np.float32)
    return np.asarray(_Block(shape, floats))


class _Block:
    """Memory of an array made by `empty`: kept for a later array of about the same size when this one goes."""

    __slots__ = ("__array_interface__", "address", "size")

    free: ClassVar[dict[int, list[int]]] = {}
    kept = 0
    lock = threading.RLock()  # a collection inside the lock may run another block's __del__

    def __init__(self, shape: tuple[int, ...], floats: int) -> None:
        step = 1 << (floats.bit_length() - 3)  # at most a quarter more than asked for
        self.size = -(-floats // step) * step
        with _Block.lock:
            stack = _Block.free.get(self.size)
            self.address = stack.pop() if stack else 0
            if self.address:
                _Block.kept -= self.size
        if not self.address:
            self.address = _library()[0].mlx_embed_allocate(self.size) or 0
        if not self.address:
            raise MemoryError(f"There is no memory for an array of shape {shape}.")
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (self.address, False), "version": 3}

    def __del__(self) -> None:
        if not getattr(self, "address", 0):
            return
        with _Block.lock:
            if _Block.kept + self.size <= MAX_KEPT_FLOATS:
                _Block.free.setdefault(self.size, []).append(self.address)
                _Block.kept += self.size
                return
        _library()[0].mlx_embed_release(self.address)


_NO_MEMORY, _BAD_SEQUENCES, _BAD_IDS = 1, 2, 3
_FLOAT32 = np.dtype(np.float32)


@cache
def _library() -> tuple[Any, str]:
    if not LIBRARY.exists():
        raise RuntimeError("The CPU kernels were not built; with a C++17 compiler installed, run: pip install -e .")
    library: Any = ctypes.CDLL(str(LIBRARY))
    pointer, integer, real, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "source_hash": (ctypes.c_char_p, []),
        "choose": (ctypes.c_char_p, [ctypes.c_char_p]),
        "threads": (integer, []),
        "set_threads": (None, [integer]),
        "allocate": (pointer, [integer]),
        "release": (None, [pointer]),
        "pack": (pointer, [pointer, pointer, integer, integer]),
        "unpack": (None, [pointer]),
        "linear": (flag, [pointer, integer, pointer, flag, pointer, pointer]),
        "layer_norm": (flag, [pointer] * 4 + [real, integer, integer, pointer]),
        "embedding_norm": (flag, [pointer] * 3 + [integer, pointer, pointer, real, integer, integer, pointer]),
        "attention": (
            flag,
            [pointer, pointer] + [integer] * 4 + [real, pointer, integer, integer, integer, pointer],
        ),
        "output_norm": (flag, [pointer, integer] + [pointer] * 4 + [real, pointer]),
        "feed_forward": (
            flag,
            [pointer, integer, pointer, pointer, flag, flag, pointer, pointer, pointer, real, pointer],
        ),
        "encoder": (
            flag,
            [pointer, pointer, integer, integer, pointer, integer, integer, integer, real, pointer, integer, integer]
            + [flag]
            + [pointer] * 4,
        ),
        "rope": (flag, [pointer] * 4 + [integer] * 4),
        "mean_pool": (flag, [pointer, pointer] + [integer] * 4 + [flag, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"mlx_embed_{name}")
        function.restype, function.argtypes = result, arguments
    if source_hash() not in ("", library.mlx_embed_source_hash().decode()):
        raise RuntimeError("The CPU kernels were built from other sources than these; rebuild: pip install -e .")
    wanted = os.environ.get("MLX_EMBED_CPU_ISA", "")
    if wanted not in ("", "avx2", "baseline"):
        raise RuntimeError(f"MLX_EMBED_CPU_ISA can be avx2 or baseline, got {wanted!r}.")
    chosen = library.mlx_embed_choose(wanted.encode()).decode()
    threads = os.environ.get("MLX_EMBED_NUM_THREADS", "")
    if threads and not (threads.isdecimal() and int(threads)):
        raise RuntimeError(f"MLX_EMBED_NUM_THREADS needs a number of at least 1, got {threads!r}.")
    library.mlx_embed_set_threads(int(threads) if threads else usable_cores())
    return library, chosen


def _quotas(root: Path) -> list[tuple[int, int]]:
    """(quota, period) of this process's control groups: version 2's own group and its parents, or version 1's."""
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        inside = Path(place.lstrip("/"))
        for folder in (base / inside, *(base / parent for parent in inside.parents)):
            try:
                if controllers:
                    texts = [(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
                else:
                    texts = (folder / "cpu.max").read_text().split()
                found.append((int(texts[0]), int(texts[1])))
            except (OSError, ValueError):  # no such file, or "max"
                continue
    return found


def _at(array: npt.NDArray[Any] | None) -> int | None:
    if array is None:
        return None
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only or empty; this way takes three times as long
        return int(array.__array_interface__["data"][0])


def _floats(op: str, name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    # The usual case costs little more than the call: a forward pass of a short text makes a hundred such checks.
    if type(array) is np.ndarray and array.dtype is _FLOAT32 and array.shape == shape and array.flags.c_contiguous:
        return
    _array(op, name, array, shape, np.float32)


def _ints(op: str, name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    _array(op, name, array, shape, np.int32)
    if shape[0] is None and not array.size:
        raise ValueError(f"{op} needs {name} with at least one element.")


def _array(op: str, name: str, array: Any, shape: tuple[int | None, ...], dtype: type) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{op} takes {name} as a numpy array of {dtype.__name__}, got {found}.")
    if array.shape != shape and (
        array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise ValueError(f"{op} needs {name} of shape ({wanted}), got {array.shape}.")
    if not array.flags.c_contiguous:
        raise ValueError(f"{op} needs {name} to be C-contiguous; use numpy.ascontiguousarray.")


def _rows(op: str, name: str, x: Any, width: int) -> int:
    rows = x.shape[0] if isinstance(x, np.ndarray) and x.ndim == 2 else None
    _floats(op, name, x, (rows, width))
    return int(x.shape[0])


def _norm(op: str, weight: Any, bias: Any, width: int) -> None:
    if weight is None and bias is not None:
        raise ValueError(f"{op} has a bias for its LayerNorm, but no weight.")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            _floats(op, name, array, (width,))


def _attention_bias(op: str, bias: Any, num_heads: int) -> tuple[int, int]:
    """The longest sequence that a bias is for, and whether it is by distance; zeros without one."""
    if bias is None:
        return 0, 0
    relative = int(bias.ndim == 2)
    length = (bias.shape[1] + 1) // 2 if relative else bias.shape[-1]
    _floats(op, "bias", bias, (num_heads, 2 * length - 1) if relative else (num_heads, length, length))
    return length, relative


def _activation(op: str, activation: str | None) -> int:
    if activation not in ACTIVATIONS:
        known = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ValueError(f"{op} has no activation {activation!r}; it knows {known}.")
    return ACTIVATIONS[activation]


def _check_sequences(op: str, status: int, total: int, longest: int | None) -> None:
    if status == _BAD_SEQUENCES:
        bound = "" if longest is None else f", none longer than the bias's {longest}"
        raise ValueError(f"{op} needs cu_seqlens that rise from 0 to {total}{bound}.")
    _check(status)


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("There is no memory for the scratch space of a CPU kernel.")
