"""The ops that encoders are written in, on packed tokens [T, ...].

An encoder given `mlx.core` arrays builds a lazy graph of MLX's ops and this package's GPU kernels. Given numpy arrays
it computes at once, by the native CPU kernels, from weights that `pack` has laid out for them.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

import custom_kernels
from custom_kernels import LayerWeights, Linear, cpu, packed
from custom_kernels.ops.activate import ACTIVATIONS, Gate
from custom_kernels.ops.short_encoder import is_short, short_encoder
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.errors import UnsupportedModelError

# mlx.core.array or numpy.ndarray; all of one call's are of one kind.
Array: TypeAlias = Any

__all__ = [
    "Array",
    "Rope",
    "activation",
    "add_linear",
    "attention",
    "embedding_norm",
    "encoder_layers",
    "feed_forward",
    "gated_feed_forward",
    "lay_out",
    "layer_norm",
    "linear",
    "normed_feed_forward",
    "offset_position_ids",
    "output_norm",
    "pack",
    "position_ids",
    "zeros_like",
]

# config.json's hidden_act to our name and its function on MLX arrays; the CPU kernels know the same names.
_NAMES = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def activation(hidden_act: str) -> str:
    """The ops' name of what config.json calls `hidden_act`."""
    name = _NAMES.get(hidden_act, hidden_act)
    if name not in ACTIVATIONS:
        known = sorted({*ACTIVATIONS, *_NAMES})
        raise UnsupportedModelError(f'config.json has "hidden_act": {hidden_act!r}; mlx_embed has {", ".join(known)}.')
    return name


def pack(encoder: nn.Module) -> None:
    """Lay an encoder's weights out for the native CPU kernels, which then run it on numpy arrays, and drop them."""
    for module in encoder.modules():
        if isinstance(module, (nn.Linear, nn.QuantizedLinear)):
            module.packed = cpu.Linear(_table(module), _float32(module["bias"]) if "bias" in module else None)
        elif isinstance(module, (nn.Embedding, nn.QuantizedEmbedding)):
            module.packed = _table(module)
        elif isinstance(module, LayerNorm):
            bias = _float32(module.bias) if "bias" in module else None
            module.packed = cpu.Norm(_float32(module.weight), bias, module.eps)
        else:
            continue
        for name in ("weight", "scales", "biases", "bias"):
            module.pop(name, None)


def lay_out(encoder: nn.Module) -> None:
    """Lay the weights of linear layers out for this GPU's kernels, if it has any, beside the weights themselves."""
    for module in encoder.modules():
        if type(module) is nn.Linear and (laid_out := custom_kernels.lay_out_linear(module.weight)) is not None:
            # With what it was made of, which somebody may replace. MLX counts no such name among the parameters.
            module._laid_out = (module.weight, laid_out)


def embedding_norm(lookups: Sequence[tuple[nn.Module, Array]], norm: LayerNorm) -> Any:
    """The sum of each table's rows at its ids [T], normalised: [T, hidden]."""
    if isinstance(lookups[0][1], np.ndarray):
        return cpu.embedding_norm([(table.packed, ids) for table, ids in lookups], *norm.packed)
    if norm.backend is None and not any("scales" in table for table, _ in lookups):
        tables = [(table.weight, ids) for table, ids in lookups]
        return custom_kernels.embedding_norm(tables, norm.weight, norm.get("bias"), norm.eps)
    total = lookups[0][0](lookups[0][1])
    for table, ids in lookups[1:]:
        total = total + table(ids)
    return norm(total)


def linear(x: Array, layer: nn.Module, act: str | None = None) -> Any:
    """act(x W^T + b): [T, K] -> [T, N]."""
    if isinstance(x, np.ndarray):
        return cpu.linear(x, layer.packed, act)
    if type(layer) is not nn.Linear:
        y = layer(x)
        return y if act is None else custom_kernels.activate(y, act)
    return custom_kernels.linear(x, _linear(layer), act)


