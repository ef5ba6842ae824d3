"""Chroma's `EmbeddingFunction`, by an `EmbeddingModel`."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import require_list
from mlx_embed.checkpoint import hub
from mlx_embed.embedding_model import EmbeddingModel

try:
    from chromadb.api.types import EmbeddingFunction
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise ImportError('This needs chromadb: pip install ".[chroma]" in a clone of mlx-embed') from error

# Chroma has no Manhattan distance; the Euclidean is the nearest to it.
_SPACES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2", "manhattan": "l2"}


@register_embedding_function
class MLXEmbeddingFunction(EmbeddingFunction):
    """Documents and queries, each with the model's own prompt.

    A collection keeps the model's name and `encode_options`. Chroma can open it by these alone where this module has
    been imported; the model then loads with the machine's own dtype and device.
    """

    def __init__(
        self, model: EmbeddingModel | str | Path = hub.DEFAULT_MODEL, *, encode_options: Mapping[str, Any] | None = None
    ) -> None:
        """Take a model, or the name of one, loaded when it is needed; `encode_options` go to `encode`."""
        self.encode_options = dict(encode_options or {})
        if isinstance(model, EmbeddingModel):
            self.model = model
            self._name = hub.lasting_name(model.name, model.checkpoint.folder.absolute())
        else:
            self._name = hub.lasting_name(model)

    # Not in __init__: Chroma makes a second function from the configuration of each, only to see that it can.
    @cached_property
    def model(self) -> EmbeddingModel:
        """The model."""
        return EmbeddingModel.from_pretrained(self._name)

    def __call__(self, input: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """One vector a document."""
        require_list("input", input)
        return list(self.model.encode_document(list(input), **self.encode_options))

    def embed_query(self, input: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """One vector a query."""
        require_list("input", input)
        return list(self.model.encode_query(list(input), **self.encode_options))

    def default_space(self) -> str:
        """The distance of a collection that is not told another: the model's own."""
        return _SPACES[self.model.similarity_fn_name]

    @staticmethod
    def name() -> str:
        """The name that a collection keeps."""
        return "mlx_embed"

    def get_config(self) -> dict[str, Any]:
        """What a collection keeps: JSON values."""
        return {"model": self._name, "encode_options": self.encode_options}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "MLXEmbeddingFunction":
        """The function of a collection that is opened again."""
        return MLXEmbeddingFunction(config["model"], encode_options=config.get("encode_options"))
