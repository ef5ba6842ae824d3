"""The ops on numpy arrays: the native CPU kernels, which compute at once from weights laid out for them."""

import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import erf as _erf
from typing import Any, NamedTuple, TypeAlias

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from custom_kernels.cpu import position_ids, sequence_ids
from custom_kernels.ops.activate import Gate
from custom_kernels.parameters import HeadNorms, Rotation
from mlx_embed.architectures.expert_layer import ExpertLayer, QuantizedExpertLayer, Router
from mlx_embed.architectures.norm import LayerNorm, RMSNorm
from mlx_embed.architectures.ops import unseen
from mlx_embed.architectures.ops.activations import FORMULAS
from mlx_embed.architectures.ops.layers import PostNormLayers, at_rows, parts, with_rows
from mlx_embed.architectures.token_table import TokenTable
from mlx_embed.errors import CheckpointError

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]

__all__ = ["laid_out", "lay_out", "position_ids", "sequence_ids"]

NAMESPACE = np
_BESIDE_ROWS = ("mapping", "weights")
erf = np.vectorize(_erf, otypes=[np.float32])


# What attention is computed in, which qkv, always float32, does not tell.
_attention_dtype: ContextVar[str] = ContextVar("attention_dtype", default="float32")


@contextmanager
def attention_in(dtype: str) -> Iterator[None]:
    """Within it, attention's products are in "float32" or "bfloat16", as far as this thread or task is concerned."""
    token = _attention_dtype.set(dtype)
    try:
        yield
    finally:
        _attention_dtype.reset(token)


def lay_out(
    encoder: nn.Module,
    dtype: str = "float32",
    kept: Collection[str] = (),
    better: str = "float32",
    columns: Mapping[str, Callable[[Floats], Floats]] | None = None,
    each: Callable[[], None] | None = None,
) -> dict[str, cpu.Linear]:
    """Put in the place of an encoder's parts what these ops take instead: its weights as the kernels read them.

    Linear layers become `cpu.Linear`, embeddings arrays [V, H], norms `cpu.Norm` and `cpu.RMSNorm`, and layers of
    BERT's kind one `cpu.Encoder`, if that has their activation. `dtype` is what linear layers are kept in; see
    `cpu.Linear`. Those whose paths are among `kept` are in `better` instead. `columns` are functions by the paths of
    layers, which give of a weight what its columns are multiplied by in int8. `each` is called after each linear layer,
    whose weight is of no more use then.

    Returns:
        The linear layers by their paths.

    Raises:
        CheckpointError: a path in `kept` or `columns` at which there is no linear layer.
    """
    paths = {path for path, module in encoder.named_modules() if isinstance(module, _LINEAR)}
    columns = columns or {}
    if strangers := sorted({*kept, *columns} - paths):
        raise CheckpointError(
            f'config.json says in "int8_cpu" how to compute {strangers[0]}, which is no linear layer of this model.'
        )
    # Without the leaves, so that the weights of each go as soon as it is laid out.
    modules = {path: module for path, module in encoder.named_modules() if not isinstance(module, _LEAVES)}
    layers = dict[str, cpu.Linear]()
    for path, module in modules.items():
        for name in list(module):
            place = f"{path}.{name}".removeprefix(".")
            if (ready := _laid_out(module[name], better if place in kept else dtype, columns.get(place))) is not None:
                setattr(module, name, ready)
                if isinstance(ready, cpu.Linear):
                    if place in paths:  # the experts' router is in float32 always
                        layers[place] = ready
                    if each is not None:
                        each()
    _clear_cache()
    cpu.trim()
    for module in modules.values():
        for name, child in list(module.items()):
            if isinstance(child, PostNormLayers) and child[0].activation not in FORMULAS:
                setattr(module, name, _encoder(child, dtype))
    return layers


def _clear_cache() -> None:
    """Let MLX give back what memory it keeps.

    With several GPUs its CUDA build leaves the thread that calls it on the last of them, and then fails to copy what
    the others have. A thread of its own has nothing to copy afterwards.
    """
    if not mx.cuda.is_available():
        mx.clear_cache()
        return
    thread = threading.Thread(target=mx.clear_cache)
    thread.start()
    thread.join()


def attention_dtype(dtype: str) -> str:
    """What attention is in beside linear layers in `dtype`: bfloat16 where they are narrow and it is faster so."""
    return "bfloat16" if dtype != "float32" and cpu.attends("bfloat16") else "float32"


