"""Index: texts, their vectors and their words in a folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.index.entries import Chunk, FileStat, Hit

RowDtype = Literal["float32", "float16", "int8"]
Mode = Literal["hybrid", "vector", "text"]
# key: value; key: [one, of, these]; key: {">=": low, "<": high}; "path": a glob, or several.
Filter = Mapping[str, Any]


class Index:
    """Texts, their vectors and their words in a folder.

    One process writes at a time: the first write takes the lock, `close` gives it back. Any number of processes and
    threads read, each search on what was committed when it began.
    """

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: EmbeddingModel | str,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        chunker: str = "",
        row_dtype: RowDtype = "float32",
        exist_ok: bool = False,
    ) -> "Index":
        """A new index in a folder that is not there, or empty. With exist_ok, the one that is there, if it is alike.

        Prompts of None are the model's own for queries and documents. `chunker` names what makes chunks, and its
        version: `open` tells it back, and StoreMismatchError where exist_ok finds another.
        """
        raise NotImplementedError

    @classmethod
    def open(cls, path: str | Path, model: EmbeddingModel | str | None = None, *, read_only: bool = False) -> "Index":
        """An index that is there. Without a model, the one that the index names is loaded when it is first needed."""
        raise NotImplementedError

    @property
    def chunker(self) -> str:
        """As given to `create`."""
        raise NotImplementedError

    @property
    def model(self) -> EmbeddingModel:
        """The model, which is loaded at the first call if `open` was given none."""
        raise NotImplementedError

    def add(
        self, ids: Sequence[str], texts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Add texts, all in one commit; ValueError where an id is there."""
        raise NotImplementedError

    def upsert(
        self, ids: Sequence[str], texts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Add texts, or put them in the place of those with the same id, all in one commit."""
        raise NotImplementedError

    def delete(self, ids: Sequence[str]) -> int:
        """Remove texts by id; how many there were."""
        raise NotImplementedError

    def replace_file(self, path: str, stat: FileStat, chunks: Sequence[Chunk]) -> None:
        """Put the chunks of a file in the place of those that it had, all in one commit."""
        self.replace_files([(path, stat, chunks)])

    def replace_files(self, files: Iterable[tuple[str, FileStat, Sequence[Chunk]]]) -> int:
        """`replace_file` of many, embedded together: the way to index a folder. How many files.

        A commit has whole files only, and is made whenever some thousand chunks have come together, so what was killed
        goes on where it stopped. Texts that the index has already are not embedded again: a moved file costs nothing.
        """
        raise NotImplementedError

    def touch_file(self, path: str, stat: FileStat) -> None:
        """Take note that a file has another size or time, but the same bytes."""
        raise NotImplementedError

    def remove_file(self, path: str) -> int:
        """Remove a file and its chunks in one commit; how many chunks it had."""
        raise NotImplementedError

    def remove_files(self, paths: Iterable[str]) -> int:
        """`remove_file` of many, in one commit."""
        raise NotImplementedError

    def files(self) -> dict[str, FileStat]:
        """The files that are indexed, by path, in order."""
        raise NotImplementedError

    @overload
    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
        rerank: CrossEncoder | None = None,
        min_score: float | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: Sequence[str],
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
        rerank: CrossEncoder | None = None,
        min_score: float | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
        rerank: CrossEncoder | None = None,
        min_score: float | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The k best texts for a query, best first; a list of these for a list of queries."""
        raise NotImplementedError

    def compact(self) -> None:
        """Give back the space of what was deleted, while readers go on."""
        raise NotImplementedError

    def check(self) -> None:
        """Read everything and raise StoreCorruptError, which names the file, where anything is wrong."""
        raise NotImplementedError

    def export(self, path: str | Path) -> None:
        """Write all texts and vectors to PATH.parquet, or to a LanceDB table PATH.lance."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back the lock and the files. A closed index raises ValueError."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many texts there are."""
        raise NotImplementedError

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
