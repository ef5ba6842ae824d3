"""All layers of an encoder in one launch on CUDA."""

from collections.abc import Sequence
from itertools import accumulate

import mlx.core as mx

from custom_kernels.cuda.activations import ACTIVATIONS
from custom_kernels.cuda.ahead import rehearsed
from custom_kernels.cuda.driver import multiprocessors
from custom_kernels.cuda.heuristics import MOST_KEPT_TWICE, SHORT_BLOCKS
from custom_kernels.cuda.launch import launch_all
from custom_kernels.parameters import Layers, LayerWeights


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
    types = {"T": x.dtype, "B": x.dtype if bias is None else bias.dtype}
    constants = {
        "H": hidden,
        "HEADS": num_heads,
        "INNER": inner,
        "TOKENS": capacity(total),
        "ACTIVATION": ACTIVATIONS.index(act),
        "HAS_BIAS": bias is not None,
        "BFLOAT": x.dtype == mx.bfloat16,
        "LAYERS": len(layers),
    }
    arrays = [array for weights in layers for array in weights]
    macros = {
        "WEIGHTS": ", ".join(f"const T* w{i}" for i in range(len(arrays))),
        "FILL": " ".join(f"table[{i}] = w{i};" for i in range(len(arrays))),
    }
    if isinstance(layers, Layers) and layers.size <= MOST_KEPT_TWICE:
        starts = accumulate((array.size for array in arrays[:-1]), initial=0)
        macros = {"WEIGHTS": "const T* w", "FILL": " ".join(f"table[{i}] = w + {at};" for i, at in enumerate(starts))}
        arrays = [layers.end_to_end if rehearsed() is None else x]
    out, *_ = launch_all(
        "short_encoder",
        [
            x,
            cu_seqlens,
            # The barriers' state, of this launch's own: two may run side by side.
            mx.zeros((64,), dtype=mx.int32, stream=mx.gpu),
            # Without a bias the kernel still has the parameter, and never reads it.
            x if bias is None else bias,
            *arrays,
        ],
        [total, cu_seqlens.shape[0] - 1, 0 if bias is None else bias.shape[1] // 2, scale, eps],
        (min(multiprocessors(), SHORT_BLOCKS), 256),
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


def capacity(total: int) -> int:
    """The tokens that a kernel for `total` of them is compiled for: a power of two from 16 up."""
    return max(16, 1 << (total - 1).bit_length())
