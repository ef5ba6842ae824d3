"""The ops that encoders, pooling and heads are written in, on packed tokens [T, ...].

Each is there twice under one name: in `graph`, on `mlx.core` arrays, where it adds to a lazy graph of MLX's ops and
this package's GPU kernels; and in `native`, on numpy arrays, where the native CPU kernels compute it at once. Which of
the two runs is decided here, by the kind of array, and nowhere else. `lay_out` of either prepares an encoder's weights.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from custom_kernels.ops.activate import Gate
from custom_kernels.ops.attention import MASKED
from mlx_embed.architectures.norm import LayerNorm, RMSNorm
from mlx_embed.architectures.ops import graph, native
from mlx_embed.architectures.ops.activations import activation
from mlx_embed.architectures.ops.layers import PostNormLayers, at_rows, with_rows

# mlx.core.array or numpy.ndarray; all of one call's are of one kind.
Array: TypeAlias = Any

__all__ = [
    "Array",
    "PostNormLayers",
    "Rope",
    "activation",
    "add_linear",
    "alibi",
    "at_rows",
    "attention",
    "block",
    "causal_bias",
    "columns",
    "disentangled_attention",
    "distance_bias",
    "embed",
    "embedding_norm",
    "encoder_layers",
    "erf",
    "experts",
    "feed_forward",
    "float32",
    "gated",
    "gated_feed_forward",
    "gather_mean",
    "ids",
    "layer_norm",
    "linear",
    "linear_max",
    "mean_pool",
    "namespace",
    "normalize",
    "normed_feed_forward",
    "offset_position_ids",
    "output_norm",
    "own",
    "places",
    "position_ids",
    "product",
    "rms_norm",
    "rotation",
    "settled",
    "with_rows",
    "zeros_like",
]


def _twin(x: Array) -> ModuleType:
    """Where the ops on this kind of array are."""
    return native if isinstance(x, np.ndarray) else graph


def embedding_norm(lookups: Sequence[tuple[nn.Module, Array]], norm: LayerNorm) -> Array:
    """The sum of each table's rows at its ids [T], normalised: [T, hidden]; of one to three tables."""
    return _twin(lookups[0][1]).embedding_norm(lookups, norm)


def embed(table: nn.Module, input_ids: Array, scale: float = 1.0) -> Array:
    """The table's rows at these ids [T], times `scale`: [T, hidden]."""
    return _twin(input_ids).embed(table, input_ids, scale)


def linear(x: Array, layer: nn.Module, act: str | None = None) -> Array:
    """act(x W^T + b): [T, K] -> [T, N]; `act` is what `activation` gives."""
    return _twin(x).linear(x, layer, act)


def product(x: Array, weight: Array) -> Array:
    """x W^T, of a matrix [N, K] among a head's own arrays: [n, K] -> [n, N]."""
    return _twin(x).product(x, weight)


def linear_max(x: Array, layer: nn.Module, cu_seqlens: Array) -> Array:
    """The greatest of x W^T + b over each text's tokens, in float32: [T, K] -> [n, N]."""
    return _twin(x).linear_max(x, layer, cu_seqlens)


def add_linear(x: Array, layer: nn.Module, residual: Array) -> Array:
    """x W^T + b + residual: [T, K] -> [T, hidden]."""
    return _twin(x).add_linear(x, layer, residual)


def layer_norm(x: Array, norm: LayerNorm) -> Array:
    """[T, hidden] -> [T, hidden], normalised."""
    return _twin(x).layer_norm(x, norm)


def rms_norm(x: Array, norm: RMSNorm, residual: Array | None = None) -> Array:
    """[T, hidden] -> [T, hidden], normalised, and then the residual added."""
    return _twin(x).rms_norm(x, norm, residual)


def output_norm(x: Array, layer: nn.Module, residual: Array, norm: LayerNorm) -> Array:
    """norm(x W^T + b + residual): [T, K] -> [T, hidden]."""
    return _twin(x).output_norm(x, layer, residual, norm)


def attention(
    qkv: Array,
    cu_seqlens: Array,
    num_heads: int,
    scale: float,
    bias: Array | None,
    max_seqlen: int,
    window: int | None = None,
    *,
    causal: bool = False,
    kv_heads: int | None = None,
    rotation: Any = None,
) -> Array:
    """softmax(scale * Q K^T + bias) V within each sequence: [T, (heads + 2 kv_heads) * d] -> [T, heads * d].

    `bias`, from `distance_bias`, is shared by all sequences. With a `window`, only tokens at most so far apart see each
    other; where it is `causal`, only what is before them. There are as many `kv_heads` as heads if none are given.
    `rotation` is what `rotation` gives.
    """
    masks = {"window": window, "causal": causal, "kv_heads": kv_heads}
    return _twin(qkv).attention(qkv, cu_seqlens, num_heads, scale, bias, max_seqlen, rotation, **masks)


def rotation(positions: Array, rope: "Rope", max_seqlen: int, norms: tuple[RMSNorm, RMSNorm] | None = None) -> Any:
    """What `attention` does to query and key first: normalise each head, by the one norm and the other, and rotate.

    `positions` [T] are from `position_ids`, and below max_seqlen.
    """
    return _twin(positions).rotation(positions, rope, max_seqlen, norms)


