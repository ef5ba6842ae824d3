"""Each token's place in its own sequence."""

from collections.abc import Iterator

import mlx.core as mx

from custom_kernels import cuda, metal
from custom_kernels.arrays import starts, texts_of
from custom_kernels.choice.op import CLASSES, Arguments, Load, Op
from custom_kernels.packed import places as reference_position_ids


def position_ids(cu_seqlens: mx.array, total: int, *, backend: str | None = None) -> mx.array:
    """Each token's place in its own sequence, counted from 0.

    Args:
        cu_seqlens: int32 [n + 1], from 0 to T.
        total: T, the number of tokens.
        backend: as in `layer_norm`, "fast" aside.

    Returns:
        int32 [T].

    Raises:
        ValueError: a cu_seqlens of another shape or dtype, or an unknown back end.
        RuntimeError: a named back end that this machine does not have.
    """
    if cu_seqlens.ndim != 1 or cu_seqlens.size == 0 or cu_seqlens.dtype != mx.int32:
        raise ValueError(f"position_ids needs cu_seqlens int32 [n + 1], got {cu_seqlens.dtype} {cu_seqlens.shape}.")
    if not total or cu_seqlens.size == 1:
        return reference_position_ids(cu_seqlens, total)
    return POSITION_IDS.pick(backend, "int32", Load.of(total))(cu_seqlens, total)


def _sample(variant: str, load: Load | None) -> Arguments:
    texts = [1, 0, 37, 300, 2, 0, 1, 5] if load is None else texts_of(load.tokens)
    return (starts(*texts), sum(texts)), {}


def _typical(backend: str | None) -> Iterator[tuple[str, Load]]:
    for tokens in CLASSES:
        yield "int32", Load(tokens)


POSITION_IDS = Op(
    "position_ids",
    {"metal": metal.position_ids, "cuda": cuda.position_ids},
    reference_position_ids,
    lambda variant: {"reference": reference_position_ids},
    _sample,
    _typical,
)
