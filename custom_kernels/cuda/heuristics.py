"""Every number that was measured on a card, and every choice made by one: an H100, or for decoders an H200.

Whoever has another card finds here all that may be worth measuring again.
"""

import math
from typing import NamedTuple

import mlx.core as mx

# A LayerNorm of fewer elements, with no residual, is MLX's own: by itself it waits for its launch, or for Python, more
# than for the GPU. The second number is for one in a model, whose other ops hide that wait. docs/benchmarks.md has the
# times.
PLAIN_NORM_SIZE, PLAIN_NORM_SIZE_IN_GRAPH = 48 << 20, 4 << 20
# Values of a short batch's hidden state: 256 tokens of MiniLM, 128 of BERT-base. Beyond, a launch for each op, with
# larger tiles, is faster than one launch for all layers.
MAX_SHORT = 2**17
# Blocks of the launch for all layers: more of them only wait longer for each other.
SHORT_BLOCKS = 128
# Numbers of an encoder's layers that are kept in one array too: MLX takes 0.3 us, or more, for each array of a launch.
MOST_KEPT_TWICE = 2**25
# Wider rows leave little shared memory for the weights, so that they stream by too.
NARROW = 384
# Columns of a tile of such products where they divide the outputs: with these, and not with fewer, they are no slower
# than cuBLAS. 131072 rows 768 wide take 737 us to 2304 outputs and 254 to 768, cuBLAS 792 and 268.
MOST_COLUMNS = 192
# Of fewer rows such a product is over before the host has launched it, for which it takes less by cuBLAS.
FEW_ROWS = 1024
# Rows of a tile of a product in float32, of which a multiprocessor computes one at a time.
FLOAT_ROWS, MULTIPROCESSORS = 128, 132
# Wider rows do not fit beside each other into a multiprocessor's shared memory. Where an activation follows they need
# not, but the wider they are the less a fused one saves, and the more a second copy of the weights takes. So it is with
# a LayerNorm, for rows that two blocks have.
MAX_LAID_OUT_INPUTS, MAX_ACTIVATED_INPUTS, MAX_NORMED_INPUTS = 768, 2048, 3072
# Outputs whose rows `output_norm` has in the registers of a block, and of two.
NORM_OUTPUTS, SHARED_NORM_OUTPUTS = (256, 384), (512, 768)
# Registers of a multiprocessor.
REGISTERS = 65536
# Shared memory of a block on Hopper, and what of it a product keeps for barriers, a map and alignment.
HOPPER_MEMORY = 232448
RESERVED = 1536


def builtin_norm_is_faster(size: int, in_graph: bool) -> bool:
    """Whether MLX's LayerNorm of so many elements, with no residual, is done before our kernel is."""
    return 1 <= size < (PLAIN_NORM_SIZE_IN_GRAPH if in_graph else PLAIN_NORM_SIZE)


def builtin_rms_norm_is_faster(offset: float, has_residual: bool) -> bool:
    """Whether MLX's RMSNorm, which waits less for its launch, needs no second one for what it does not have.

    1024 wide in bfloat16 it takes 23, 30 and 82 us for 8192, 16384 and 65536 rows, the kernel 41, 36 and 88.
    """
    return not offset and not has_residual


def builtin_attention_is_faster(dtype: mx.Dtype, head_dim: int, max_seqlen: int, rotated: bool) -> bool:
    """Whether MLX's attention is faster, where it needs no mask or padding.

    That is cuDNN's, which has Hopper's own instructions; heads that are `rotated` are so by a launch before it. In
    float32 it is made of products, which keep all scores: 32768 tokens with 12 heads of 64 take 0.93 and 2.24 ms for
    texts of 128 and 512 tokens, and `attention_float.cu` 0.36 and 1.23.
    """
    if dtype == mx.float32:
        return False
    return 32 < head_dim <= 128 and max_seqlen > (256 if rotated else 64)


def keys_seen(max_seqlen: int, window: int | None, causal: bool) -> int:
    """How many keys a query of the longest text attends to, at most, or nearly so."""
    return max_seqlen if window is None else min(max_seqlen, window * (1 if causal else 2))


