"""Tokens that none attends to, while they attend to the others: the mask tokens that ColBERT adds to a query.

Each head gets a few dimensions more, in which queries are 1 and such keys so far below 0 that their weight is 0. So any
kernel of attention computes it, and none has to know of it. Where a window has such keys only, they have weights among
themselves: their values are 0, and so is then what they give, as in transformers.
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


def widened(qkv: Any, num_heads: int, xp: Any, kv_heads: int | None = None) -> tuple[Any, Callable[[Any], Any]]:
    """What attention is to be given in the place of qkv, and what makes [T, hidden] of its result.

    `xp` is numpy or mlx.core, whichever qkv is of. Scales that are not far below 0.01 leave hidden keys no weight.
    """
    tokens = _unseen.get()
    if tokens is None:
        return qkv, lambda out: out
    kv_heads = kv_heads or num_heads
    total, heads = qkv.shape[0], num_heads + 2 * kv_heads
    head_dim = qkv.shape[1] // heads
    width = head_dim + WIDER
    below = (tokens[:, None].astype(qkv.dtype) * MASKED).astype(qkv.dtype)
    ones, none = xp.ones_like(below), xp.zeros_like(below)
    parts = ((ones, num_heads), (below, kv_heads), (none, kv_heads))
    first = xp.concatenate([xp.broadcast_to(part, (total, count)) for part, count in parts], axis=1)[:, :, None]
    rest = xp.zeros((total, heads, WIDER - 1), dtype=qkv.dtype)
    rows, values = qkv.reshape(total, heads, head_dim), num_heads + kv_heads
    seen = xp.where(tokens[:, None, None] == 0, rows[:, values:], xp.zeros_like(rows[:, values:]))
    rows = xp.concatenate([rows[:, :values], seen], axis=1)
    wide = xp.concatenate([rows, first, rest], axis=-1).reshape(total, heads * width)
    return wide, lambda out: out.reshape(total, num_heads, width)[:, :, :head_dim].reshape(total, num_heads * head_dim)