def disentangled_attention(
    qkv: Array,
    to_key: Array | None,
    to_query: Array | None,
    rows: Array,
    cu_seqlens: Array,
    num_heads: int,
    scale: float,
    max_seqlen: int,
) -> Array:
    """softmax(scale * (q_i k_j + q_i P_(i - j) + k_j R_(i - j))) V within each sequence: [T, 3 * H] -> [T, H].

    `to_key` [U, H] has rows of P, and `to_query` of R; None adds nothing. `rows` [2 L + 1] says which of them each
    distance from -L to L has, L >= max_seqlen and at least 1.
    """
    return _twin(qkv).disentangled_attention(qkv, to_key, to_query, rows, cu_seqlens, num_heads, scale, max_seqlen)


def settled(like: Array) -> bool:
    """Whether weights stay as they are, as those laid out for the CPU's kernels do; a graph's may be replaced."""
    return _twin(like) is native


def columns(x: Array, begin: int, end: int) -> Array:
    """Some columns of x [n, N]: [n, end - begin]."""
    return _twin(x).columns(x, begin, end)


def ids(values: np.ndarray[Any, np.dtype[Any]], like: Array) -> Array:
    """These whole numbers, which are a constant of compiled graphs, as an int32 array of the kind of `like`."""
    return _twin(like).ids(values)


def distance_bias(table: nn.Module, buckets: np.ndarray[Any, np.dtype[np.int32]]) -> Array:
    """An attention's bias by distance, from a table [buckets, heads]: [heads, 2 L - 1], for keys j and queries i.

    `buckets` [2 L - 1] has the table's row for each distance j - i from -(L - 1) to L - 1.
    """
    return _twin(table).distance_bias(table, buckets)


def causal_bias(x: Array, num_heads: int, max_seqlen: int) -> Array:
    """An attention's bias that hides from each token of x what comes after it: [heads, 2 L - 1], L >= 1."""
    distances = np.arange(1 - max(max_seqlen, 1), max(max_seqlen, 1))
    row = np.where(distances > 0, MASKED, 0).astype(np.float32)
    return _twin(x).constant(np.tile(row, (num_heads, 1)), x)


def alibi(x: Array, num_heads: int, max_seqlen: int) -> Array:
    """An attention's bias that lowers scores by distance (Press et al., 2021): [heads, 2 L - 1], L >= 1.

    Of 2^k heads, the n-th lowers by 2^(-8 n / 2^k) a token; between two powers of two, the rest take every other one of
    the next power's.
    """
    whole = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * n / whole) for n in range(1, whole + 1)]
    slopes += [2.0 ** (-4 * n / whole) for n in range(1, 2 * whole + 1, 2)][: num_heads - whole]
    distances = np.abs(np.arange(1 - max(max_seqlen, 1), max(max_seqlen, 1)))
    return _twin(x).constant(np.outer(slopes, -distances).astype(np.float32), x)


def feed_forward(x: Array, up: nn.Module, down: nn.Module, act: str, norm: LayerNorm) -> Array:
    """norm(down(act(up(x))) + x): [T, hidden] -> [T, hidden]."""
    return _twin(x).feed_forward(x, up, down, act, norm)


def gated_feed_forward(x: Array, up: nn.Module, down: nn.Module, act: str, gate: Gate, norm: LayerNorm) -> Array:
    """norm(down(act(a) * b) + x): [T, hidden] -> [T, hidden].

    up(x) is [T, 2 F]; `gate`, "first" or "second", says which half of it is a.
    """
    return _twin(x).gated_feed_forward(x, up, down, act, gate, norm)


def gated(x: Array, up: nn.Module, down: nn.Module, act: str, gate: Gate, residual: Array | None = None) -> Array:
    """down(act(a) * b) + residual, where a and b are the halves of up(x): [T, K] -> [T, hidden]."""
    return _twin(x).gated(x, up, down, act, gate, residual)


def normed_feed_forward(x: Array, norm: LayerNorm, up: nn.Module, down: nn.Module, act: str, gate: Gate) -> Array:
    """down(act(a) * b) + x, where a and b are the halves of up(norm(x)): [T, hidden] -> [T, hidden]."""
    return _twin(x).normed_feed_forward(x, norm, up, down, act, gate)


def experts(x: Array, router: nn.Module, up: nn.Module, down: nn.Module, act: str, top_k: int) -> Array:
    """The sum of each token's `top_k` experts, down_e(act(up_e(x))), by their weights: [T, hidden] -> [T, hidden].

    The weights are the largest of softmax(x R^T), where R is the `Router`'s.
    """
    return _twin(x).experts(x, router, up, down, act, top_k)


def encoder_layers(
    layers: PostNormLayers,
    x: Array,
    cu_seqlens: Array,
    max_seqlen: int,
    bias: Array | None = None,
    rows: Array | None = None,
) -> Array:
    """x [T, hidden] through all of BERT's layers, in one call or one launch where there is one for the batch.

    [T, hidden], or of the tokens `rows` [n] alone: [n, hidden].
    """
    return _twin(x).encoder_layers(layers, x, cu_seqlens, max_seqlen, bias, rows)


