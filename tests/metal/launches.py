"""A launch of every Metal kernel in each of its forms, for the sources that MLX makes of them.

As a script, `python -m tests.metal.launches FOLDER` writes them there for Apple's compiler, each as a whole file.
"""

import re
import sys
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np

from custom_kernels import metal
from custom_kernels.metal.activate import ACTIVATIONS, GATES
from custom_kernels.metal.attention import rotating_attention
from custom_kernels.metal.linear import ROWS
from custom_kernels.parameters import HeadNorms, Linear, Rotation
from tests.metal.emulation import emulated_metal

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
HEADS = (32, 5, 64, 128, 256)


@cache
def generated_sources(dtype: mx.Dtype) -> dict[str, str]:
    """By the functions' names, what MLX generates for launches of all kernels with arrays of `dtype`."""
    with emulated_metal(run=False) as sources:
        _texts(dtype, [5, 0, 28], HEADS)
        _texts(dtype, [1] * 9, HEADS[:1])
        _rows(dtype)
        _linear(dtype)
    return {function(source): source for source in sources}


def function(source: str) -> str:
    """The name of the kernel's function in a generated source."""
    found = re.search(r'host_name\("(.*?)"\)', source) or re.search(r"\[\[kernel\]\] void (.*?)\(", source)
    assert found is not None
    return found[1]


def _texts(dtype: mx.Dtype, lengths: list[int], heads: tuple[int, ...]) -> None:
    """The places of few texts come in the constant address space, of many in the device's."""
    total, cu_seqlens = sum(lengths), mx.array(np.cumsum([0, *lengths]).astype(np.int32))
    for dim in heads:
        qkv = mx.zeros((total, 3 * dim), dtype=dtype)
        for longest in (16, 32, 99):
            metal.attention(qkv, cu_seqlens, 1, 0.2, max_seqlen=longest)
        metal.attention(qkv, cu_seqlens, 1, 0.2, mx.zeros((1, 199)), max_seqlen=99, window=3)
        shared = mx.zeros((total, 4 * dim), dtype=dtype)
        metal.attention(shared, cu_seqlens, 2, 0.2, max_seqlen=99, window=3, causal=True, kv_heads=1)
        if dim % 2 == 0:
            angles, weight = mx.zeros((max(lengths), dim // 2)), mx.zeros((dim,), dtype=dtype)
            turns = [Rotation(mx.zeros((total,), dtype=mx.int32), angles, angles)]
            if dtype != mx.float32 or dim < 256:
                turns.append(turns[0]._replace(norms=HeadNorms(weight, weight, 1e-6)))
            for turn in turns:
                rotating_attention(shared, cu_seqlens, 2, 0.2, None, turn, max_seqlen=99, causal=True, kv_heads=1)
    for width in (96, 8192):
        metal.mean_pool(mx.zeros((total, width), dtype=dtype), cu_seqlens, 0, width == 96)
    metal.position_ids(cu_seqlens, total)
    rows = mx.zeros((total, 96), dtype=dtype)
    metal.linear_max(rows, Linear(mx.zeros((40, 96), dtype=dtype)), cu_seqlens)
    metal.max_sim(rows, cu_seqlens, rows, cu_seqlens)


def _rows(dtype: mx.Dtype) -> None:
    ids = mx.zeros((9,), dtype=mx.int32)
    for width in (96, 2500):
        x, ones = mx.zeros((9, width), dtype=dtype), mx.ones((width,), dtype=dtype)
        for lookups, bias in ((1, ones), (2, None), (3, ones)):
            metal.embedding_norm([(x, ids)] * lookups, ones, bias, 1e-5)
        metal.embedding_norm([(x, ids)], None, None, 1e-5)
        metal.layer_norm(x, ones, ones, 1e-5, x)
        metal.layer_norm(x, ones, None, 1e-5)
        metal.top_k_scores(mx.zeros((2, width)), x, 3, mx.zeros((2,), dtype=mx.uint8), mx.zeros((9,)))
        metal.top_k_scores(mx.zeros((2, width)), x, 3)
        metal.rms_norm(x, ones, 1e-6, x, 1.0)
        metal.rms_norm(x, ones, 1e-6)
        for act in ACTIVATIONS:
            for gate in GATES if act == "gelu" else (None, "second"):
                metal.activate(x, act, gate)
    for half in (4, 64):
        qkv, angles = mx.zeros((9, 8 * half), dtype=dtype), mx.zeros((40, half))
        weight = mx.zeros((2 * half,), dtype=dtype)
        metal.rope(qkv, ids, angles, angles, 2, 1)
        metal.rope(qkv, ids, angles, angles, 2, 1, HeadNorms(weight, weight, 1e-6, 1.0))


def _linear(dtype: mx.Dtype) -> None:
    weight, bias = mx.zeros((16, 384), dtype=dtype), mx.zeros((16,), dtype=dtype)
    for rows, act in zip(ROWS, ACTIVATIONS, strict=True):
        x, residual = mx.zeros((rows, 384), dtype=dtype), mx.zeros((rows, 16), dtype=dtype)
        metal.linear(x, Linear(weight), None, residual)
        metal.linear(x, Linear(weight, bias), act)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in DTYPES:
        for name, source in generated_sources(dtype).items():
            # What MLX puts before a kernel's source.
            text = f'#include "mlx/backend/metal/kernels/utils.h"\n{source}'
            (folder / f"{name}.metal").write_text(text, encoding="ascii")
