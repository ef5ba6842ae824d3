"""TokenTable: a vector for each token, in the dtype that the checkpoint keeps it in."""

import mlx.core as mx
import mlx.nn as nn


class TokenTable(nn.Module):
    """Vectors of tokens, of which several tokens may share one.

    Attributes:
        rows: [R, H], float32, float16, bfloat16 or int8.
        mapping: int32 [V], the row of each token, below 0 of one that is passed over; absent where they are the ids.
        weights: float32 [V], what each token's row is multiplied by; absent for 1.
    """

    def __init__(self, rows: mx.array, mapping: mx.array | None = None, weights: mx.array | None = None) -> None:
        super().__init__()
        self.rows = rows
        if mapping is not None:
            self.mapping = mapping
        if weights is not None:
            self.weights = weights
