"""The ops on MLX arrays: lazy graphs of MLX's ops and this package's GPU kernels."""

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

import custom_kernels
from custom_kernels import HeadNorms, LayerWeights, Rotation, position_ids, short_encoder
from custom_kernels.backends import default_backend
from custom_kernels.ops.activate import Gate
from custom_kernels.ops.attention import MASKED
from custom_kernels.ops.short_encoder import is_short
from custom_kernels.packed import counting, pad, sequence_ids, unpad, zeros
from custom_kernels.parameters import Layers
from mlx_embed.architectures.expert_layer import ExpertLayer, Router
from mlx_embed.architectures.norm import LayerNorm, RMSNorm
from mlx_embed.architectures.ops import disentangled, unseen
from mlx_embed.architectures.ops.activations import FORMULAS
from mlx_embed.architectures.ops.layers import PostNormLayers, at_rows, parts, with_rows
from mlx_embed.architectures.token_table import TokenTable

__all__ = ["lay_out", "position_ids", "sequence_ids"]

_HERE = sys.modules[__name__]
NAMESPACE = mx
# What follows a linear layer in the same launch, where there is a kernel for both.
Then = Literal["activation", "norm"]
erf = mx.erf


class Linear(nn.Module):
    """A linear layer whose weight is kept a second time, as this GPU's kernels of linear layers read it."""

    def __init__(self, layer: nn.Linear, laid_out: mx.array) -> None:
        super().__init__()
        self.weight = layer.weight
        if "bias" in layer:
            self.bias = layer.bias
        # With what it was made of, which somebody may replace. MLX counts no such name among the parameters.
        self._laid_out = (layer.weight, laid_out)

    @property
    def laid_out(self) -> mx.array | None:
        """The second copy, if it is still of this very weight."""
        weight, laid_out = self._laid_out
        return laid_out if weight is self.weight else None

    def __call__(self, x: mx.array) -> mx.array:
        """x W^T + b: [T, K] -> [T, N]."""
        return linear(x, self)


def lay_out(encoder: nn.Module) -> None:
    """Lay the weights of linear layers out for this GPU's kernels, if it has any, beside the weights themselves.

    Layers that an activation follows are called `up` or `up_gate`; `out`, and `down` in a layer with an `output_norm`,
    have a LayerNorm behind them.
    """
    for module in encoder.modules():
        for name, child in list(module.items()):
            if type(child) is nn.Linear:
                normed = name == "down" and "output_norm" in module
                then: Then | None = "activation" if name.startswith("up") else "norm" if normed else None
                laid_out = custom_kernels.lay_out_linear(child.weight, then)
                if laid_out is not None:
                    setattr(module, name, Linear(child, laid_out))


def embedding_norm(lookups: Sequence[tuple[nn.Module, mx.array]], norm: LayerNorm) -> mx.array:
    """See `ops`."""
    if any("scales" in table for table, _ in lookups):
        total = lookups[0][0](lookups[0][1])
        for table, ids in lookups[1:]:
            total = total + table(ids)
        return norm(total)
    tables = [(table.weight, ids) for table, ids in lookups]
    return custom_kernels.embedding_norm(tables, norm.weight, norm.get("bias"), norm.eps)


def embed(table: nn.Module, input_ids: mx.array, scale: float) -> mx.array:
    """See `ops`."""
    rows: mx.array = table(input_ids)
    return rows if scale == 1 else rows * scale


def linear(x: mx.array, layer: nn.Module, act: str | None = None) -> mx.array:
    """See `ops`."""
    if act in FORMULAS:
        return FORMULAS[act](linear(x, layer), _HERE)
    if isinstance(layer, nn.QuantizedLinear):
        y = layer(x)
        return y if act is None else custom_kernels.activate(y, act)
    return custom_kernels.linear(x, _weights(layer), act)


def product(x: mx.array, weight: mx.array) -> mx.array:
    """See `ops`."""
    return x @ weight.T


def linear_max(x: mx.array, layer: nn.Module, cu_seqlens: mx.array) -> mx.array:
    """See `ops`."""
    return custom_kernels.linear_max(x, _weights(layer), cu_seqlens)


def add_linear(x: mx.array, layer: nn.Module, residual: mx.array) -> mx.array:
    """See `ops`."""
    if isinstance(layer, nn.QuantizedLinear):
        return layer(x) + residual
    return custom_kernels.linear(x, _weights(layer), None, residual)


def layer_norm(x: mx.array, norm: LayerNorm) -> mx.array:
    """See `ops`."""
    return norm(x)


def rms_norm(x: mx.array, norm: RMSNorm, residual: mx.array | None) -> mx.array:
    """See `ops`."""
    return norm(x, residual)


