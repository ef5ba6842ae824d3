"""BERTopic's back end, by an `EmbeddingModel`.

BERTopic tells models apart by the names of their types, and of one that it does not know it loads another in silence:
`BERTopic(embedding_model=MLXEmbedder(model))`, not `BERTopic(embedding_model=model)`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import require_list
from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.embedding_model import EmbeddingModel

try:
    from bertopic.backend import BaseEmbedder
except ImportError as error:
    raise ImportError('This needs bertopic: pip install ".[bertopic]" in a clone of mlx-embed') from error


class MLXEmbedder(BaseEmbedder):
    """Documents and words, embedded alike: with the model's default prompt, if it has one."""

    def __init__(
        self, model: EmbeddingModel | str | Path = DEFAULT_MODEL, *, encode_options: Mapping[str, Any] | None = None
    ) -> None:
        """Take a model, or the name of one to load; `encode_options` go to `encode`, `truncate_dim` for example."""
        super().__init__()
        self.embedding_model = model if isinstance(model, EmbeddingModel) else EmbeddingModel.from_pretrained(model)
        self.encode_options = dict(encode_options or {})

    def embed(self, documents: Iterable[str], verbose: bool = False) -> npt.NDArray[np.float32]:
        """Vectors [N, D] of texts; `verbose` shows a bar of those done."""
        require_list("documents", documents)
        return self.embedding_model.encode(list(documents), **{"show_progress_bar": verbose, **self.encode_options})