def attention(
    qkv: Array,
    cu_seqlens: Array,
    num_heads: int,
    scale: float,
    bias: Array | None,
    max_seqlen: int,
    window: int | None = None,
) -> Any:
    """softmax(scale * Q K^T + bias) V within each sequence: [T, 3 * hidden] -> [T, hidden].

    `bias` [heads, 2 * L - 1] is by distance, and shared by all sequences. With a `window`, only tokens at most so far
    apart see each other.
    """
    way: Any = cpu.attention if isinstance(qkv, np.ndarray) else custom_kernels.attention
    return way(qkv, cu_seqlens, num_heads, scale, bias, max_seqlen=max_seqlen, window=window)


class Rope:
    """Rotary position embedding: the tables of its angles, and the rotation of query and key.

    The frequencies are base^(-2i / head_dim), divided by `slowdown`.
    """

    def __init__(self, head_dim: int, base: float, positions: int, slowdown: float = 1.0) -> None:
        frequencies = base ** (-np.arange(0, head_dim, 2) / head_dim) / slowdown
        angles = np.outer(np.arange(positions, dtype=np.float32), frequencies.astype(np.float32))
        self.cos, self.sin = np.cos(angles), np.sin(angles)

    @cached_property
    def mlx(self) -> tuple[mx.array, mx.array]:
        """The tables as MLX arrays, which are read-only, so that any number of graphs may share them."""
        return mx.array(self.cos), mx.array(self.sin)

    def __call__(self, qkv: Array, positions: Array, num_heads: int) -> Any:
        """[T, 3 * hidden] -> [T, 3 * hidden]; numpy's in place."""
        if isinstance(qkv, np.ndarray):
            return cpu.rope(qkv, positions, self.cos, self.sin, num_heads)
        return custom_kernels.rope(qkv, positions, *self.mlx, num_heads)


def layer_norm(x: Array, norm: LayerNorm) -> Any:
    """[T, hidden] -> [T, hidden], normalised."""
    if isinstance(x, np.ndarray):
        return cpu.layer_norm(x, *norm.packed)
    return norm(x)


def add_linear(x: Array, layer: nn.Module, residual: Array) -> Any:
    """x W^T + b + residual: [T, K] -> [T, hidden]."""
    if isinstance(x, np.ndarray):
        return cpu.linear(x, layer.packed, None, residual)
    return linear(x, layer) + residual


def gated_feed_forward(x: Array, up: nn.Module, down: nn.Module, act: str, gate: Gate, norm: LayerNorm) -> Any:
    """norm(down(act(a) * b) + x): [T, hidden] -> [T, hidden].

    up(x) is [T, 2 F]; `gate`, "first" or "second", says which half of it is a.
    """
    if isinstance(x, np.ndarray):
        return cpu.feed_forward(x, up.packed, down.packed, act, *norm.packed, gated=gate)
    return norm(_gated(x, up, down, act, gate), residual=x)


def normed_feed_forward(x: Array, norm: LayerNorm, up: nn.Module, down: nn.Module, act: str, gate: Gate) -> Any:
    """down(act(a) * b) + x, where a and b are the halves of up(norm(x)): [T, hidden] -> [T, hidden]."""
    if isinstance(x, np.ndarray):
        normed = layer_norm(x, norm)
        return cpu.feed_forward(normed, up.packed, down.packed, act, None, None, 0.0, gated=gate, residual=x)
    return _gated(norm(x), up, down, act, gate) + x


def _gated(x: mx.array, up: nn.Module, down: nn.Module, act: str, gate: Gate) -> mx.array:
    return down(custom_kernels.activate(linear(x, up), act, gate))


def output_norm(x: Array, layer: nn.Module, residual: Array, norm: LayerNorm) -> Any:
    """norm(x W^T + b + residual): [T, K] -> [T, hidden]."""
    if isinstance(x, np.ndarray):
        return cpu.output_norm(x, layer.packed, residual, *norm.packed)
    if type(layer) is not nn.Linear or norm.backend is not None:
        return norm(linear(x, layer), residual=residual)
    return custom_kernels.output_norm(x, _linear(layer), residual, norm.weight, norm.get("bias"), norm.eps)


def feed_forward(x: Array, up: nn.Module, down: nn.Module, act: str, norm: LayerNorm) -> Any:
    """norm(down(act(up(x))) + x): [T, hidden] -> [T, hidden]."""
    if isinstance(x, np.ndarray):
        return cpu.feed_forward(x, up.packed, down.packed, act, *norm.packed)
    return norm(down(linear(x, up, act)), residual=x)


