"""What an architecture says of its layers, so that an engine may run them all in one call."""

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