def laid_out(module: Mapping[str, mx.array]) -> Any:
    """A head's own layer as these ops take it, or its arrays by their names, matrices being `cpu.Linear`.

    numpy's products would leave threads of its BLAS that spin for a while, on the cores that the next batch needs.
    """
    ready = _laid_out(module, "float32") if isinstance(module, nn.Module) else None
    if ready is not None:
        return ready
    return {name: cpu.Linear(_float32(x)) if x.ndim == 2 else np.array(x) for name, x in module.items()}


def embedding_norm(lookups: Sequence[tuple[Floats, Ints]], norm: cpu.Norm) -> Floats:
    """See `ops`."""
    return cpu.embedding_norm(lookups, *norm)


def embed(table: Floats, input_ids: Ints, scale: float) -> Floats:
    """See `ops`."""
    rows = cpu.embedding_norm([(table, input_ids)], None, None, 0.0)
    return rows if scale == 1 else rows * np.float32(scale)


def linear(x: Floats, layer: cpu.Linear, act: str | None = None) -> Floats:
    """See `ops`."""
    if act in FORMULAS:
        return _formula(act, cpu.linear(x, layer))
    return cpu.linear(x, layer, act)


def product(x: Floats, weight: cpu.Linear) -> Floats:
    """See `ops`."""
    return cpu.linear(np.ascontiguousarray(x), weight)


def linear_max(x: Floats, layer: cpu.Linear, cu_seqlens: Ints) -> Floats:
    """See `ops`."""
    return cpu.linear_max(x, layer, cu_seqlens)


def add_linear(x: Floats, layer: cpu.Linear, residual: Floats) -> Floats:
    """See `ops`."""
    return cpu.linear(x, layer, None, residual)


def layer_norm(x: Floats, norm: cpu.Norm) -> Floats:
    """See `ops`."""
    return cpu.layer_norm(np.ascontiguousarray(x), *norm)


def rms_norm(x: Floats, norm: cpu.RMSNorm, residual: Floats | None) -> Floats:
    """See `ops`."""
    return cpu.rms_norm(x, norm.weight, norm.eps, residual, norm.offset)


def output_norm(x: Floats, layer: cpu.Linear, residual: Floats, norm: cpu.Norm) -> Floats:
    """See `ops`."""
    return cpu.output_norm(x, layer, residual, *norm)


def attention(
    qkv: Floats,
    cu_seqlens: Ints,
    num_heads: int,
    scale: float,
    bias: Floats | None,
    max_seqlen: int,
    rotation: Rotation | None = None,
    *,
    window: int | None = None,
    causal: bool = False,
    kv_heads: int | None = None,
) -> Floats:
    """See `ops`; qkv is of no more use."""
    head_dim = qkv.shape[1] // (num_heads + 2 * (kv_heads or num_heads))
    options: dict[str, Any] = {"window": window, "causal": causal, "kv_heads": kv_heads}
    options["dtype"] = _attention_dtype.get() if head_dim % 2 == 0 else "float32"
    if rotation is not None and unseen.is_any():
        positions, cos, sin, norms = rotation[:4]
        qkv, rotation = cpu.rope(qkv, positions, cos, sin, num_heads, kv_heads, norms), None  # type: ignore[arg-type]
    qkv, out_of = unseen.widened(qkv, num_heads, np, kv_heads)
    return out_of(cpu.attention(qkv, cu_seqlens, num_heads, scale, bias, rotation, max_seqlen=max_seqlen, **options))


def rotation(positions: Ints, rope: Any, max_seqlen: int, norms: tuple[cpu.RMSNorm, cpu.RMSNorm] | None) -> Rotation:
    """See `ops`."""
    heads: Any = None
    if norms is not None:
        query, key = norms
        heads = HeadNorms(query.weight, key.weight, query.eps, query.offset)  # type: ignore[arg-type]
    cos, sin = rope.tables(max_seqlen)
    return Rotation(positions, cos, sin, heads)  # type: ignore[arg-type]


def disentangled_attention(
    qkv: Floats,
    to_key: Floats | None,
    to_query: Floats | None,
    rows: Ints,
    cu_seqlens: Ints,
    num_heads: int,
    scale: float,
    max_seqlen: int,
) -> Floats:
    """See `ops`."""
    dtype = _attention_dtype.get() if qkv.shape[1] // (3 * num_heads) % 2 == 0 else "float32"
    if to_key is None and to_query is None:
        return cpu.attention(qkv, cu_seqlens, num_heads, scale, dtype=dtype)
    return cpu.disentangled_attention(qkv, to_key, to_query, rows, cu_seqlens, num_heads, scale, dtype=dtype)


