"""What an index says of itself: its model, prompts and types; and whether a model is that model."""

import hashlib
import json
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from sqlite3 import Connection
from typing import Any
from zlib import crc32

from mlx_embed.checkpoint.files import sha256
from mlx_embed.checkpoint.modules import Module
from mlx_embed.embedding_model import TASKS, EmbeddingModel
from mlx_embed.errors import ModelNotFoundError, StoreCorruptError, StoreMismatchError
from mlx_embed.index.database import DATABASE
from mlx_embed.options import first_prompt

FORMAT = 1
ROW_DTYPES = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Statement:
    """What an index says of itself.

    Attributes:
        model: its name, as the hub or whoever made the index knows it.
        revision: the commit of the hub's repository; "" where it is not known.
        folder: where the model was loaded from.
        weights: a hash of its weights and its tokenizer.
        dimension: of a vector.
        max_seq_length: tokens at which texts are cut.
        similarity: "cosine", for which vectors have length 1, or "dot".
        query_prompt: what is put before a query.
        document_prompt: what is put before a text.
        row_dtype: of the rows that are scanned.
        chunker: what makes chunks of files, and its version.
        task: of the LoRA that the model was loaded with; "" where it has none of its own.
        vectors: how vectors come of the encoder's hidden states; "" of an index that was made before this was kept.
        format: of the files; this is version 1.
    """

    model: str
    revision: str
    folder: str
    weights: str
    dimension: int
    max_seq_length: int
    similarity: str
    query_prompt: str
    document_prompt: str
    row_dtype: str
    chunker: str
    task: str = ""
    vectors: str = ""
    format: int = FORMAT

    @classmethod
    def of(
        cls,
        model: EmbeddingModel,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        row_dtype: str = "float32",
        chunker: str = "",
        *,
        weights: str | None = None,
    ) -> "Statement":
        """What an index of this model says; prompts of None are the model's own, and `weights` is what is hashed.

        Raises:
            ValueError: an unknown row_dtype, or a model whose similarity an index does not have.
        """
        if row_dtype not in ROW_DTYPES:
            raise ValueError(f"row_dtype {row_dtype!r} is not one of {', '.join(ROW_DTYPES)}.")
        if model.similarity_fn_name not in ("cosine", "dot"):
            raise ValueError(
                f"{model.name} compares vectors by {model.similarity_fn_name}, and an index by cosine or dot: set "
                'model.similarity_fn_name = "cosine" first, if its vectors have length 1.'
            )
        return cls(
            model.name,
            _revision(model.checkpoint.folder),
            str(model.checkpoint.folder.absolute()),
            weights_of(model) if weights is None else weights,
            model.dimension,
            model.max_seq_length,
            model.similarity_fn_name,
            first_prompt(model.prompts, TASKS["query"]) if query_prompt is None else query_prompt,
            first_prompt(model.prompts, TASKS["document"]) if document_prompt is None else document_prompt,
            row_dtype,
            chunker,
            model.checkpoint.task or "",
            _vectors_of(model),
        )

    @classmethod
    def read(cls, connection: Connection, folder: Path) -> "Statement":
        """What the index says.

        Raises:
            StoreMismatchError: an index of another format.
            StoreCorruptError: it is not as it was written.
        """
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('statement', 'check')"))
        text = meta.get("statement", "")
        if str(crc32(text.encode("utf-8", "replace"))) != meta.get("check"):
            raise StoreCorruptError(f"{folder / DATABASE} is damaged: what it says of itself is not as it was written.")
        said: dict[str, Any] = json.loads(text)
        if said.get("format") != FORMAT:
            raise StoreMismatchError(
                f"{folder} is an index of format {said.get('format')}, and this version of mlx-embed reads {FORMAT}: "
                "use the version that made it, or make the index anew."
            )
        return cls(**said)

    def meta(self) -> dict[str, str]:
        """What `read` reads."""
        text = json.dumps(asdict(self), ensure_ascii=False)
        return {"statement": text, "check": str(crc32(text.encode()))}

    def require(self, other: "Statement", folder: Path) -> None:
        """Compare with what was asked for.

        Raises:
            StoreMismatchError: they differ in what decides about vectors or chunks; the message says in what.
        """
        if self.weights != other.weights:
            raise StoreMismatchError(
                f"The index in {folder} is of {self.model} (weights {self.weights[:12]}), and the model given is "
                f"{other.model} (weights {other.weights[:12]}): open it with that model, or make a new index."
            )
        for name in (
            "dimension",
            "max_seq_length",
            "similarity",
            "query_prompt",
            "document_prompt",
            "row_dtype",
            "chunker",
            "task",
            "vectors",
        ):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs and (name != "vectors" or (ours and theirs)):
                raise StoreMismatchError(
                    f"The index in {folder} has the {name} {ours!r}, not {theirs!r}: open it with that, or make a new "
                    "index."
                )

    def require_model(self, model: EmbeddingModel, folder: Path, files: str) -> None:
        """Whether vectors of this model can be compared with those of the index; `files` is what was `seen`.

        Raises:
            StoreMismatchError: they cannot; the message says why.
        """
        given = Statement.of(
            model,
            self.query_prompt,
            self.document_prompt,
            self.row_dtype,
            self.chunker,
            weights=self.weights if seen(model) == files else None,
        )
        self.require(given, folder)


def _vectors_of(model: EmbeddingModel) -> str:
    """How a model's vectors come of hidden states: its weights do not say it, and are pooled in several ways."""
    checkpoint = model.checkpoint
    pooling = "+".join(checkpoint.pooling.modes)
    parts = [pooling if checkpoint.pooling.include_prompt else f"{pooling} without prompt"]
    for module in checkpoint.modules:
        # A setting that is as it is by default is left out, so that one that is new changes no index's statement.
        settings = [f"{one.name}={getattr(module, one.name)}" for one in fields(module) if _counts(module, one)]
        parts.append(f"{type(module).__name__}({', '.join(settings)})")
    parts += ["length 1"] * checkpoint.normalize
    parts += ["of lowercase texts"] * checkpoint.do_lower_case
    return ", ".join(parts)


def _counts(module: Module, one: Field[Any]) -> bool:
    return one.name != "folder" and getattr(module, one.name) != one.default


def weights_of(model: EmbeddingModel) -> str:
    """A hash of a model's weights and tokenizer, whatever their folder is called."""
    files = _files(model)
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{sha256(files[name])}\0".encode())
    return whole.hexdigest()


def seen(model: EmbeddingModel) -> str:
    """The paths, sizes and times of what `weights_of` reads: where these are the same, so is the hash."""
    found = {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in _files(model).values()}
    return json.dumps(found, sort_keys=True)


def _files(model: EmbeddingModel) -> dict[str, Path]:
    """The files of weights and the tokenizer, by their place in the checkpoint."""
    root, weights = model.checkpoint.folder.absolute(), model.checkpoint.weights.absolute()
    found = {}
    for folder in (root,) if weights.is_relative_to(root) else (root, weights):
        for path in folder.rglob("*"):
            if path.suffix == ".safetensors" or path.name == "tokenizer.json":
                found[f"{folder != root}/{path.relative_to(folder).as_posix()}"] = path
    if not found:
        raise ModelNotFoundError(f"The files of {model.name} are no longer in {root}: put them back, or load it again.")
    return found


def _revision(folder: Path) -> str:
    """The commit, where the folder is a snapshot in the hub's cache."""
    return folder.name if folder.parent.name == "snapshots" else ""
