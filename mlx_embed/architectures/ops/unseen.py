"""Tokens that none attends to, while they attend to the others: the mask tokens that ColBERT adds to a query.

Each head gets a few dimensions more, in which queries are 1 and such keys so far below 0 that their weight is 0. So any
kernel of attention computes it, and none has to know of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from custom_kernels.ops.attention import MASKED

# As many as keep rows aligned; only the first is not 0.
WIDER = 8

_unseen: ContextVar[Any] = ContextVar("unseen", default=None)


@contextmanager
def hiding(tokens: Any) -> Iterator[None]:
    """Within it, no token attends to those of `tokens` [T] that are not 0; None hides none. It holds for one thread."""
    token = _unseen.set(tokens)
    try:
        yield
    finally:
        _unseen.reset(token)


def is_any() -> bool:
    """Whether tokens are hidden here."""
    return _unseen.get() is not None


def widened(qkv: Any, num_heads: int, xp: Any) -> tuple[Any, Callable[[Any], Any]]:
    """What attention is to be given in the place of qkv [T, 3 * hidden], and what makes [T, hidden] of its result.

    `xp` is numpy or mlx.core, whichever qkv is of. Scales that are not far below 0.01 leave hidden keys no weight.
    """
    tokens = _unseen.get()
    if tokens is None:
        return qkv, lambda out: out
    total, head_dim = qkv.shape[0], qkv.shape[1] // 3 // num_heads
    below = (tokens[:, None].astype(qkv.dtype) * MASKED).astype(qkv.dtype)
    ones, none = xp.ones_like(below), xp.zeros_like(below)
    first = xp.broadcast_to(xp.stack([ones, below, none], axis=1)[:, :, :, None], (total, 3, num_heads, 1))
    rest = xp.zeros((total, 3, num_heads, WIDER - 1), dtype=qkv.dtype)
    parts = qkv.reshape(total, 3, num_heads, head_dim)
    width = head_dim + WIDER
    wide = xp.concatenate([parts, first, rest], axis=-1).reshape(total, 3 * num_heads * width)
    return wide, lambda out: out.reshape(total, num_heads, width)[:, :, :head_dim].reshape(total, num_heads * head_dim)