def columns(x: Floats, begin: int, end: int) -> Floats:
    """See `ops`."""
    return np.ascontiguousarray(x[:, begin:end])


def ids(values: npt.NDArray[Any]) -> Ints:
    """See `ops`."""
    return values.astype(np.int32)


def distance_bias(table: Floats, buckets: Ints) -> Floats:
    """See `ops`."""
    return np.ascontiguousarray(table[buckets].T)


def feed_forward(x: Floats, up: cpu.Linear, down: cpu.Linear, act: str, norm: cpu.Norm) -> Floats:
    """See `ops`."""
    if act in FORMULAS:
        return cpu.output_norm(linear(x, up, act), down, x, *norm)
    return cpu.feed_forward(x, up, down, act, *norm)


def gated_feed_forward(x: Floats, up: cpu.Linear, down: cpu.Linear, act: str, gate: Gate, norm: cpu.Norm) -> Floats:
    """See `ops`."""
    if act in FORMULAS:
        return cpu.output_norm(_gated(cpu.linear(x, up), act, gate), down, x, *norm)
    return cpu.feed_forward(x, up, down, act, *norm, gated=gate)


def gated(x: Floats, up: cpu.Linear, down: cpu.Linear, act: str, gate: Gate, residual: Floats | None) -> Floats:
    """See `ops`."""
    if act in FORMULAS:
        return cpu.linear(_gated(cpu.linear(x, up), act, gate), down, None, residual)
    added = False if residual is None else residual
    return cpu.feed_forward(x, up, down, act, None, None, 0.0, gated=gate, residual=added)


def normed_feed_forward(x: Floats, norm: cpu.Norm, up: cpu.Linear, down: cpu.Linear, act: str, gate: Gate) -> Floats:
    """See `ops`."""
    return gated(layer_norm(x, norm), up, down, act, gate, x)


def experts(x: Floats, router: cpu.Linear, up: "_Experts", down: "_Experts", act: str, top_k: int) -> Floats:
    """See `ops`: one expert after the other, each on the rows that it has."""
    logits = cpu.linear(x, router)
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    chosen = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
    weights = np.zeros_like(scores)
    np.put_along_axis(weights, chosen, np.take_along_axis(scores, chosen, axis=1), axis=1)
    weights /= scores.sum(axis=1, keepdims=True)
    out = np.tile(down.bias, (len(x), 1))
    for expert, weight in enumerate(weights.T):
        rows = np.flatnonzero(weight)
        if len(rows):
            active = linear(x[rows], up.layers[expert], act)
            out[rows] += cpu.linear(active, down.layers[expert]) * weight[rows, None]
    return out


def encoder_layers(
    layers: cpu.Encoder | PostNormLayers,
    x: Floats,
    cu_seqlens: Ints,
    max_seqlen: int,
    bias: Floats | None = None,
    rows: Ints | None = None,
) -> Floats:
    """See `ops`: in one call, unless it is without their activation, or attention hides tokens. May overwrite x."""
    if isinstance(layers, cpu.Encoder) and not unseen.is_any():
        return layers(x, cu_seqlens, bias, rows, in_place=True)
    if isinstance(layers, cpu.Encoder):
        for layer, wanted in with_rows(layers.layers, rows):
            qkv, out, attention_norm, up, down, output_norm = layer
            attended = attention(cpu.linear(x, qkv), cu_seqlens, layers.num_heads, layers.scale, bias, max_seqlen)
            attended, x = at_rows(wanted, attended, x)
            x = cpu.output_norm(attended, out, x, *attention_norm)
            x = cpu.feed_forward(x, up, down, layers.act, *output_norm)
        return x
    for layer, wanted in with_rows(layers, rows):
        x = layer(x, cu_seqlens, max_seqlen, bias, wanted)
    return x


def zeros_like(input_ids: Ints) -> Ints:
    """See `ops`."""
    return np.zeros_like(input_ids)


def mean_pool(hidden: Floats, cu_seqlens: Ints, skip: int, unit: bool) -> Floats:
    """See `ops`."""
    return cpu.mean_pool(hidden, cu_seqlens, skip, unit)


def gather_mean(table: cpu.Table, input_ids: Ints, cu_seqlens: Ints) -> Floats:
    """See `ops`."""
    return cpu.gather_mean(table.rows, input_ids, cu_seqlens, table.mapping, table.weights)


