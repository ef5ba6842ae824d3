"""Launches of the CUDA kernels, one function an op, with the op's own signature.

NotImplementedError says that there is no kernel for these shapes or dtypes. Constants of a model (head size, scale,
epsilon, window) are compiled in, as MLX's kernels take no scalars but arrays; sizes of a batch are not.
"""

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import mlx.core as mx

from custom_kernels.backends import kernel_source

MAX_WIDTH = 8192
MAX_HEAD_DIM = 256
MAX_THREADS = 2**31 - 1
# Rows a warp reads before it normalises the first.
ROWS_EACH = 1

Lookup = tuple[mx.array, mx.array]


def layer_norm(
    x: mx.array, weight: mx.array, bias: mx.array | None, eps: float, residual: mx.array | None = None
) -> mx.array:
    """One launch of `layer_norm.cu` on x, or on x + residual."""
    rows = x.reshape(-1, x.shape[-1])
    inputs = [rows] if residual is None else [rows, residual.reshape(rows.shape)]
    return _normalise(inputs, None, weight, bias, eps).reshape(x.shape)


def embedding_norm(lookups: Sequence[Lookup], weight: mx.array | None, bias: mx.array | None, eps: float) -> mx.array:
    """One launch of `layer_norm.cu`, which looks the rows up."""
    return _normalise([table for table, _ in lookups], [ids for _, ids in lookups], weight, bias, eps)