class Rope:
    """Rotary position embedding: the tables of its angles, which `rotation` makes of use to `attention`.

    The frequencies are base^(-2i / head_dim), divided by `slowdown`, or those that `of` is given.
    """

    def __init__(self, head_dim: int, base: float, positions: int, slowdown: float = 1.0) -> None:
        self._frequencies = (base ** (-np.arange(0, head_dim, 2) / head_dim) / slowdown).astype(np.float32)
        self._positions, self._magnitude = positions, 1.0
        self._tables: dict[int, tuple[Any, Any]] = {}
        self._mlx: dict[tuple[int, bool], tuple[mx.array, mx.array]] = {}

    @classmethod
    def of(cls, frequencies: np.ndarray[Any, np.dtype[Any]], positions: int, magnitude: float = 1.0) -> "Rope":
        """One of these frequencies [head_dim / 2], whose rotations scale by `magnitude` too."""
        rope = cls(0, 1.0, positions)
        rope._frequencies, rope._magnitude = frequencies.astype(np.float32), magnitude
        return rope

    def tables(self, length: int) -> tuple[Any, Any]:
        """Cosines and sines of `length` positions at least, or of all, which may be far more than texts have."""
        size = min(1 << max(length - 1, 0).bit_length(), self._positions)
        if size not in self._tables:
            angles = np.outer(np.arange(size, dtype=np.float32), self._frequencies)
            magnitude = np.float32(self._magnitude)
            self._tables[size] = np.cos(angles) * magnitude, np.sin(angles) * magnitude
        return self._tables[size]

    def mlx_tables(self, length: int, *, halves: bool = False) -> tuple[mx.array, mx.array]:
        """The same as MLX arrays, or float16, which are read-only, so that any number of graphs may share them."""
        tables = self.tables(length)
        key = len(tables[0]), halves
        if key not in self._mlx:
            cos, sin = (mx.array(table.astype(np.float16) if halves else table) for table in tables)
            self._mlx[key] = cos, sin
        return self._mlx[key]


def position_ids(cu_seqlens: Array, total: int) -> Array:
    """Each of the `total` tokens' place in its own sequence, counted from 0: [T]."""
    return _twin(cu_seqlens).position_ids(cu_seqlens, total)


def offset_position_ids(input_ids: Array, cu_seqlens: Array, pad_token_id: int) -> Array:
    """RoBERTa's positions: real tokens count on from pad_token_id + 1, a literal pad token stays at pad_token_id."""
    xp = namespace(input_ids)
    real = (input_ids != pad_token_id).astype(xp.int32)
    seen = xp.cumsum(real).astype(xp.int32)
    before = xp.concatenate([xp.zeros((1,), dtype=xp.int32), seen])[cu_seqlens]
    return (seen - before[_twin(input_ids).sequence_ids(cu_seqlens, input_ids.shape[0])]) * real + pad_token_id


def zeros_like(input_ids: Array) -> Array:
    """A zero for each token: [T]."""
    return _twin(input_ids).zeros_like(input_ids)


def mean_pool(hidden: Array, cu_seqlens: Array, skip: int, unit: bool = False) -> Array:
    """The average of each text's tokens but its first `skip`, in float32: [T, hidden] -> [n, hidden].

    With `unit` scaled to length 1, in the same launch where there are launches.
    """
    return _twin(hidden).mean_pool(hidden, cu_seqlens, skip, unit)


def gather_mean(table: Array, input_ids: Array, cu_seqlens: Array) -> Array:
    """The average of the rows of a `TokenTable` for each text's tokens, in float32: [T] -> [n, H]."""
    return _twin(input_ids).gather_mean(table, input_ids, cu_seqlens)


def block(hidden: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
    """The texts as rows of a block: [T, hidden] -> [n, max_seqlen, hidden]; what follows a text in its row is any."""
    return _twin(hidden).block(hidden, cu_seqlens, max_seqlen)


def places(cu_seqlens: Array, max_seqlen: int) -> Array:
    """0 .. max_seqlen - 1, as an array of cu_seqlens' kind."""
    return _twin(cu_seqlens).places(max_seqlen)


def normalize(vectors: Array) -> Array:
    """Scale each row of [n, dim] to length 1; a zero row stays zero."""
    return _twin(vectors).normalize(vectors)


def float32(x: Array) -> Array:
    """x in float32: itself, where it is."""
    return _twin(x).float32(x)


def erf(x: Array) -> Array:
    """The error function of each element, in x's dtype."""
    return _twin(x).erf(x)


def own(values: Array, x: Array) -> Array:
    """An array that is an encoder's own, in none of its layers, as one of x's kind and dtype."""
    return _twin(x).own(values, x)


def namespace(x: Array) -> Any:
    """numpy or mlx.core, whichever x is of: they name many functions alike."""
    return _twin(x).NAMESPACE