def encoder_layers(
    layers: Sequence[nn.Module], x: Array, cu_seqlens: Array, max_seqlen: int, bias: Array | None = None
) -> Any:
    """x [T, hidden] through post-norm layers (BERT's): in one launch, where a kernel takes a short batch."""
    first = layers[0]
    if isinstance(x, np.ndarray):
        if not hasattr(first, "native"):
            first.native = _native_encoder(layers)
        return first.native(x, cu_seqlens, bias)
    if first.attention_norm.backend is None and is_short(x.size):
        parts = [_parts(layer) for layer in layers]
        if not any("scales" in part for layer in parts for part in layer):
            weights = [LayerWeights(*(x for part in layer for x in (part.weight, part.bias))) for layer in parts]
            heads, scale = first.attention.num_heads, first.attention.scale
            eps, act = first.attention_norm.eps, first.activation
            kernel = short_encoder(x.shape[0], weights, heads, eps, act, bias)
            if kernel:
                return kernel(x, cu_seqlens, weights, heads, scale, eps, act, bias)
    for layer in layers:
        x = layer(x, cu_seqlens, max_seqlen, bias)
    return x


def offset_position_ids(input_ids: Array, cu_seqlens: Array, pad_token_id: int) -> Any:
    """RoBERTa's positions: real tokens count on from pad_token_id + 1, a literal pad token stays at pad_token_id."""
    xp: Any = np if isinstance(input_ids, np.ndarray) else mx
    real = (input_ids != pad_token_id).astype(xp.int32)
    seen = xp.cumsum(real).astype(xp.int32)
    before = xp.concatenate([xp.zeros((1,), dtype=xp.int32), seen])[cu_seqlens]
    return (seen - before[_sequence_ids(cu_seqlens, input_ids.shape[0])]) * real + pad_token_id


def position_ids(cu_seqlens: Array, total: int) -> Any:
    """Each token's place in its own sequence, counted from 0: int32 [T]."""
    way: Any = cpu.position_ids if isinstance(cu_seqlens, np.ndarray) else custom_kernels.position_ids
    return way(cu_seqlens, total)


def _sequence_ids(cu_seqlens: Array, total: int) -> Any:
    way: Any = cpu.sequence_ids if isinstance(cu_seqlens, np.ndarray) else packed.sequence_ids
    return way(cu_seqlens, total)


def zeros_like(input_ids: Array) -> Any:
    """A zero for each token: [T]."""
    return np.zeros_like(input_ids) if isinstance(input_ids, np.ndarray) else packed.zeros(input_ids.shape[0])


def _parts(layer: nn.Module) -> tuple[nn.Module, ...]:
    """A post-norm layer's modules with weights, in the order in which they come up."""
    attention = layer.attention
    return attention.qkv, attention.out, layer.attention_norm, layer.up, layer.down, layer.output_norm


def _native_encoder(layers: Sequence[nn.Module]) -> cpu.Encoder:
    first = layers[0]
    native = [cpu.EncoderLayer(*(part.packed for part in _parts(layer))) for layer in layers]
    return cpu.Encoder(native, first.attention.num_heads, first.attention.scale, first.activation)


def _linear(layer: nn.Module) -> Linear:
    """The layer's arrays, with what `lay_out` made of this very weight."""
    source, laid_out = layer.get("_laid_out", (None, None))
    return Linear(layer.weight, layer.get("bias"), laid_out if source is layer.weight else None)


def _table(module: nn.Module) -> npt.NDArray[np.float32]:
    """A linear layer's or embedding's weight [N, K], quantized or not."""
    if "scales" not in module:
        return _float32(module.weight)
    whole = mx.dequantize(module.weight, module.scales, module.get("biases"), module.group_size, module.bits)
    return _float32(whole)


def _float32(array: mx.array) -> npt.NDArray[np.float32]:
    """The array's memory as numpy's, which keeps it alive."""
    return np.ascontiguousarray(np.asarray(array.astype(mx.float32)))
