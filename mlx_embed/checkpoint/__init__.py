"""All that parses what was downloaded.

`hub` finds the folder, `folder` reads what it says of itself, `modules` is what follows the encoder; `safetensors`
checks and opens files of weights, `weights` makes an encoder of them, and `heads` a sequence classifier's head.
"""

from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.folder import read_checkpoint
from mlx_embed.checkpoint.hub import DEFAULT_MODEL, EmbeddingModelType

__all__ = ["DEFAULT_MODEL", "Checkpoint", "EmbeddingModelType", "read_checkpoint"]