def rotates_inside(dtype: mx.Dtype, head_dim: int, seen: int) -> bool:
    """Whether attention to so many keys rotates what it loads, or a launch before it does.

    Inside the keys are rotated once for each tile of queries. 32768 tokens with 12 heads of 64 in float16 take 127, 182
    and 330 us in one launch and 178, 202 and 251 in two, for texts of 128, 256 and 512 tokens; 16 heads of 128 on 8 in
    bfloat16, with norms, texts of 257 to 512 tokens, 412 and 434, and of 513 to 1024 667 and 587; 3 heads of 256, with
    norms, 124 and 121 for 64 tokens, 172 and 124 for 128. bfloat16 is rotated by angles of half the size.
    """
    if dtype == mx.float32 or head_dim % 32:
        return False
    return seen <= (64 if head_dim > 128 else 640 if dtype == mx.bfloat16 else 256)


def is_few(dtype: mx.Dtype, rows: int, outputs: int, inputs: int) -> bool:
    """Whether a product whose rows stream by is not worth its launch.

    In float32 that is so for less than a tile, and where few tiles leave most of the GPU idle for long: the kernel
    takes some 8 us, and 1.8 for 64 inputs of as many tiles as there are multiprocessors; cuBLAS 20, and then 42
    TFLOP/s. Alone 128 rows 384 wide take 19 and 30 us to 384 outputs, 256 rows 768 wide 30 and 22 to 30 to 768, 512
    rows 384 wide 20 and 28 to 1536, 512 rows 768 wide 32 and 74 to 3072, 4096 rows 1536 wide 58 and 147 to 384.
    """
    if dtype != mx.float32:
        return rows < FEW_ROWS
    tiles = -(-rows // FLOAT_ROWS) * outputs / (float_columns(outputs) or outputs)
    kernel = 8 + 1.8 * math.ceil(tiles / MULTIPROCESSORS) * inputs / 64
    return rows < FLOAT_ROWS or 20 + 2e-6 * rows * outputs * inputs / 42 < kernel


def builtin_linear_is_faster(
    dtype: mx.Dtype, rows: int, outputs: int, inputs: int, act: str | None, has_residual: bool
) -> bool:
    """Whether cuBLAS is faster at the product, or needs no second launch, or adds a residual that no kernel does."""
    if dtype == mx.float32:
        return is_few(dtype, rows, outputs, inputs)
    if has_residual:
        return True
    return inputs > NARROW and (is_few(dtype, rows, outputs, inputs) or (act is None and outputs % MOST_COLUMNS != 0))


def builtin_norm_after_linear_is_faster(dtype: mx.Dtype, rows: int, outputs: int) -> bool:
    """Whether the product and the LayerNorm are, each by itself, or no kernel has both."""
    if dtype == mx.float32:
        return True
    return outputs not in NORM_OUTPUTS and (rows < FEW_ROWS or outputs not in SHARED_NORM_OUTPUTS)


def is_short(values: int) -> bool:
    """Whether a hidden state of so many values is one for the launch of all layers."""
    return 1 <= values <= MAX_SHORT


def short_layers_fit(hidden: int, inner: int, num_heads: int) -> bool:
    """Whether that launch has layers of these widths."""
    head_dim = hidden // num_heads
    return hidden % 32 == inner % 32 == head_dim % 8 == 0 and head_dim <= 128 and hidden <= 2048


class HopperTiles(NamedTuple):
    """How attention of long texts is cut on Hopper.

    Attributes:
        groups: of 64 queries, a block, and of 128 threads.
        keys: at a time.
        stages: places for keys, and for values.
        few: registers of a thread that brings them.
    """

    groups: int
    keys: int
    stages: int
    few: int


# By the size of heads. More queries do not leave registers enough, nor, with heads above 64, more stages shared memory.
HOPPER_ATTENTION = {64: HopperTiles(3, 128, 4, 32), 128: HopperTiles(2, 128, 3, 40), 256: HopperTiles(2, 64, 2, 40)}
# By the size of heads, the most keys of a query for which `attention.cu` is as fast: 32768 tokens of up to 256 in each
# text take it 137 and 198 us with heads of 64 and 128, and there 142 and 229; of 257 to 512 tokens 200 and 296, and 185
# and 284; with heads of 256 texts of 64 tokens 60 and 71, and of 128 93 and 61.
MOST_SEEN = {64: 256, 128: 256, 256: 64}


def is_for_hopper(dtype: mx.Dtype, head_dim: int, seen: int) -> bool:
    """Whether attention to so many keys, with no bias and nothing to rotate, is `attention_hopper.cu`'s on Hopper."""
    return dtype != mx.float32 and head_dim in HOPPER_ATTENTION and seen > MOST_SEEN[head_dim]


class AttentionTiles(NamedTuple):
    """How attention is cut.

    Attributes:
        warps: of a block.
        tiles: of 16 queries, a warp.
        keys: at a time.
        team: heads of the query that a block takes.
        kept: whether queries are kept in shared memory, and not in registers.
    """

    warps: int
    tiles: int
    keys: int
    team: int = 1
    kept: bool = False


def attention_tiles(head_dim: int, max_seqlen: int, has_bias: bool, group: int) -> AttentionTiles:
    """Of heads of this size, of which `group` share their keys."""
    if head_dim > 128:  # whose queries registers do not hold
        few = max_seqlen <= 32
        return AttentionTiles((1 if max_seqlen <= 16 else 2) if few else 4, 1, 16 if few else 32, kept=True)
    if max_seqlen <= 16:
        return AttentionTiles(1, 1, 16)
    if max_seqlen <= 32:
        return AttentionTiles(2, 1, 32)
    if head_dim > 64:
        team = 2 if group % 2 == 0 else 1
        return AttentionTiles(4 if team == 1 and max_seqlen <= 64 else 8, 1, 32, team, kept=True)
    if max_seqlen <= 64:
        return AttentionTiles(2, 2, 32)
    return AttentionTiles(4, 2, 64 if head_dim > 32 and not has_bias else 32)  # with a bias 64 would spill registers


def float_attention_tiles(head_dim: int, max_seqlen: int) -> tuple[int, int]:
    """How attention in float32 is cut: warps of a block, of 16 queries each, and keys at a time.

    With 64 keys rather than 32, 32768 tokens with 12 heads of 32 take 192 and 652 us rather than 204 and 700 for texts
    of 128 and 512 tokens; with heads of 64 372 and 1199, and 361 and 1229.
    """
    if max_seqlen <= 16:
        return 1, 16
    if head_dim > 128:
        return 2, 16
    return (2 if max_seqlen <= 32 else 4), (64 if head_dim <= 32 and max_seqlen > 64 else 32)


def norm_rows(width: int) -> tuple[int, int]:
    """(threads a row, rows a block): a warp a row up to 1024 wide, else up to 8 warps."""
    lanes = min(256, -(-width // 1024) * 32)
    return lanes, 4 if lanes == 32 else 1


def pool_groups(chunks: int) -> int:
    """Teams of a block that take turns at a sequence's rows, each of `chunks` warps side by side."""
    return max(16 // chunks, 1)


class ProductTiles(NamedTuple):
    """How a product is cut.

    Attributes:
        groups: of 64 rows, that a block computes at a time.
        columns: likewise.
        streamed: whether x comes piece by piece, like the weights, rather than whole rows of it.
        cluster: of blocks, with as many rows each and the same columns.
        shared: whether the blocks of a cluster have the same rows instead, and each its part of the columns.
    """

    groups: int
    columns: int
    streamed: bool = False
    cluster: int = 1
    shared: bool = False


def streamed_tiles(outputs: int) -> ProductTiles:
    """Of a linear layer whose rows stream by."""
    return ProductTiles(2, 128 if outputs % MOST_COLUMNS else MOST_COLUMNS, streamed=True, cluster=2)


def float_columns(outputs: int, gated: bool = False) -> int | None:
    """Columns of a tile of a linear layer in float32, which has 128 rows, or None where no such divide the outputs."""
    return next((columns for columns in ((128, 64) if gated else (128, 96, 64)) if outputs % columns == 0), None)


def norm_tiles(outputs: int) -> ProductTiles:
    """Of a linear layer with the residual and its LayerNorm."""
    if outputs in SHARED_NORM_OUTPUTS:
        return ProductTiles(2, outputs // 4, streamed=True, cluster=2, shared=True)
    return ProductTiles(2, 128)


def most_inputs(dtype: mx.Dtype, outputs: int, then: str | None) -> int | None:
    """The widest rows whose layer is laid out, if any are too wide, where an "activation", a "norm" or None follows it.

    In float32 131072 rows 768 wide take 4.7 ms to 3072 outputs with GELU and cuBLAS 13.4, 3072 wide 3.8 to 768 and
    12.6, and 384 wide 0.36 to 384 and 0.89.
    """
    if dtype == mx.float32:
        return None
    if then == "norm" and outputs in SHARED_NORM_OUTPUTS:
        return MAX_NORMED_INPUTS
    return MAX_ACTIVATED_INPUTS if then == "activation" else MAX_LAID_OUT_INPUTS


def linear_tiles(outputs: int, inputs: int) -> ProductTiles:
    """Of a linear layer."""
    return streamed_tiles(outputs) if inputs > NARROW else ProductTiles(3, 64 if outputs % 96 else 96)