def attention(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    scale: float,
    bias: mx.array | None = None,
    *,
    max_seqlen: int,
    window: int | None = None,
) -> mx.array:
    """One launch of `attention.cu`, on the tensor cores, or of `attention_general.cu`."""
    total, width = qkv.shape
    n = cu_seqlens.shape[0] - 1
    head_dim = width // 3 // num_heads
    template = [
        ("T", qkv.dtype),
        ("D", head_dim),
        ("SCALE_BITS", _bits(scale)),
        ("HAS_BIAS", bias is not None),
        ("WINDOW", -1 if window is None else window),
    ]
    if qkv.dtype != mx.float32 and head_dim % 16 == 0 and head_dim <= 128:
        warps, tiles, keys = _tiles(head_dim, max_seqlen, bias is not None)
        queries, name = warps * tiles * 16, "attention"
        template += [("BFLOAT", qkv.dtype == mx.bfloat16), ("WARPS", warps), ("TILES", tiles), ("KEYS", keys)]
    elif head_dim <= MAX_HEAD_DIM:
        warps, queries, name = 4, 32, "attention_general"
    else:
        raise NotImplementedError(f"The CUDA attention kernels take heads up to {MAX_HEAD_DIM} wide, not {head_dim}.")
    # Blocks for the longest sequence in every place, or for the tokens there are: see attention.cu.
    blocks = min(n * -(-max_seqlen // queries), total // queries + n) * num_heads
    if blocks * warps * 32 > MAX_THREADS:
        raise NotImplementedError(f"A batch of {total} tokens is more than one launch of CUDA attention takes.")
    (out,) = _kernel(name, "qkv", "cu_seqlens", "bias")(
        # Without a bias the kernel still has the parameter, and never reads it.
        inputs=[qkv, cu_seqlens, qkv if bias is None else bias],
        template=template,
        grid=(blocks * warps * 32, 1, 1),
        threadgroup=(warps * 32, 1, 1),
        output_shapes=[(total, width // 3)],
        output_dtypes=[qkv.dtype],
        stream=mx.gpu,
    )
    return out


def mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False) -> mx.array:
    """One launch of `mean_pool.cu`: a block a sequence."""
    width = hidden.shape[1]
    vector = _vector(hidden, 32)
    chunks = -(-width // (32 * vector))
    if chunks > 32:
        raise NotImplementedError(f"The CUDA mean_pool kernel does not take rows {width} wide.")
    groups = max(16 // chunks, 1)
    threads = chunks * groups * 32
    n = cu_seqlens.shape[0] - 1
    (out,) = _kernel("mean_pool", "hidden", "cu_seqlens")(
        inputs=[hidden, cu_seqlens],
        template=[
            ("T", hidden.dtype),
            ("WIDTH", width),
            ("VEC", vector),
            ("GROUPS", groups),
            ("SKIP", skip),
            ("NORMALIZE", normalize),
        ],
        grid=(n * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(n, width)],
        output_dtypes=[mx.float32],
        stream=mx.gpu,
    )
    return out


def _normalise(
    inputs: list[mx.array], ids: list[mx.array] | None, weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """A warp a row up to 1024 wide, else up to 8 warps."""
    first, width = inputs[0], inputs[0].shape[1]
    if width > MAX_WIDTH or len(inputs) > 3 or any(x.dtype != first.dtype for x in inputs):
        raise NotImplementedError(f"The CUDA kernel adds up to 3 rows of one dtype, up to {MAX_WIDTH} wide.")
    total = first.shape[0] if ids is None else ids[0].shape[0]
    lanes = min(256, -(-width // 1024) * 32)
    rows, each = (4, ROWS_EACH) if lanes == 32 else (1, 1)
    vector = _vector(first, lanes)
    blocks = -(-total // (rows * each))
    # A kernel has all its parameters in every variant; what a variant does not need, it never reads.
    absent = first if weight is None else weight
    count = len(inputs)
    inputs = inputs + [first] * (3 - count)
    places = [absent] * 3 if ids is None else ids + [ids[0]] * (3 - len(ids))
    (out,) = _kernel("layer_norm", "a", "b", "c", "ids_a", "ids_b", "ids_c", "weight", "bias")(
        inputs=[*inputs, *places, absent, absent if bias is None else bias],
        template=[
            ("T", first.dtype),
            ("WIDTH", width),
            ("VEC", vector),
            ("LANES", lanes),
            ("ROWS", rows),
            ("EACH", each),
            ("COUNT", count),
            ("LOOKUP", ids is not None),
            ("NORM", weight is not None),
            ("HAS_BIAS", bias is not None),
            ("EPS_BITS", _bits(eps)),
        ],
        grid=(blocks * rows * lanes, 1, 1),
        threadgroup=(rows * lanes, 1, 1),
        output_shapes=[(total, width)],
        output_dtypes=[first.dtype],
        stream=mx.gpu,
    )
    return out


def _tiles(head_dim: int, max_seqlen: int, has_bias: bool) -> tuple[int, int, int]:
    """(warps a block, tiles of 16 queries a warp, keys at a time): no larger than the texts, as registers allow."""
    if max_seqlen <= 16:
        return 1, 1, 16
    if max_seqlen <= 32:
        return 2, 1, 32
    if max_seqlen <= 64 or head_dim > 64:
        return 4, 1, 64 if head_dim <= 64 else 32
    return 4, 2, 64 if head_dim <= 32 and not has_bias else 32


def _vector(x: mx.array, lanes: int) -> int:
    """Elements that a lane reads at once: 16 bytes at most, dividing the row, and leaving no lane idle if possible."""
    width = x.shape[-1]
    widest = 16 // x.dtype.size
    dividing = [v for v in (widest, widest // 2, widest // 4) if v and width % v == 0]
    return next((v for v in dividing if width % (v * lanes) == 0), dividing[0] if dividing else 1)


@cache
def _kernel(name: str, *inputs: str) -> Callable[..., list[mx.array]]:
    # Built at first use: mx.fast.cuda_kernel refuses to be constructed without CUDA.
    source = kernel_source("cuda", name)
    kernel = mx.fast.cuda_kernel(name=name, input_names=list(inputs), output_names=["out"], source=source)
    return cast(Callable[..., list[mx.array]], kernel)


def _bits(x: float) -> int:
    """The bits of a float32, as an int32: template arguments are integers."""
    return int(struct.unpack("<i", struct.pack("<f", x))[0])