def output_norm(x: mx.array, layer: nn.Module, residual: mx.array, norm: LayerNorm) -> mx.array:
    """See `ops`."""
    if not isinstance(layer, Linear):
        return norm(linear(x, layer), residual=residual)
    return custom_kernels.output_norm(x, _weights(layer), residual, norm.weight, norm.get("bias"), norm.eps)


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None,
    max_seqlen: int,
    rotation: Rotation | None,
    **masks: Any,
) -> mx.array:
    """See `ops`."""
    kv_heads = masks["kv_heads"]
    if rotation is not None and unseen.is_any():
        qkv, rotation = custom_kernels.rope(qkv, *rotation[:3], num_heads, kv_heads, rotation.norms), None
    qkv, out_of = unseen.widened(qkv, num_heads, mx, kv_heads)
    return out_of(
        custom_kernels.attention(qkv, cu_seqlens, num_heads, scale, bias, rotation, max_seqlen=max_seqlen, **masks)
    )


def rotation(positions: mx.array, rope: Any, max_seqlen: int, norms: tuple[RMSNorm, RMSNorm] | None) -> Rotation:
    """See `ops`."""
    heads = None
    if norms is not None:
        query, key = norms
        heads = HeadNorms(query.weight, key.weight, query.eps, query.offset)
    cos, sin = rope.mlx_tables(max_seqlen)
    halves = rope.mlx_tables(max_seqlen, halves=True) if mx.cuda.is_available() else None
    return Rotation(positions, cos, sin, heads, halves)


def disentangled_attention(
    qkv: mx.array,
    to_key: mx.array | None,
    to_query: mx.array | None,
    rows: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    max_seqlen: int,
) -> mx.array:
    """See `ops`: on a block of texts, each padded to the longest."""
    total, head_dim = qkv.shape[0], qkv.shape[1] // (3 * num_heads)
    if total == 0 or max_seqlen == 0:
        return qkv[:, : num_heads * head_dim]
    block, valid = pad(qkv, cu_seqlens, max_seqlen)
    heads = block.reshape(*block.shape[:2], 3 * num_heads, head_dim).transpose(0, 2, 1, 3)
    q, k, v = mx.split(heads, 3, axis=1)
    key = None if to_key is None else _by_head(to_key[rows[-2::-1]], num_heads)
    query = None if to_query is None else _by_head(to_query[rows[1:]], num_heads)
    scores = disentangled.scores(q, k, key, query, scale)
    if valid is not None:
        scores = mx.where(valid[:, None, None, :], scores, MASKED)
    out = mx.softmax(scores, axis=-1, precise=True) @ v
    return unpad(out.transpose(0, 2, 1, 3).reshape(*block.shape[:2], num_heads * head_dim), cu_seqlens, total)


def _by_head(rows: mx.array, num_heads: int) -> mx.array:
    """[2 L, hidden] -> [heads, 2 L, head_dim]."""
    return rows.reshape(rows.shape[0], num_heads, -1).transpose(1, 0, 2)


def columns(x: mx.array, begin: int, end: int) -> mx.array:
    """See `ops`."""
    return x[:, begin:end]


def ids(values: np.ndarray[Any, np.dtype[Any]]) -> mx.array:
    """See `ops`."""
    return mx.array(values.astype(np.int32))


def distance_bias(table: nn.Module, buckets: np.ndarray[Any, np.dtype[np.int32]]) -> mx.array:
    """See `ops`."""
    return mx.contiguous(table(mx.array(buckets)).T)


def feed_forward(x: mx.array, up: nn.Module, down: nn.Module, act: str, norm: LayerNorm) -> mx.array:
    """See `ops`."""
    return output_norm(linear(x, up, act), down, x, norm)


def gated_feed_forward(x: mx.array, up: nn.Module, down: nn.Module, act: str, gate: Gate, norm: LayerNorm) -> mx.array:
    """See `ops`."""
    return norm(gated(x, up, down, act, gate, None), residual=x)


def gated(x: mx.array, up: nn.Module, down: nn.Module, act: str, gate: Gate, residual: mx.array | None) -> mx.array:
    """See `ops`."""
    if act in FORMULAS:
        first, second = mx.split(linear(x, up), 2, axis=-1)
        a, b = (first, second) if gate == "first" else (second, first)
        active = FORMULAS[act](a, _HERE) * b
    elif isinstance(up, nn.QuantizedLinear):
        active = custom_kernels.activate(up(x), act, gate)
    else:
        active = custom_kernels.gated_linear(x, _weights(up), act, gate)
    return linear(active, down) if residual is None else add_linear(active, down, residual)


def normed_feed_forward(x: mx.array, norm: LayerNorm, up: nn.Module, down: nn.Module, act: str, gate: Gate) -> mx.array:
    """See `ops`."""
    return gated(norm(x), up, down, act, gate, x)


