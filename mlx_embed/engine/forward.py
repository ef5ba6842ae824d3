"""A forward pass: an encoder, and the head behind it."""

from typing import Any

from mlx_embed.architectures.ops import Array
from mlx_embed.engine.contract import HeadFunction, Parameters

# So few tokens are multiplied as fast as one: the weights are read in either case, and on a GPU there is a launch less.
FEW = 64


def forward(
    function: HeadFunction,
    parameters: Parameters,
    encoder: Any,
    input_ids: Array,
    cu_seqlens: Array,
    max_seqlen: int,
    *token_type_ids: Array,
) -> Array:
    """The rows that `function` makes of a packed batch.

    Where it reads a single token of each text, the encoder leaves out what its last layer would compute for others.
    """
    of_one_token = getattr(function, "of_one_token", None)
    if of_one_token is None or not getattr(encoder, "takes_rows", False) or input_ids.shape[0] <= FEW:
        return function(encoder(input_ids, cu_seqlens, max_seqlen, *token_type_ids), cu_seqlens, max_seqlen, parameters)
    rows_of, function = of_one_token
    rows = rows_of(cu_seqlens, input_ids.shape[0])
    hidden = encoder(input_ids, cu_seqlens, max_seqlen, *token_type_ids, rows=rows)
    return function(hidden, cu_seqlens, max_seqlen, parameters)
