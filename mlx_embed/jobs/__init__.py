"""Embedding by several processes, GPUs or machines.

`pool` has one process a GPU, texts in and vectors out; `shards` and `job` embed files into files, with processes or a
Ray cluster, and go on where they were ended; `ray_data` embeds a column of a Ray dataset.
"""

from mlx_embed.jobs.pool import Pool
from mlx_embed.jobs.ray_data import embed

__all__ = ["Pool", "embed"]
