"""Packed attention on Hopper's tensor cores, for long texts."""

import mlx.core as mx

from custom_kernels.cuda import wgmma
from custom_kernels.cuda.driver import multiprocessors
from custom_kernels.cuda.heuristics import HOPPER_ATTENTION, REGISTERS
from custom_kernels.cuda.launch import launch
from custom_kernels.cuda.sequences import slots


def attention_hopper(
    qkv: mx.array,
    cu_seqlens: mx.array,
    num_heads: int,
    kv_heads: int,
    max_seqlen: int,
    scale: float,
    *,
    window: int | None,
    causal: bool,
) -> mx.array:
    """One launch of `attention_hopper.cu`, of heads that HOPPER_ATTENTION has."""
    total, n, head_dim = qkv.shape[0], cu_seqlens.shape[0] - 1, qkv.shape[1] // (num_heads + 2 * kv_heads)
    groups, keys, stages, few = HOPPER_ATTENTION[head_dim]
    queries, threads = groups * 64, (groups + 1) * 128
    # Registers come by 8. Those that the threads have at first are all that there are for them.
    at_first = REGISTERS // threads // 8 * 8
    many = min((at_first * threads - few * 128) // (groups * 128) // 8 * 8, 240)
    tiles = slots(total, n, max_seqlen, queries)
    return launch(
        "attention_hopper",
        [qkv, cu_seqlens],
        [total, n, tiles, scale, window or 0],
        (min(multiprocessors(), tiles * num_heads), threads),
        (total, num_heads * head_dim),
        qkv.dtype,
        {"T": qkv.dtype},
        {
            "BFLOAT": qkv.dtype == mx.bfloat16,
            "D": head_dim,
            "HEADS": num_heads,
            "GROUP": num_heads // kv_heads,
            "GROUPS": groups,
            "KEYS": keys,
            "STAGES": stages,
            "FEW": few,
            "MANY": many,
            "HAS_WINDOW": window is not None,
            "CAUSAL": causal,
        },
        {"SCORES": wgmma.of_memory(keys, qkv.dtype), "RESULTS": wgmma.of_registers(head_dim, qkv.dtype, by_rows=True)},
        # Queries, keys and values, what aligns them, and barriers.
        (queries + 2 * stages * keys) * head_dim * 2 + 1024 + (4 * stages + 2) * 8,
    )