def experts(x: mx.array, router: Router, up: nn.Module, down: nn.Module, act: str, top_k: int) -> mx.array:
    """See `ops`: rows are put in the order of their experts first, so that each reads its weights once."""
    total = x.shape[0]
    scores = mx.softmax(float32(x) @ float32(router.weight).T, axis=-1)
    chosen = mx.argpartition(-scores, top_k - 1, axis=-1)[:, :top_k]
    weights = mx.take_along_axis(scores, chosen, axis=-1)
    order = mx.argsort(chosen.reshape(-1))
    which = chosen.reshape(-1)[order]
    hidden = _of_experts(x[order // top_k], up, which)
    active = FORMULAS[act](hidden, _HERE) if act in FORMULAS else custom_kernels.activate(hidden, act)
    rows = _of_experts(active, down, which)[mx.argsort(order)].reshape(total, top_k, x.shape[1])
    return (float32(rows) * weights[..., None]).sum(axis=1).astype(x.dtype) + down.bias


def _of_experts(x: mx.array, layer: nn.Module, which: mx.array) -> mx.array:
    """Rows [n, K] times the weights of their experts [n], which are in order: [n, N]."""
    # MLX takes the distance between rows from the axis of one row, where `x[:, None]` has 1: only `reshape` is right.
    x = x.reshape(-1, 1, x.shape[1])
    weight = layer.weight.reshape(layer.count, -1, layer.weight.shape[-1])
    if not isinstance(layer, ExpertLayer):
        scales = layer.scales.reshape(*weight.shape[:2], -1)
        biases = layer.biases.reshape(*weight.shape[:2], -1) if "biases" in layer else None
        how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode, "transpose": not layer.turned}
        return mx.gather_qmm(x, weight, scales, biases, rhs_indices=which, sorted_indices=True, **how)[:, 0]
    turned = weight if layer.turned else weight.swapaxes(1, 2)
    if default_backend() is None:  # MLX multiplies so on a CPU in float32 alone
        return mx.gather_mm(float32(x), float32(turned), rhs_indices=which, sorted_indices=True)[:, 0].astype(x.dtype)
    return mx.gather_mm(x, turned, rhs_indices=which, sorted_indices=True)[:, 0]


def encoder_layers(
    layers: PostNormLayers,
    x: mx.array,
    cu_seqlens: mx.array,
    max_seqlen: int,
    bias: mx.array | None = None,
    rows: mx.array | None = None,
) -> mx.array:
    """See `ops`: in one launch, where a kernel takes a short batch."""
    first = layers[0]
    if is_short(x.size) and not unseen.is_any() and first.activation not in FORMULAS:
        modules = [parts(layer) for layer in layers]
        if not any("scales" in part for layer in modules for part in layer):
            weights = _kept(
                layers, [LayerWeights(*(x for part in layer for x in (part.weight, part.bias))) for layer in modules]
            )
            heads, scale = first.attention.num_heads, first.attention.scale
            eps, act = first.attention_norm.eps, first.activation
            kernel = short_encoder(x.shape[0], weights, heads, eps, act, bias)
            if kernel:
                (out,) = at_rows(rows, kernel(x, cu_seqlens, weights, heads, scale, eps, act, bias))
                return out
    for layer, wanted in with_rows(layers, rows):
        x = layer(x, cu_seqlens, max_seqlen, bias, wanted)
    return x


def _kept(layers: PostNormLayers, weights: list[LayerWeights]) -> Layers:
    """The weights as they were taken before, unless somebody has replaced one."""
    before = layers.kept
    if not isinstance(before, Layers) or any(
        old is not new for pair in zip(before, weights, strict=True) for old, new in zip(*pair, strict=True)
    ):
        layers.kept = before = Layers(weights)
    return before


def zeros_like(input_ids: mx.array) -> mx.array:
    """See `ops`."""
    return zeros(input_ids.shape[0])


def mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int, unit: bool) -> mx.array:
    """See `ops`."""
    return custom_kernels.mean_pool(hidden, cu_seqlens, skip, unit)


def gather_mean(table: TokenTable, input_ids: mx.array, cu_seqlens: mx.array) -> mx.array:
    """See `ops`."""
    return custom_kernels.gather_mean(table.rows, input_ids, cu_seqlens, table.get("mapping"), table.get("weights"))


def block(hidden: mx.array, cu_seqlens: mx.array, max_seqlen: int) -> mx.array:
    """See `ops`."""
    return pad(hidden, cu_seqlens, max_seqlen)[0]


def places(max_seqlen: int) -> mx.array:
    """See `ops`."""
    return counting(max_seqlen)


def normalize(vectors: mx.array) -> mx.array:
    """See `ops`: x / sqrt(mean(x^2) + eps) is one fused op, where norm, maximum and quotient are three launches."""
    dim = vectors.shape[-1]
    return mx.fast.rms_norm(vectors, _filled(dim, dim**-0.5, vectors.dtype), 1e-24 / dim)


def constant(values: np.ndarray[Any, np.dtype[np.float32]], x: mx.array) -> mx.array:
    """These numbers as an array of x's dtype."""
    return mx.array(values).astype(x.dtype)


def own(values: mx.array, x: mx.array) -> mx.array:
    """See `ops`."""
    return values.astype(x.dtype)


def float32(x: mx.array) -> mx.array:
    """See `ops`."""
    return x.astype(mx.float32)


def _weights(layer: nn.Module) -> custom_kernels.Linear:
    laid_out = layer.laid_out if isinstance(layer, Linear) else None
    return custom_kernels.Linear(layer.weight, layer.get("bias"), laid_out)


@cache
def _filled(n: int, value: float, dtype: mx.Dtype) -> mx.array:
    """[n] of one value: a constant of compiled graphs, which costs them no launch."""
    return mx.array(np.full(n, value, dtype=np.float32)).astype(dtype)
