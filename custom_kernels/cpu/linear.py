"""Linear layers, from weights that are laid out once."""

import weakref

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, activation_number, at, floats, token_rows
from custom_kernels.cpu.library import KINDS, check, library, product


class Linear:
    """A weight [N, K] and bias [N] or None, laid out once for `linear`, `output_norm` and `feed_forward`.

    The copy belongs to the library and goes with this object; the arrays are not kept. Its products take numbers and
    give sums in float32, whatever `dtype` it is kept in:

    - "float32" as it is;
    - "bfloat16": weight and x are rounded to it;
    - "int8": each row of the weight is rounded to 255 steps about 0, and each row of x to 255 steps between its least
      and its largest number, 0 included. Sums are exact before they are scaled.

    `columns` [K], of "int8" alone, are positive numbers that columns of the weight are multiplied by, and those of x
    divided by, before either is rounded: columns that are large in x need not make the steps of all others coarse.

    Raises:
        TypeError, ValueError: arrays that are not float32 of these shapes, a dtype that `product` does not have, or
            columns of another one.
        MemoryError: no room for the copy.
    """

    __slots__ = ("__weakref__", "dtype", "handle", "in_features", "out_features")

    def __init__(
        self, weight: Floats, bias: Floats | None = None, dtype: str = "float32", columns: Floats | None = None
    ) -> None:
        floats("Linear", "weight", weight, (None, None))
        if bias is not None:
            floats("Linear", "bias", bias, (weight.shape[0],))
        if not weight.size:
            raise ValueError(f"Linear needs a weight with elements, got shape {weight.shape}.")
        if dtype not in KINDS or not product(dtype):
            here = ", ".join(repr(name) for name in KINDS if product(name))
            raise ValueError(f"Linear has no products in {dtype!r} on this processor; it has {here}.")
        inverse = None
        if columns is not None:
            floats("Linear", "columns", columns, (weight.shape[1],))
            if dtype != "int8":
                raise ValueError(f"Linear has columns in int8 alone, got dtype {dtype!r}.")
            weight, inverse = weight * columns, 1 / columns
        native = library()
        self.dtype = dtype
        self.out_features, self.in_features = weight.shape
        self.handle: int = native.mlx_embed_lay_out(
            at(weight), at(bias), at(inverse), self.out_features, self.in_features, KINDS[dtype]
        )
        if not self.handle:
            raise MemoryError(f"There is no memory to lay out a weight of shape {weight.shape}.")
        # At exit the copy stays: a daemon thread may be in the middle of a product with it, and what `atexit` calls
        # later may begin one.
        weakref.finalize(self, native.mlx_embed_discard, self.handle).atexit = False

    def watch(self, greatest: Floats | None) -> None:
        """Raise each of these numbers [K] to the greatest magnitude that its column has in what is multiplied.

        The array is written to until another one, or None, is given. Not while it multiplies.

        Raises:
            TypeError, ValueError: an array that is not float32 of this shape.
        """
        if greatest is not None:
            floats("watch", "greatest", greatest, (self.in_features,))
        library().mlx_embed_watch(self.handle, at(greatest))

    def exchange(self, other: "Linear") -> None:
        """Take another layer's weight, bias and dtype for one's own, in whatever `Encoder` either is a part of.

        Not while either multiplies. Where an `Encoder` attends in bfloat16, no layer of it may become one of float32.

        Raises:
            ValueError: a layer of another shape.
        """
        if (self.out_features, self.in_features) != (other.out_features, other.in_features):
            raise ValueError(
                f"Linear exchanges weights of one shape, got {(self.out_features, self.in_features)} and "
                f"{(other.out_features, other.in_features)}."
            )
        library().mlx_embed_exchange(self.handle, other.handle)
        self.dtype, other.dtype = other.dtype, self.dtype


def linear(x: Floats, layer: Linear, act: str | None = None, residual: Floats | None = None) -> Floats:
    """act(x W^T + bias) + residual.

    Args:
        x: [T, K].
        layer: of a weight [N, K] and its bias.
        act: "gelu" (by erf), "gelu_tanh", "relu", "silu" or None.
        residual: [T, N], or None.

    Returns:
        [T, N].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or an unknown activation.
    """
    rows = token_rows("linear", "x", x, layer.in_features)
    number = activation_number("linear", act)
    if residual is not None:
        floats("linear", "residual", residual, (rows, layer.out_features))
    out = memory.empty((rows, layer.out_features))
    check(library().mlx_embed_linear(at(x), rows, layer.handle, number, at(residual), at(out)))
    return out
