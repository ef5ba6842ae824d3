"""What an architecture says of its layers, so that an engine may run them all in one call."""

from collections.abc import Iterator, Sequence
from typing import Any


class PostNormLayers(list[Any]):
    """Layers of BERT's kind: norm(out(attention(qkv(x))) + x), then norm(down(act(up(x))) + x).

    Each has `attention` with `qkv`, `out`, `num_heads` and `scale`, then `attention_norm`, `up`, `down`, `activation`
    and `output_norm`. A list, so that MLX counts their parameters.

    Attributes:
        kept: what a kernel has made of them.
    """

    kept: Any = None


def parts(layer: Any) -> tuple[Any, ...]:
    """What has weights in such a layer, in the order in which it is used."""
    attention = layer.attention
    return attention.qkv, attention.out, layer.attention_norm, layer.up, layer.down, layer.output_norm


def with_rows(layers: Sequence[Any], rows: Any) -> Iterator[tuple[Any, Any]]:
    """Each layer, and the tokens that something after it needs: all, None, but behind the last one `rows` [n]."""
    for index, layer in enumerate(layers):
        yield layer, rows if index == len(layers) - 1 else None


def at_rows(rows: Any, *arrays: Any) -> tuple[Any, ...]:
    """Of each array [T, N] these rows [n], or all where there are none given.

    A layer calls it once its tokens have seen each other: what it does from then on, it does to each by itself.
    """
    return arrays if rows is None else tuple(array[rows] for array in arrays)
