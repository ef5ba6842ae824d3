"""What the tests of several ops share: arrays, float64 references, and machines that are played."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels.backends import KERNEL_BACKENDS
from custom_kernels.choice import op, tune
from custom_kernels.ops import OPS
from custom_kernels.parameters import HeadNorms, Rotation

OP = {one.name: one for one in OPS}
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# A few units in the last place of values around 1 to 4: weights and result are rounded once each.
TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3.2e-2}
BATCHES = {
    "one token": [1],
    "short": [1, 16, 7, 0, 2, 15, 16, 1, 9, 3],
    "up to 32": [31, 32, 1, 0, 17, 8],
    "up to 64": [33, 64, 1, 63, 40],
    "edges": [1, 31, 32, 33, 127, 128],
    "one text": [129],
    "long": [511, 512],
    "one long among short": [1, 512, 2, 0, 3, 1, 1, 5] + [1] * 12,
    "empty": [0, 3, 0, 0, 17, 0],
}
# The ops that a played Mac has kernels of.
PLAYED = ("layer_norm", "embedding_norm", "attention", "mean_pool")


def present(name: str) -> list[Any]:
    """The back ends to test an op on, those that this machine lacks marked to be skipped."""
    kernels = OP[name].kernels
    found = [pytest.param("reference")]
    for backend in KERNEL_BACKENDS:
        here = getattr(mx, backend).is_available()
        reason = f"there is no {backend} kernel of {name}" if here else f"MLX finds no {backend} device here"
        found.append(pytest.param(backend, marks=pytest.mark.skipif(not (here and backend in kernels), reason=reason)))
    return found


def forget_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict on any kernel, as in a new process."""
    for name, empty in (("_trusted", {}), ("_chosen", {}), ("_switched_off", set())):
        monkeypatch.setattr(op, name, empty)


def random(*shape: int, dtype: str = "float32", scale: float = 1.0) -> mx.array:
    return mx.array((np.random.default_rng().normal(size=shape) * scale).astype(np.float32)).astype(DTYPES[dtype])


def spoilt(place: int) -> np.ndarray:
    """80 rows of three ones, but for one number of the row at `place`, which is none."""
    rows = np.ones((80, 3), dtype=np.float32)
    rows[place, 1] = np.nan
    return rows


def poison(*shape: int, dtype: str) -> None:
    """Free buffers of this size that are full of NaN: a place that a kernel leaves out would show."""
    mx.eval([mx.full(shape, mx.nan, dtype=DTYPES[dtype]) for _ in range(4)])


def starts(lengths: list[int]) -> mx.array:
    return mx.array(np.cumsum([0, *lengths]).astype(np.int32))


def exact(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32)).astype(np.float64)


def error(found: mx.array, expected: np.ndarray) -> float:
    """The largest difference, relative where values are above 1; NaN where any is."""
    assert found.shape == expected.shape
    return float((np.abs(exact(found) - expected) / np.maximum(np.abs(expected), 1)).max(initial=0))


def normed(y: np.ndarray, weight: mx.array, bias: mx.array, eps: float) -> np.ndarray:
    y = y - y.mean(axis=1, keepdims=True)
    return y / np.sqrt((y**2).mean(axis=1, keepdims=True) + eps) * exact(weight) + exact(bias)


def erf(x: np.ndarray) -> np.ndarray:
    return np.array(mx.erf(mx.array(x.astype(np.float32)), stream=mx.cpu)).astype(np.float64)


EXACT: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda x: x,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def gated(y: np.ndarray, act: str | None, gate: str) -> np.ndarray:
    """act(a) * b of the halves of each row, in float64."""
    first, second = np.split(y, 2, axis=-1)
    return EXACT[act](first) * second if gate == "first" else first * EXACT[act](second)


def random_layer(outputs: int, inputs: int, dtype: str) -> tuple[mx.array, mx.array]:
    return random(outputs, inputs, dtype=dtype, scale=inputs**-0.5), random(outputs, dtype=dtype)


def exact_linear(x: mx.array, weight: mx.array, bias: mx.array | None) -> np.ndarray:
    return exact(x) @ exact(weight).T + (0 if bias is None else exact(bias))


def each_pair(bias: np.ndarray, length: int) -> np.ndarray:
    """A bias by distance, [heads, 2 L - 1], for every query and key: [heads, length, length]."""
    longest = (bias.shape[1] + 1) // 2
    pairs = np.zeros((len(bias), length, length))
    for query in range(length):
        pairs[:, query] = bias[:, longest - 1 - query : longest - 1 - query + length]
    return pairs


