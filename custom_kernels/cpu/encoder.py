"""All layers of a post-norm encoder in one call."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import (
    Floats,
    Ints,
    activation_number,
    at,
    bias_length,
    ints,
    norm_parameters,
    token_rows,
)
from custom_kernels.cpu.attention import attends_in
from custom_kernels.cpu.layer_norm import Norm
from custom_kernels.cpu.library import BAD_IDS, check_sequences, library
from custom_kernels.cpu.linear import Linear


class EncoderLayer(NamedTuple):
    """A post-norm layer (BERT's): norm(out(attention(qkv(x))) + x), then norm(down(act(up(x))) + x)."""

    qkv: Linear
    out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


class Encoder:
    """Post-norm layers, one or more, to be run in one call, which a short text feels.

    Args:
        layers: all of one width H.
        num_heads: heads; must divide H.
        scale: of the attention, usually 1 / sqrt(head_dim).
        act: as in `feed_forward`.
        dtype: of attention, as there; bfloat16 needs layers whose qkv is not kept in float32.

    Raises:
        TypeError, ValueError: weights that do not fit, or an unknown activation.
    """

    def __init__(
        self,
        layers: Sequence[EncoderLayer],
        num_heads: int,
        scale: float,
        act: str | None,
        dtype: str = "float32",
    ) -> None:
        self.layers = tuple(layers)
        self._width = width = layers[0].down.out_features
        self.num_heads, self.scale, self.act = num_heads, scale, act
        self._activation = activation_number("Encoder", act)
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"Encoder needs heads that divide the width {width}, got {num_heads}.")
        self._narrow = attends_in("Encoder", dtype, width // num_heads)
        if self._narrow and any(layer.qkv.dtype == "float32" for layer in layers):
            raise ValueError("Encoder attends in bfloat16 where no layer's qkv is kept in float32; one is.")
        self._table = (_EncoderLayer * len(self.layers))()
        for row, (qkv, out, attention_norm, up, down, output_norm) in zip(self._table, self.layers, strict=True):
            shapes = [(w.out_features, w.in_features) for w in (qkv, out, up, down)]
            inner = up.out_features
            if shapes != [(3 * width, width), (width, width), (inner, width), (width, inner)]:
                raise ValueError(f"Encoder got a layer with weights of shapes {shapes}, which do not fit each other.")
            row.qkv, row.out, row.up, row.down = qkv.handle, out.handle, up.handle, down.handle
            for name, (weight, bias, eps) in (("attention", attention_norm), ("output", output_norm)):
                norm_parameters("Encoder", weight, bias, width)
                setattr(row, f"{name}_weight", at(weight))
                setattr(row, f"{name}_bias", at(bias))
                setattr(row, f"{name}_eps", eps)

    def __call__(
        self,
        x: Floats,
        cu_seqlens: Ints,
        bias: Floats | None = None,
        rows: Ints | None = None,
        *,
        in_place: bool = False,
    ) -> Floats:
        """Run the layers.

        Args:
            x: [T, H].
            cu_seqlens: as in `attention`.
            bias: as in `attention`, for all layers.
            rows: int32 [n], the tokens whose rows are wanted; the last layer leaves out what only others need.
            in_place: give x back, overwritten; memory for another array of its size is saved. With `rows` it is
                overwritten too.

        Returns:
            [T, H], or [n, H] with `rows`.

        Raises:
            TypeError, ValueError: as from `attention`; rows of tokens that there are not.
        """
        width = self._width
        total = token_rows("Encoder", "x", x, width)
        ints("Encoder", "cu_seqlens", cu_seqlens, (None,))
        length = bias_length("Encoder", bias, self.num_heads)
        if in_place and not x.flags.writeable:
            raise ValueError("Encoder was to work in place, but x is read-only.")
        if rows is not None:
            ints("Encoder", "rows", rows, (None,))
        few = 0 if rows is None else rows.size
        room = max(total, few)
        # In bfloat16 qkv takes half the room.
        qkv = memory.empty((room, (3 * width + 1) // 2 if self._narrow else 3 * width))
        attended, between = (memory.empty((room, width)) for _ in range(2))
        out = x if in_place else memory.empty((total, width))
        kept = None if rows is None else memory.empty((few, width))
        status = library().mlx_embed_encoder(
            at(x),
            ctypes.addressof(self._table),
            len(self.layers),
            width,
            at(cu_seqlens),
            cu_seqlens.size - 1,
            total,
            self.num_heads,
            self.scale,
            at(bias),
            length,
            self._activation,
            self._narrow,
            at(rows),
            few,
            at(qkv),
            at(attended),
            at(between),
            at(out),
            at(kept),
        )
        if status == BAD_IDS:
            raise ValueError(f"Encoder needs rows from 0 to {total - 1}.")
        check_sequences("Encoder", status, total, None if bias is None else length)
        return out if kept is None else kept


class _EncoderLayer(ctypes.Structure):
    """`EncoderLayer` of ops.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "out", "up", "down")),
        *((f"{norm}_{name}", ctypes.c_void_p) for norm in ("attention", "output") for name in ("weight", "bias")),
        ("attention_eps", ctypes.c_float),
        ("output_eps", ctypes.c_float),
    )
