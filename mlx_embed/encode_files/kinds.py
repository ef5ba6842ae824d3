"""`encode --sparse` and `--multi-vector`: weights of tokens, or a vector a token, by a model here or a server's."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlx_embed.encode_files.dense import Encoding, computed_by, served

if TYPE_CHECKING:
    from mlx_embed import EncodeInfo
    from mlx_embed.records.ragged import Rows
    from mlx_embed.records.reading import Id, Source
    from mlx_embed.records.writing import Partial
    from mlx_embed.serve.client import ServedModel

# What these kinds do not have, by its option, and what leaves it alone.
_NOT_HERE = {"truncate_dim": None, "output_dtype": "float32", "ranges": None, "long_text": "truncate"}


def check(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that these kinds of models do not have, and where none is named."""
    named = "--sparse" if options.sparse else "--multi-vector"
    for name, idle in _NOT_HERE.items():
        if getattr(options, name) != idle:
            raise ValueError(f"--{name.replace('_', '-')} is not for {named}: leave it away.")
    if options.task not in (None, "document", "query"):
        raise ValueError(f"--task {options.task} is neither document nor query, which {named} texts may be.")
    if options.model is None and options.server is None:
        raise ValueError("Name a model of this kind by --model: there is no default one.")


def opened(options: argparse.Namespace, source: "Source", partial: "Partial | None") -> "KindEncoding":
    """The run that the options ask for, its model loaded or found."""
    kind, task = "sparse" if options.sparse else "multi_vector", options.task or "document"
    if options.server is not None:
        return KindEncoding(served(options, kind=kind, task=task), options, source, partial)
    return KindEncoding(LoadedModel(kind, task, options), options, source, partial)


class LoadedModel:
    """A model that is loaded here; attributes as a `ServedModel`'s, and its checkpoint and engine."""

    def __init__(self, kind: str, task: Any, options: argparse.Namespace) -> None:
        """Load it; BGE-M3 is known by its files."""
        from mlx_embed.bge_m3 import BGEM3
        from mlx_embed.checkpoint import hub
        from mlx_embed.checkpoint.bge_m3 import is_m3
        from mlx_embed.multi_vector_encoder import MultiVectorEncoder
        from mlx_embed.sparse_encoder import SparseEncoder

        made: Any = SparseEncoder if kind == "sparse" else MultiVectorEncoder
        if is_m3(hub.find(options.model)[0]):
            made = BGEM3
        self._model: Any = made.from_pretrained(options.model, dtype=options.dtype, device=options.device)
        self.kind, self.task = kind, task
        self.name, self.checkpoint, self.engine = self._model.name, self._model.checkpoint, self._model.engine
        self._tokenizer = self._model.tokenizer.for_task(task)
        self.dimension = self._model.dimension
        if made is SparseEncoder:
            self._tokenizer, self.dimension = self._model.tokenizer_for(task), self._model.dimension_for(task)
        elif made is BGEM3:
            self.dimension = self._model.vocabulary if kind == "sparse" else self._model.token_dimension
        self.max_seq_length = self._tokenizer.max_length

    def rows(self, texts: list[str], *, prompt_name: str | None = None) -> "tuple[Rows, EncodeInfo]":
        """As the model's own `encode` makes them of texts for the task, and what is to be said of each text."""
        import numpy as np

        from mlx_embed.embedding_model import EncodeInfo
        from mlx_embed.encoding import by_windows
        from mlx_embed.options import chosen_prompt, prefer_prompt
        from mlx_embed.records.ragged import WEIGHT, Rows

        options = {"prompt_name": prompt_name, "prompt": None}
        prefer_prompt(options, self._model.prompts, *self._model.task_prompts[self.task])
        prompt = chosen_prompt(self._model.prompts, None, options["prompt_name"], options["prompt"])
        found, counts, _ = by_windows(
            texts, self._tokenizer, prompt, False, lambda tokens, _: self._computed(tokens.ids), counted=True
        )
        if self.kind == "sparse":
            items = np.zeros(sum(len(row.values) for row in found), WEIGHT)
            items["index"] = np.concatenate([np.zeros(0, np.int32), *(row.indices for row in found)])
            items["value"] = np.concatenate([np.zeros(0, np.float32), *(row.values for row in found)])
            lengths = [len(row.values) for row in found]
        else:
            items = np.concatenate([np.zeros((0, self.dimension), np.float32), *found])
            lengths = list(map(len, found))
        info = EncodeInfo(counts, counts > self.max_seq_length, np.ones_like(counts))
        return Rows(np.array(lengths, np.int32), items), info

    def _computed(self, ids: Any) -> list[Any]:
        from mlx_embed.bge_m3 import BGEM3
        from mlx_embed.sparse_encoder import SparseEncoder

        model, budget = self._model, self.engine.budget(None)
        if isinstance(model, BGEM3):
            sparse = self.kind == "sparse"
            texts = model.computed(ids, budget, sparse=sparse, multi_vector=not sparse)
            return [text.sparse if sparse else text.multi_vector for text in texts]
        if isinstance(model, SparseEncoder):
            return model.computed(ids, self.task, budget, most=model.max_active_dims)
        return model.computed(ids, self.task, budget)


class KindEncoding(Encoding):
    """One run of the command, of rows of several lengths."""

    _instead = ""

    def __init__(
        self,
        model: "LoadedModel | ServedModel",
        options: argparse.Namespace,
        source: "Source",
        partial: "Partial | None",
    ) -> None:
        """See `Encoding`."""
        from mlx_embed.records.ragged import Layout, RaggedPartial

        super().__init__(model, options, source, partial)
        self._layout = Layout(0 if model.kind == "sparse" else model.dimension, model.dimension)
        self._items = 0
        if isinstance(partial, RaggedPartial):
            partial.layout = self._layout

    def _begin(self) -> None:
        self._width, self._dtype = self._layout.width, self._layout.dtype
        self._encoded([])  # what is wrong with the options is said before any text is computed

    def _say_prompts(self) -> None:
        """A task has its prompt."""

    def _made(self) -> str:
        items = self._items if self._partial is None else self._partial.journal.items
        return f"{items:,} {'weights' if self._layout.weights else f'vectors of length {self._layout.width}'}"

    def _encoded(self, texts: list[str]) -> "tuple[Rows, EncodeInfo]":
        rows, info = self._model.rows(texts, prompt_name=self._options.prompt_name)
        self._items += len(rows.items)
        return rows, info

    def _quantized(self, vectors: "Rows") -> "Rows":
        return vectors

    def _lines(self, vectors: "Rows", ids: "Iterator[Id] | None") -> Iterator[bytes]:
        return self._layout.lines(vectors, ids)

    def _plan(self) -> dict[str, Any]:
        return {
            **computed_by(self._model),
            "kind": self._model.kind,
            "task": self._model.task,
            "prompt_name": self._options.prompt_name,
            "max_seq_length": self._model.max_seq_length,
            "dimension": self._layout.dimension,
        }
