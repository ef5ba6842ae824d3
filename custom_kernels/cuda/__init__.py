"""Launches of the CUDA kernels, one function an op, with the op's own signature.

NotImplementedError says that there is no kernel for these shapes or dtypes. What a model fixes (dtypes, widths) is
compiled in; what changes from batch to batch is an argument.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar

import mlx.core as mx
import numpy as np

from custom_kernels.activation import ACTIVATIONS
from custom_kernels.backends import kernel_source
from custom_kernels.cuda.driver import multiprocessors
from custom_kernels.cuda.nvrtc import cubin
from custom_kernels.encoder import LayerWeights, short_capacity
from custom_kernels.linear import NARROW, NORM_OUTPUTS

# Pieces that several kernels are made of; they come before the kernel's own source.
SHARED = {
    "activate": ("activations",),
    "attention": ("halves", "sequences"),
    "attention_general": ("sequences",),
    "linear": ("activations", "halves", "products"),
    "output_norm": ("halves", "products"),
    "position_ids": ("sequences",),
    "short_encoder": ("activations", "halves", "sequences"),
}
MAX_WIDTH = 8192
MAX_HEAD_DIM = 256
MAX_THREADS = 2**31 - 1
# One-warp rows in a block.
ROWS = 4
# Shared memory of a block on Hopper, and what of it a product keeps for barriers and alignment.
HOPPER_MEMORY = 232448
RESERVED = 1280

Lookup = tuple[mx.array, mx.array]
Scalar = int | float
Value = TypeVar("Value")
Pairs = tuple[tuple[str, Value], ...]


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
    types = {"T": qkv.dtype, "B": qkv.dtype if bias is None else bias.dtype}
    constants = {"D": head_dim, "HAS_BIAS": bias is not None, "HAS_WINDOW": window is not None}
    if qkv.dtype != mx.float32 and head_dim % 16 == 0 and head_dim <= 128:
        warps, tiles, keys = _tiles(head_dim, max_seqlen, bias is not None)
        queries, name = warps * tiles * 16, "attention"
        constants |= {"BFLOAT": qkv.dtype == mx.bfloat16, "WARPS": warps, "TILES": tiles, "KEYS": keys}
    elif head_dim <= MAX_HEAD_DIM:
        warps, queries, name = 4, 32, "attention_general"
    else:
        raise NotImplementedError(f"The CUDA attention kernels take heads up to {MAX_HEAD_DIM} wide, not {head_dim}.")
    # Blocks for the longest sequence in every place, or for the tokens there are: see attention.cu.
    blocks = min(n * -(-max_seqlen // queries), total // queries + n) * num_heads
    return launch(
        name,
        # Without a bias the kernel still has the parameter, and never reads it.
        [qkv, cu_seqlens, qkv if bias is None else bias],
        [total, n, num_heads, 0 if bias is None else bias.shape[1], scale, window or 0],
        (blocks, warps * 32),
        (total, width // 3),
        qkv.dtype,
        types,
        constants,
    )


def short_encoder(
    x: mx.array,
    cu_seqlens: mx.array,
    layers: Sequence[LayerWeights],
    num_heads: int,
    scale: float,
    eps: float,
    act: str,
    bias: mx.array | None = None,
) -> mx.array:
    """One launch of `short_encoder.cu`."""
    total, hidden = x.shape
    inner = layers[0].up_weight.shape[0]
    head_dim = hidden // num_heads
    if hidden % 32 or inner % 32 or head_dim % 8 or head_dim > 128 or hidden > 2048:
        raise NotImplementedError(f"There is no CUDA kernel for short batches of layers {hidden} and {inner} wide.")
    types = {"T": x.dtype, "B": x.dtype if bias is None else bias.dtype}
    constants = {
        "H": hidden,
        "HEADS": num_heads,
        "INNER": inner,
        "TOKENS": short_capacity(total),
        "ACTIVATION": tuple(ACTIVATIONS).index(act),
        "HAS_BIAS": bias is not None,
        "BFLOAT": x.dtype == mx.bfloat16,
        "LAYERS": len(layers),
    }
    places = range(len(LayerWeights._fields) * len(layers))
    macros = {
        "WEIGHTS": ", ".join(f"const T* w{i}" for i in places),
        "FILL": " ".join(f"table[{i}] = w{i};" for i in places),
    }
    out, *_ = _launch(
        "short_encoder",
        [
            x,
            cu_seqlens,
            # The barriers' state, of this launch's own: two may run side by side.
            mx.zeros((64,), dtype=mx.int32, stream=mx.gpu),
            # Without a bias the kernel still has the parameter, and never reads it.
            x if bias is None else bias,
            *(array for weights in layers for array in weights),
        ],
        [total, cu_seqlens.shape[0] - 1, 0 if bias is None else bias.shape[1], scale, eps],
        (min(multiprocessors(), 128), 256),
        [
            ((total, hidden), x.dtype),
            # What its steps hand on.
            ((total, 3 * hidden), x.dtype),
            ((total, hidden), x.dtype),
            ((total, hidden), mx.float32),
            ((total, hidden), x.dtype),
            ((total, inner), x.dtype),
        ],
        types,
        constants,
        macros,
    )
    return out


def linear(x: mx.array, weight: mx.array, bias: mx.array | None, act: str | None, packed: mx.array | None) -> mx.array:
    """One launch of `linear.cu`; `packed` is `pack_linear`'s of the weight, which itself is not read."""
    total, (outputs, inputs) = x.shape[0], weight.shape
    narrow = inputs <= NARROW
    groups = 3 if narrow else 2
    columns = 96 if narrow and outputs % 96 == 0 else 64
    tiles = -(-total // (groups * 64)) * (outputs // columns)
    constants = {"ACTIVATION": -1 if act is None else tuple(ACTIVATIONS).index(act), "HAS_BIAS": bias is not None}
    # Without a bias the kernel still has the parameter, and never reads it.
    return _product("linear", x, packed, [x if bias is None else bias], [total], tiles, groups, columns, constants)


def output_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array,
    residual: mx.array,
    norm_weight: mx.array,
    norm_bias: mx.array,
    eps: float,
    packed: mx.array | None,
) -> mx.array:
    """One launch of `output_norm.cu`; `packed` is `pack_linear`'s of the weight, which itself is not read."""
    total, outputs = x.shape[0], weight.shape[0]
    if outputs not in NORM_OUTPUTS:
        raise NotImplementedError(f"The CUDA kernel of output_norm has no rows {outputs} wide.")
    others = [bias, residual, norm_weight, norm_bias]
    return _product("output_norm", x, packed, others, [total, eps], -(-total // 128), 2, 128, {}, parameters=3)


def _product(
    name: str,
    x: mx.array,
    packed: mx.array | None,
    others: list[mx.array],
    scalars: list[Scalar],
    tiles: int,
    groups: int,
    columns: int,
    constants: Mapping[str, int],
    parameters: int = 0,
) -> mx.array:
    """One launch of a kernel made of `products.cu`, on x, the packed weight and `others`: [T, N].

    Its blocks share `tiles` of 64 rows for each of `groups` warpgroups, and `columns` columns; each keeps `parameters`
    floats of every output at hand.
    """
    if packed is None or _architecture() != "sm_90":
        raise NotImplementedError("The CUDA kernels of products are for Hopper's tensor cores, and packed weights.")
    depths, outputs, _ = packed.shape
    if outputs % columns:
        raise NotImplementedError(f"The CUDA kernel of this product takes multiples of {columns} outputs.")
    kept = RESERVED + groups * depths * 64 * 128 + parameters * outputs * 4
    stages = min((HOPPER_MEMORY - kept) // (columns * 128), 8)
    if stages < 3:
        raise NotImplementedError(f"Rows {depths * 64} wide do not fit into the CUDA kernels of products.")
    return launch(
        name,
        [x, packed, *others],
        scalars,
        (min(multiprocessors(), tiles), (groups + 1) * 128),
        (x.shape[0], outputs),
        x.dtype,
        {"T": x.dtype},
        {
            "BFLOAT": packed.dtype == mx.bfloat16,
            "K": depths * 64,
            "N": outputs,
            "COLUMNS": columns,
            "STAGES": stages,
            "GROUPS": groups,
            **constants,
        },
        {"WGMMA": _wgmma(columns, packed.dtype)},
        kept + stages * columns * 128,
    )


def _wgmma(columns: int, dtype: mx.Dtype) -> str:
    """The instruction's statement: 64 rows x 16 times 16 x `columns`, both in shared memory, added to `sum`."""
    sums = columns // 2
    registers = ", ".join(f"%{i}" for i in range(sums))
    operands = ", ".join(f'"+f"(sum[{i}])' for i in range(sums))
    kind = "bf16" if dtype == mx.bfloat16 else "f16"
    return (
        f'asm volatile("{{.reg .pred p;\\nsetp.ne.b32 p, %{sums + 2}, 0;\\n'
        f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} "
        f'{{{registers}}}, %{sums}, %{sums + 1}, p, 1, 1, 0, 0;}}" : {operands} : "l"(rows), "l"(columns), "r"(keep))'
    )


def activate(x: mx.array, act: str, gate: str | None = None) -> mx.array:
    """One launch of `activate.cu`."""
    rows, width = x.shape[0], x.shape[1] // (2 if gate else 1)
    vector = next(v for v in (16 // x.dtype.size, 4, 2, 1) if width % v == 0)
    constants = {
        "WIDTH": width,
        "VEC": vector,
        "GATE": (None, "first", "second").index(gate),
        "ACTIVATION": tuple(ACTIVATIONS).index(act),
    }
    grid = (-(-rows * width // (vector * 256)), 256)
    return launch("activate", [x], [rows], grid, (rows, width), x.dtype, {"T": x.dtype}, constants)


def position_ids(cu_seqlens: mx.array, total: int) -> mx.array:
    """One launch of `position_ids.cu`: a thread a token."""
    n = cu_seqlens.shape[0] - 1
    return launch("position_ids", [cu_seqlens], [total, n], (-(-total // 256), 256), (total,), mx.int32)


def rope(qkv: mx.array, positions: mx.array, cos: mx.array, sin: mx.array, num_heads: int) -> mx.array:
    """One launch of `rope.cu`: a thread for each pair of elements."""
    total, half = qkv.shape[0], cos.shape[1]
    return launch(
        "rope",
        [qkv, positions, cos, sin],
        [total],
        (-(-total * 3 * num_heads * half // 256), 256),
        qkv.shape,
        qkv.dtype,
        {"T": qkv.dtype},
        {"HEADS": num_heads, "HALF": half},
    )


def mean_pool(hidden: mx.array, cu_seqlens: mx.array, skip: int = 0, normalize: bool = False) -> mx.array:
    """One launch of `mean_pool.cu`: a block a sequence."""
    width = hidden.shape[1]
    n = cu_seqlens.shape[0] - 1
    vector = _vector(hidden, 32)
    chunks = -(-width // (32 * vector))
    if chunks > 32:
        raise NotImplementedError(f"The CUDA mean_pool kernel does not take rows {width} wide.")
    groups = max(16 // chunks, 1)
    constants = {"WIDTH": width, "VEC": vector, "GROUPS": groups, "NORMALIZE": normalize}
    return launch(
        "mean_pool",
        [hidden, cu_seqlens],
        [skip],
        (n, chunks * groups * 32),
        (n, width),
        mx.float32,
        {"T": hidden.dtype},
        constants,
    )


def _normalise(
    inputs: list[mx.array], ids: list[mx.array] | None, weight: mx.array | None, bias: mx.array | None, eps: float
) -> mx.array:
    """A warp a row up to 1024 wide, else up to 8 warps."""
    first, width, count = inputs[0], inputs[0].shape[1], len(inputs)
    if width > MAX_WIDTH or count > 3 or any(x.dtype != first.dtype for x in inputs):
        raise NotImplementedError(f"The CUDA kernel adds up to 3 rows of one dtype, up to {MAX_WIDTH} wide.")
    total = first.shape[0] if ids is None else ids[0].shape[0]
    lanes = min(256, -(-width // 1024) * 32)
    rows = ROWS if lanes == 32 else 1
    # A kernel has all its parameters in every variant; what a variant does not need, it never reads.
    weight_or_any = first if weight is None else weight
    bias_or_any = first if bias is None else bias
    ids_or_any = [first] * 3 if ids is None else ids + [ids[0]] * (3 - count)
    types = {"T": first.dtype, "W": weight_or_any.dtype, "B": bias_or_any.dtype}
    constants = {
        "WIDTH": width,
        "VEC": _vector(first, lanes),
        "LANES": lanes,
        "ROWS": rows,
        "COUNT": count,
        "LOOKUP": ids is not None,
        "NORM": weight is not None,
        "HAS_BIAS": bias is not None,
    }
    return launch(
        "layer_norm",
        [*inputs, *[first] * (3 - count), *ids_or_any, weight_or_any, bias_or_any],
        [total, eps],
        (-(-total // rows), rows * lanes),
        (total, width),
        first.dtype,
        types,
        constants,
    )


def _tiles(head_dim: int, max_seqlen: int, has_bias: bool) -> tuple[int, int, int]:
    """(warps a block, tiles of 16 queries a warp, keys at a time): what measured fastest on an H100."""
    if max_seqlen <= 16:
        return 1, 1, 16
    if max_seqlen <= 32:
        return 2, 1, 32
    if head_dim > 64:
        return 4, 1, 32
    if max_seqlen <= 64:
        return 2, 2, 32
    return 4, 2, 64 if head_dim > 32 and not has_bias else 32  # with a bias 64 would spill registers


def _vector(x: mx.array, lanes: int) -> int:
    """Elements that a lane reads at once: 16 bytes at most, dividing the row, and leaving no lane idle if possible."""
    width = x.shape[-1]
    widest = 16 // x.dtype.size
    dividing = [v for v in (widest, widest // 2, widest // 4) if v and width % v == 0]
    return next((v for v in dividing if width % (v * lanes) == 0), dividing[0] if dividing else 1)


def launch(
    name: str,
    inputs: list[mx.array],
    scalars: list[Scalar],
    grid: tuple[int, int],
    shape: tuple[int, ...],
    dtype: mx.Dtype,
    types: Mapping[str, mx.Dtype] | None = None,
    constants: Mapping[str, int] | None = None,
    macros: Mapping[str, str] | None = None,
    shared_memory: int = 0,
) -> mx.array:
    """One launch of kernel `name` with (blocks, threads a block), lazy like every op: its output."""
    outputs = [(shape, dtype)]
    return _launch(name, inputs, scalars, grid, outputs, types or {}, constants or {}, macros or {}, shared_memory)[0]


def _launch(
    name: str,
    inputs: list[mx.array],
    scalars: list[Scalar],
    grid: tuple[int, int],
    outputs: list[tuple[tuple[int, ...], mx.Dtype]],
    types: Mapping[str, mx.Dtype],
    constants: Mapping[str, int],
    macros: Mapping[str, str],
    shared_memory: int = 0,
) -> list[mx.array]:
    blocks, threads = grid
    if blocks * threads > MAX_THREADS:
        raise NotImplementedError(f"This batch is more than one launch of the CUDA kernel of {name} takes.")
    out: list[mx.array] = mx.fast.precompiled_cuda_kernel(
        name=name,
        compiled_source=_compiled(name, tuple(types.items()), tuple(constants.items()), tuple(macros.items())),
        inputs=inputs,
        output_shapes=[shape for shape, _ in outputs],
        output_dtypes=[dtype for _, dtype in outputs],
        # MLX refuses a float that float32 cannot hold exactly.
        scalars=[float(np.float32(x)) if isinstance(x, float) else x for x in scalars],
        grid=(blocks * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        shared_memory=shared_memory,
        ensure_row_contiguous=True,
        stream=mx.gpu,
    )
    return out


@cache
def _compiled(name: str, types: Pairs[mx.Dtype], constants: Pairs[int], macros: Pairs[str] = ()) -> bytes:
    """Kernel `name` for these types, constants and macros, as machine code for this GPU."""
    # The instructions that only one generation has come with its name and an "a".
    suffix = "a" if "products" in SHARED.get(name, ()) else ""
    return cubin(source(name, types, constants, macros), _architecture() + suffix)


@cache
def _architecture() -> str:
    """This GPU's, "sm_90" or the like."""
    return str(mx.device_info(mx.gpu)["architecture"])


def source(name: str, types: Pairs[mx.Dtype], constants: Pairs[int], macros: Pairs[str] = ()) -> str:
    """The whole source of kernel `name`: the float types, what is compiled in, shared pieces, and `<name>.cu`."""
    spelled = {mx.float32: "float", mx.float16: "float16", mx.bfloat16: "bfloat16"}
    lines = [f"using {alias} = {spelled[dtype]};" for alias, dtype in types]
    lines += [f"constexpr {type(value).__name__} {alias} = {str(value).lower()};" for alias, value in constants]
    lines += [f"#define {alias} {value}" for alias, value in macros]
    parts = [kernel_source("cuda", part) for part in (*SHARED.get(name, ()), name)]
    return "\n".join([kernel_source("cuda", "floats"), *lines, *parts])
