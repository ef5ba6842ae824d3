"""The grid of a kernel whose blocks take tiles of rows of one sequence each."""


def slots(total: int, n: int, max_seqlen: int, rows: int) -> int:
    """How many tiles of `rows` tokens are enough for n sequences; shared/sequences.cuh finds the tile of each.

    Those of the longest sequence in every place, or those for the tokens that there are.
    """
    return min(n * -(-max_seqlen // rows), total // rows + n)
