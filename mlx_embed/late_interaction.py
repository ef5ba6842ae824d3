"""MaxSim of texts' vectors, where a model's engine computes."""

from typing import TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

import custom_kernels
from custom_kernels import cpu
from mlx_embed.engine import Engine
from mlx_embed.engine.worker import worker
from mlx_embed.multi_vectors import MultiVectors

Float32: TypeAlias = npt.NDArray[np.float32]


def max_sim(engine: Engine, queries: MultiVectors, documents: MultiVectors) -> Float32:
    """The sum, over a query's vectors, of the largest inner product with one of a document's: [N, M].

    -inf for a document without vectors.

    Raises:
        ValueError: vectors of different lengths.
    """
    if not len(queries) or not len(documents):
        return np.zeros((len(queries), len(documents)), dtype=np.float32)
    lengths = queries.vectors.shape[1], documents.vectors.shape[1]
    if lengths[0] != lengths[1]:
        raise ValueError(f"Vectors of length {lengths[0]} and {lengths[1]} cannot be compared: are they of one model?")
    a, b = np.ascontiguousarray(queries.vectors), np.ascontiguousarray(documents.vectors)
    starts = queries.offsets.astype(np.int32), documents.offsets.astype(np.int32)
    if engine.name == "native":
        return cpu.max_sim(a, starts[0], b, starts[1])

    def computed() -> Float32:
        with mx.stream(engine.device), custom_kernels.use_kernels(engine.name != "reference"):
            arrays = [mx.array(part) for part in (a, starts[0], b, starts[1])]
            return np.array(custom_kernels.max_sim(*arrays))

    return worker.run(computed, engine.device)