def block(hidden: Floats, cu_seqlens: Ints, max_seqlen: int) -> Floats:
    """See `ops`."""
    return hidden[np.minimum(cu_seqlens[:-1, None] + places(max_seqlen), len(hidden) - 1)]


def places(max_seqlen: int) -> Ints:
    """See `ops`."""
    return np.arange(max_seqlen, dtype=np.int32)


def normalize(vectors: Floats) -> Floats:
    """See `ops`."""
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit


def constant(values: Floats, x: Floats) -> Floats:
    """These numbers, which are of x's dtype."""
    return values


def own(values: mx.array | Floats, x: Floats) -> Floats:
    """See `ops`."""
    return _float32(values)


def float32(x: Floats) -> Floats:
    """See `ops`."""
    return x


def _formula(act: str, x: Floats) -> Floats:
    """An activation that the kernels do not have."""
    return np.ascontiguousarray(FORMULAS[act](x, sys.modules[__name__]), dtype=np.float32)


def _gated(x: Floats, act: str, gate: Gate) -> Floats:
    """act(a) * b, where a is the half of x [T, 2 F] that `gate` says, and b the other: [T, F]."""
    first, second = np.split(x, 2, axis=-1)
    a, b = (first, second) if gate == "first" else (second, first)
    return _formula(act, a) * b


_LINEAR = (nn.Linear, nn.QuantizedLinear)
_EXPERTS = (ExpertLayer, QuantizedExpertLayer)
_LEAVES = (*_LINEAR, *_EXPERTS, Router, nn.Embedding, nn.QuantizedEmbedding, LayerNorm, RMSNorm)


class _Experts(NamedTuple):
    """What an `ExpertLayer` is here: a linear layer for each, and the bias [N] that they share, of zeros for none."""

    layers: tuple[cpu.Linear, ...]
    bias: Floats


def _laid_out(module: Any, dtype: str, columns: Callable[[Floats], Floats] | None = None) -> Any:
    if isinstance(module, _LINEAR):
        weight, bias = _matrix(module), _float32(module["bias"]) if "bias" in module else None
        return cpu.Linear(weight, bias, dtype, columns(weight) if columns is not None and dtype == "int8" else None)
    if isinstance(module, _EXPERTS):
        matrices = np.split(_matrix(module), module.count)
        turned = [np.ascontiguousarray(matrix.T) if module.turned else matrix for matrix in matrices]
        bias = _float32(module.bias) if "bias" in module else np.zeros(len(turned[0]), dtype=np.float32)
        return _Experts(tuple(cpu.Linear(matrix, None, dtype) for matrix in turned), bias)
    if isinstance(module, Router):
        return cpu.Linear(_float32(module.weight))
    if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding)):
        return _matrix(module)
    if isinstance(module, LayerNorm):
        return cpu.Norm(_float32(module.weight), _float32(module.bias) if "bias" in module else None, module.eps)
    if isinstance(module, RMSNorm):
        return cpu.RMSNorm(_float32(module.weight), module.eps, module.offset)
    if isinstance(module, TokenTable):
        return cpu.Table(_kept(module.rows), *(np.array(module[n]) if n in module else None for n in _BESIDE_ROWS))
    return None


def _kept(rows: mx.array) -> npt.NDArray[Any]:
    """The array's memory, in its own dtype where the kernels have that."""
    return _float32(rows) if rows.dtype == mx.bfloat16 else np.ascontiguousarray(np.asarray(rows))


def _encoder(layers: PostNormLayers, dtype: str) -> cpu.Encoder:
    first = layers[0]
    rows = [cpu.EncoderLayer(*parts(layer)) for layer in layers]
    heads = first.attention.num_heads
    attends = attention_dtype(dtype) if rows[0].down.out_features // heads % 2 == 0 else "float32"
    return cpu.Encoder(rows, heads, first.attention.scale, first.activation, attends)


def _matrix(module: nn.Module) -> Floats:
    """A linear layer's or embedding's weight [N, K], quantized or not."""
    if "scales" not in module:
        return _float32(module.weight)
    how = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    return _float32(mx.dequantize(module.weight, module.scales, module.get("biases"), **how, dtype=mx.float32))


def _float32(array: mx.array | Floats) -> Floats:
    """The array's memory as numpy's, which keeps it alive."""
    if isinstance(array, np.ndarray):
        return array
    return np.ascontiguousarray(np.asarray(array.astype(mx.float32)))