def exact_attention(
    qkv: mx.array | np.ndarray,
    lengths: list[int],
    heads: int,
    scale: float,
    bias: mx.array | None = None,
    window: int | None = None,
    *,
    causal: bool = False,
) -> np.ndarray:
    rows = qkv if isinstance(qkv, np.ndarray) else exact(qkv)
    width = rows.shape[1] // 3
    out = np.zeros((len(rows), width))
    begin = 0
    for length in lengths:
        part = rows[begin : begin + length].reshape(length, 3, heads, width // heads)
        q, k, v = part.transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + each_pair(exact(bias), length)
        if window is not None:
            place = np.arange(length)
            scores[:, np.abs(place[:, None] - place) > window] = -np.inf
        if causal:
            scores[:, np.triu(np.ones((length, length), dtype=bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e300))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[begin : begin + length] = (weights @ v).transpose(1, 0, 2).reshape(length, width)
        begin += length
    return out


def rotation(lengths: list[int], head_dim: int, norms: HeadNorms | None = None) -> Rotation:
    """Of random angles."""
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    angles = np.random.default_rng().uniform(0, 6, size=(max(lengths) + 2, head_dim // 2)).astype(np.float32)
    return Rotation(mx.array(positions), mx.array(np.cos(angles)), mx.array(np.sin(angles)), norms)


def head_norms(head_dim: int, dtype: str, offset: float = 0.0) -> HeadNorms:
    return HeadNorms(random(head_dim, dtype=dtype), random(head_dim, dtype=dtype), 1e-5, offset)


def rotated(qkv: mx.array, turn: Rotation, heads: int, kv_heads: int) -> np.ndarray:
    """What `rope` makes of qkv, by complex numbers."""
    half = turn.cos.shape[1]
    rows = exact(qkv).reshape(len(qkv), heads + 2 * kv_heads, 2 * half)
    turning = rows[:, : heads + kv_heads]
    if turn.norms is not None:
        turning = turning / np.sqrt((turning**2).mean(axis=-1, keepdims=True) + turn.norms.eps)
        turning[:, :heads] *= turn.norms.offset + exact(turn.norms.query)
        turning[:, heads:] *= turn.norms.offset + exact(turn.norms.key)
    angle = (exact(turn.cos) + 1j * exact(turn.sin))[np.array(turn.positions)][:, None]
    turned = (turning[..., :half] + 1j * turning[..., half:]) * angle
    whole = [turned.real, turned.imag]
    return np.concatenate([np.concatenate(whole, axis=-1), rows[:, heads + kv_heads :]], axis=1).reshape(len(qkv), -1)


def shared(rows: np.ndarray, heads: int, kv_heads: int) -> np.ndarray:
    """qkv in which each head of key and value is there for all heads of the query that share it."""
    parts = np.split(rows.reshape(len(rows), heads + 2 * kv_heads, -1), [heads, heads + kv_heads], axis=1)
    each = [parts[0], *(np.repeat(part, heads // kv_heads, axis=1) for part in parts[1:])]
    return np.concatenate(each, axis=1).reshape(len(rows), -1)


def limit(backend: str, dtype: str) -> float:
    """MLX's own attention rounds the scores as well, and may use TF32 on CUDA."""
    if backend != "reference":
        return TOLERANCE[dtype]
    return max(TOLERANCE[dtype] * 4, 4e-3 if mx.cuda.is_available() else 0)


class Machine:
    """A Mac on which candidates take the seconds that a test says, 1 ms if it says nothing.

    It has no kernel of position_ids, which references are made of.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.seconds: dict[str, float] = {}
        self.timed: list[str] = []
        self.kernels: list[str] = []  # what ran, at other than a sample's shapes
        for name in PLAYED:
            self.ship(name, OP[name].reference)
        monkeypatch.setitem(OP["attention"].others["metal"], "rotating kernel", self._rotating)
        monkeypatch.delitem(OP["position_ids"].kernels, "metal")
        self.restart()
        self.by_the_clock = tune.measure
        monkeypatch.setattr(tune, "measure", self.measure)

    def ship(self, name: str, kernel: Callable[..., mx.array]) -> None:
        """Let `kernel` be the Metal kernel of the op of this name."""

        def called(*arguments: Any, **options: Any) -> mx.array:
            self.kernels.append(name)
            return kernel(*arguments, **options)

        self.monkeypatch.setitem(OP[name].kernels, "metal", called)

    def _rotating(self, *arguments: Any, **options: Any) -> mx.array:
        if arguments[5] is None:
            raise NotImplementedError
        self.kernels.append("rotating attention")
        return OP["attention"].reference(*arguments, **options)

    def restart(self) -> None:
        """What a process remembers is forgotten."""
        forget_kernels(self.monkeypatch)
        self.timed.clear()

    def measure(self, op: str, candidates: Mapping[str, tune.Run], **_: Any) -> dict[str, float]:
        self.timed.append(op)
        for run in candidates.values():
            mx.eval(run(run(None)))
        return {name: self.seconds.get(name, 1e-3) for name in candidates}


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setattr(op, "default_backend", lambda: "metal")
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)
    machine = Machine(monkeypatch)
    with mx.stream(mx.cpu):  # exact, whatever GPU the machine really has
        yield machine
