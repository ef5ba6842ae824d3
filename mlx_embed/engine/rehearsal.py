"""The kernels of a model on CUDA, which begin to be compiled by a rehearsal in which nothing is launched."""

from collections.abc import Callable, Iterable
from functools import partial

import mlx.core as mx

from custom_kernels.choice.switch import use_kernels
from custom_kernels.cuda.ahead import compile_all, rehearsal
from mlx_embed.architectures.ops import graph
from mlx_embed.batching import Shape
from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.safetensors import FLOATS, read_headers
from mlx_embed.engine.contract import HeadFunction
from mlx_embed.engine.forward import forward

# About a full batch's, a query's, and one of long texts.
SHAPES: tuple[Shape, ...] = ((65536, 1024, 128), (16, 2, 16), (65536, 64, 2048))


def rehearse(make: Callable[[], Callable[..., mx.array]], device: mx.Device, shapes: Iterable[Shape] = SHAPES) -> None:
    """Begin to compile the kernels that a forward pass takes, or to read what a process before this one has compiled.

    `make` gives the forward pass: of input ids [tokens], cu_seqlens [texts + 1] and the longest text's tokens.
    """
    with mx.stream(device), use_kernels(True), rehearsal() as wanted:
        try:
            run = make()
            for tokens, texts, longest in shapes:
                input_ids = mx.zeros((tokens,), dtype=mx.int32)
                cu_seqlens = mx.arange(texts + 1) * tokens // texts
                run(input_ids, cu_seqlens, longest)
        finally:
            compile_all(wanted)


def rehearse_unread(checkpoint: Checkpoint, device: mx.Device, dtype: mx.Dtype | None, head: HeadFunction) -> None:
    """As `rehearse`, of a checkpoint's encoder before its weights are read, and of a head that has none."""
    rehearse(partial(_forward, checkpoint, dtype, head), device)


def _forward(checkpoint: Checkpoint, dtype: mx.Dtype | None, head: HeadFunction) -> Callable[..., mx.array]:
    stored = (FLOATS[tensor.dtype] for tensor in read_headers(checkpoint.weights) if tensor.dtype in FLOATS)
    encoder = checkpoint.architecture.Model(checkpoint.encoder_config)  # lazy: its numbers are never made
    encoder.set_dtype(next(stored) if dtype is None else dtype)
    graph.lay_out(encoder)

    return partial(forward, head, (), encoder)
