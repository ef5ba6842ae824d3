"""The best of some scores: sorted exactly, of equal ones by place."""

import mlx.core as mx


def best(scores: mx.array, places: mx.array, k: int) -> mx.array:
    """The k largest scores of each row, and of equal ones those with the least places first.

    Score and place are sorted as one integer, since a sort of floats need not keep the order of equal ones.

    Args:
        scores: float32 [n, m].
        places: int32 [n, m], or [m] for all rows; negative: left out.
        k: how many.

    Returns:
        float32 [n, 2, k]: the scores and the places; -infinity and -1 where there are fewer.
    """
    n, count = scores.shape
    none = ~mx.zeros((), dtype=mx.uint64)  # the largest key there is: of no place
    # A float's bits, read as an integer, rise with it where it is positive, and fall where not; adding 0 makes -0 the 0
    # that it equals.
    keys = (_turned((scores + 0.0).view(mx.uint32)).astype(mx.uint64) << 32) | places.astype(mx.uint64)
    kept = mx.sort(mx.where(places >= 0, keys, none), axis=1)[:, :k]
    if k > count:
        kept = mx.concatenate([kept, mx.broadcast_to(none, (n, k - count))], axis=1)
    there = kept != none
    values = _turned((kept >> 32).astype(mx.uint32)).view(mx.float32)
    numbers = (kept & 0xFFFFFFFF).astype(mx.float32)
    return mx.stack([mx.where(there, values, -mx.inf), mx.where(there, numbers, -1.0)], axis=1)


def _turned(bits: mx.array) -> mx.array:
    """The bits of floats as integers that fall as these rise; and back, by the same."""
    return mx.where(bits >> 31, bits, ~bits & 0x7FFFFFFF)
