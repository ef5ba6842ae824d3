"""A feed-forward block: two linear layers, an activation or gate between them, the residual and its LayerNorm."""

from custom_kernels.cpu import memory
from custom_kernels.cpu.arguments import Floats, activation_number, at, floats, norm_parameters, token_rows
from custom_kernels.cpu.library import check, library
from custom_kernels.cpu.linear import Linear

GATED = {False: 0, True: 1, "first": 1, "second": 2}


def feed_forward(
    x: Floats,
    up: Linear,
    down: Linear,
    act: str | None,
    weight: Floats | None,
    bias: Floats | None,
    eps: float,
    *,
    gated: bool | str = False,
    residual: bool | Floats = True,
) -> Floats:
    """LayerNorm(down(act(up(x))) + residual), in one pass over blocks of rows that stay in the cache.

    Args:
        x: [T, H].
        up: [F, H], or [2 F, H] when gated.
        down: [N, F].
        act: "gelu" (by erf), "gelu_tanh", "relu", "silu" or None.
        weight: the LayerNorm's [N], or None for the sum alone.
        bias: the LayerNorm's [N], or None for no offset.
        eps: added to the variance.
        gated: "first" (or True) for act(first half of up) * second half, "second" for act(second half) * first half.
        residual: True adds x, False nothing, an array [T, N] itself (a pre-norm block adds what went into its norm).

    Returns:
        [T, N].

    Raises:
        TypeError, ValueError: arrays of another type, layout or shape, or an unknown activation or gate.
    """
    rows, width = token_rows("feed_forward", "x", x, up.in_features), down.out_features
    number = activation_number("feed_forward", act)
    if gated not in GATED:
        raise ValueError(f"feed_forward knows gated=False, True, 'first' and 'second', got {gated!r}.")
    gate = GATED[gated]
    if up.out_features != down.in_features * (2 if gate else 1):
        raise ValueError(
            f"feed_forward needs down to take {'half of ' if gate else ''}what up gives, "
            f"got {up.out_features} and {down.in_features}."
        )
    added = x if residual is True else None if residual is False else residual
    if added is not None:
        floats("feed_forward", "residual", added, (rows, width))
    norm_parameters("feed_forward", weight, bias, width)
    out = memory.empty((rows, width))
    check(
        library().mlx_embed_feed_forward(
            at(x), rows, up.handle, down.handle, number, gate, at(added), at(weight), at(bias), eps, at(out)
        )
    )
    return out
