"""Index: texts, their vectors and their words in a folder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import finite_number, path_of, positive_number, type_name
from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.index import check, compact, filters, rows, search, writing
from mlx_embed.index.commits import FileChunks
from mlx_embed.index.entries import FileStat, Hit
from mlx_embed.index.export import everything, export
from mlx_embed.index.filters import Filter
from mlx_embed.index.given import entries_of, strings_of, vectors_of
from mlx_embed.index.load import load
from mlx_embed.index.rows import Entry
from mlx_embed.index.search import MODES, RERANKED, Mode, Snapshot
from mlx_embed.index.statement import Statement, seen
from mlx_embed.index.store import Store
from mlx_embed.index.vectors import vectors_for

if TYPE_CHECKING:
    from mlx_embed.index.sync import Summary

RowDtype = Literal["float32", "float16", "int8"]
Float32 = npt.NDArray[np.float32]


class Index:
    """Texts, their vectors and their words in a folder.

    One process writes at a time: the first write takes the lock, `close` gives it back. Any number of processes and
    threads read, each search on what was committed when it began. Errors are `StoreError`s, which say what to do.

    Attributes:
        path: of the folder, absolute.
        statement: what the index says of itself: its model, prompts and types.
    """

    def __init__(self, store: Store, model: EmbeddingModel | None = None) -> None:
        """Take ready parts; use `create` or `open`."""
        self.path = store.folder
        self.statement = store.statement
        self._store = store
        self._model = model

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
        """Make an index in a folder that is not there, or empty.

        Args:
            path: of the folder.
            model: a model, or its name.
            query_prompt: what is put before a query; None is the model's own.
            document_prompt: what is put before a text; None is the model's own.
            chunker: what makes chunks of files, and its version; only chunks of the same are put into the index.
            row_dtype: what a search reads: half the bytes of float32, or a quarter. The answers are the same: the best
                are compared again in float32, which is there beside.
            exist_ok: open the index that is there, if it is of the same model, prompts, chunker and row_dtype.

        Raises:
            FileExistsError: an index, or something else, is there.
            StoreMismatchError: with exist_ok, an index that differs.
            ValueError: a model that ranks neither by cosine nor by inner product; an unknown row_dtype.
        """
        folder = path_of("path", path)
        if not isinstance(model, EmbeddingModel):
            model = EmbeddingModel.from_pretrained(model)
        statement = Statement.of(model, query_prompt, document_prompt, row_dtype, chunker)
        return cls(Store.create(folder, statement, files=seen(model), exist_ok=exist_ok), model)

    @classmethod
    def open(cls, path: str | Path, model: EmbeddingModel | str | None = None, *, read_only: bool = False) -> "Index":
        """Open an index that is there.

        Args:
            path: of the folder.
            model: a model, or its name; None loads the one that the index names, when it is first needed.
            read_only: refuse to write.

        Raises:
            StoreError: there is no index, or it cannot be read.
            StoreMismatchError: the model is not the one that the index is of.
        """
        index = cls(Store(path_of("path", path), read_only=read_only))
        try:
            if model is not None:
                index._use(model if isinstance(model, EmbeddingModel) else EmbeddingModel.from_pretrained(model))
        except BaseException:
            index.close()
            raise
        return index

    @property
    def chunker(self) -> str:
        """As given to `create`."""
        return self.statement.chunker

    @property
    def model(self) -> EmbeddingModel:
        """The model, which is loaded at the first call if `open` was given none.

        Raises:
            ModelNotFoundError: it is no longer where it was, nor to be had by its name.
            StoreMismatchError: what is there now is another.
        """
        if self._model is None:
            said, there = self.statement, Path(self.statement.folder)
            model = EmbeddingModel.from_pretrained(
                there if there.is_dir() else said.model,
                revision=None if there.is_dir() else said.revision or None,
                max_seq_length=said.max_seq_length,
                task=said.task or None,
            )
            # What may have been set of the model that the index was made with.
            model.similarity_fn_name = said.similarity
            if said.dimension < model.dimension:
                model.truncate_dim = said.dimension
            self._use(model)
        assert self._model is not None
        return self._model

    def _use(self, model: EmbeddingModel) -> None:
        self.statement.require_model(model, self.path, self._store.files)
        self._model = model

    def add(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        vectors: npt.ArrayLike | None = None,
    ) -> None:
        """Add texts, all in one commit.

        Args:
            ids: their ids, each new.
            texts: what is embedded, and found by its words. A blank one is found by no vector.
            metadata: of each, what JSON can hold; `search` filters by it.
            vectors: of each [N, D], made by this model from these texts; None embeds them.

        Raises:
            ValueError: an id that is there already, or twice; lists of different lengths; vectors that do not fit.
            TypeError: something that is no string or no mapping.
        """
        self._put(ids, texts, metadata, vectors, replace=False)

    def upsert(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        vectors: npt.ArrayLike | None = None,
    ) -> None:
        """`add`, but a text takes the place of one with the same id, all in one commit."""
        self._put(ids, texts, metadata, vectors, replace=True)

    def _put(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None,
        vectors: npt.ArrayLike | None,
        *,
        replace: bool,
    ) -> None:
        entries = entries_of(ids, texts, metadata)
        known = None if vectors is None else vectors_of(vectors, len(entries), self.statement)
        writing.put(self._store, entries, known, self._vectors, replace=replace)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove texts by id, in one commit; those that are not there are passed over.

        Returns:
            How many were removed.

        Raises:
            TypeError: ids that are no list of strings.
        """
        return writing.remove(self._store, "id", list(dict.fromkeys(strings_of("ids", ids))))

    def replace_files(self, files: Iterable[FileChunks], advance: Callable[[int], Any] = lambda _: None) -> int:
        """Put the chunks of files in the place of those that they had, embedded together.

        A commit has whole files only, and is made every few seconds, or after some thousand chunks, so that what was
        killed goes on where it stopped. A text that the index has already is not embedded again: a file that was moved
        costs nothing.

        Args:
            files: of each its path, its state and its chunks, which have that path and are numbered by their ordinals;
                a generator is read as it is needed.
            advance: told of each commit how many files it has.

        Returns:
            How many files were committed.

        Raises:
            ValueError: a chunk of another path, or two of one ordinal.
        """
        return writing.replace_files(self._store, files, self._vectors, advance)

    def touch_files(self, files: Iterable[tuple[str, FileStat]]) -> None:
        """Take note, in one commit, that files have other sizes or times, but the same bytes."""
        with self._store.writing() as transaction:
            for path, stat in files:
                rows.put_file(transaction.connection, path, stat)

    def remove_files(self, paths: Iterable[str]) -> int:
        """Remove files and their chunks in one commit; how many chunks they had."""
        return writing.remove(self._store, "path", list(dict.fromkeys(strings_of("paths", paths))))

    def sync(self, folders: str | Path | Iterable[str | Path], *, globs: Iterable[str] = ()) -> "Summary":
        """Bring the index up to date with folders and files: see `mlx_embed.index.sync.sync`, which says how."""
        from mlx_embed.index.sync import sync

        return sync(self, [folders] if isinstance(folders, (str, Path)) else folders, globs=globs)

    def files(self) -> dict[str, FileStat]:
        """The files that are indexed, by path, in order."""
        with self._store.reading() as (connection, _):
            return rows.files(connection, self._store.database)

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
        vectors: npt.ArrayLike | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: list[str] | tuple[str, ...],
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
        rerank: CrossEncoder | None = None,
        min_score: float | None = None,
        vectors: npt.ArrayLike | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | list[str] | tuple[str, ...],
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        filter: Filter | None = None,
        rerank: CrossEncoder | None = None,
        min_score: float | None = None,
        vectors: npt.ArrayLike | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The k best texts for a query, best first, and of equal ones in the order of their ids.

        Args:
            query: a question or some words; a list is faster than one after the other.
            k: how many.
            mode: "vector" compares vectors, "text" finds words, and "hybrid" fuses the ranks of both.
            filter: which texts count: {"path": "docs/**", "year": {">=": 2020}, "lang": ["en", "de"]}. See `filters`.
            rerank: reads the best 50 again, whose score then decides.
            min_score: leave out what scores less.
            vectors: of the query [D], or of each [N, D], made by this model; None embeds them.

        Returns:
            A list of hits; for a list of queries, a list of these.

        Raises:
            TypeError: a query that is no string; a rerank that is no CrossEncoder.
            ValueError: an unknown mode, a k below 1, a min_score that is not finite, a filter of another form, a
                reranker of several labels, or vectors that do not fit.
            StoreCorruptError: the index is not as it was written; the message names the file.
        """
        single = isinstance(query, str)
        if not isinstance(query, Iterable):
            raise TypeError(f"query is {type_name(query)}, where a string or a list of strings is needed.")
        queries = [query] if isinstance(query, str) else list(query)
        for i, one in enumerate(queries):
            if not isinstance(one, str):
                raise TypeError(f"query[{i}] is {type_name(one)}, where a string is needed.")
        k = min(positive_number("k", k, "texts"), len(self) or 1)
        if min_score is not None:
            min_score = finite_number("min_score", min_score)
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}.")
        conditions = filters.checked(filter)
        if isinstance(rerank, CrossEncoder):
            rerank.require_one_label()
        elif rerank is not None and not hasattr(rerank, "predict"):
            raise TypeError(f"rerank is {type_name(rerank)}, where a CrossEncoder is needed.")
        known = None
        if mode != "text" and queries:
            given = [vectors] if single else vectors
            known = self._query_vectors(queries) if vectors is None else vectors_of(given, len(queries), self.statement)
        depth = k if rerank is None else max(k, RERANKED)
        with self._store.reading() as (connection, view):
            snapshot = Snapshot(connection, view, self.statement.row_dtype, self._store.database)
            found = search.search(snapshot, queries, known, depth, mode, conditions)
        if rerank is not None:
            found = [search.reranked(one, hits, rerank)[:k] for one, hits in zip(queries, found, strict=True)]
        if min_score is not None:
            found = [[hit for hit in hits if hit.score >= min_score] for hits in found]
        return found[0] if single else found

    def get(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> dict[str, Hit]:
        """Texts by id, without a score, in the order in which they were added.

        Args:
            ids: those that are not there are left out; None is all.
            filter: as of `search`.

        Raises:
            TypeError: ids that are no list of strings.
            ValueError: a filter of another form.
        """
        conditions = dict(filters.checked(filter) or {})
        if ids is not None:
            conditions = {filters.AND: [conditions, {filters.ID: strings_of("ids", ids)}]}
        with self._store.reading() as (connection, _):
            wanted = filters.numbers(connection, conditions).tolist()
            found = rows.hits(connection, wanted, self._store.database)
        return {found[number].id: found[number] for number in wanted}

    def vectors(self, ids: Sequence[str]) -> dict[str, Float32]:
        """The vectors [D] of texts by id, as they are compared; ids that are not there are left out.

        Raises:
            TypeError: ids that are no list of strings.
            StoreCorruptError: a vector that is not as it was written.
        """
        with self._store.reading() as (connection, view):
            found = rows.numbers_of(connection, "id", list(dict.fromkeys(strings_of("ids", ids))))
            vectors = view.vectors(np.array([numbers[0] for numbers in found.values()], dtype=np.int64))
        return dict(zip(found, vectors, strict=True))

    def compact(self) -> None:
        """Give back the space of what was deleted, while readers go on. It needs room for a copy of the vectors."""
        compact.compact(self._store)

    def check(self) -> None:
        """Read everything there is.

        Raises:
            StoreCorruptError: something is not as it was written; the message names the file.
        """
        check.check(self._store)

    def export(self, path: str | Path) -> None:
        """Write all texts, what is known of them, and their vectors to NAME.parquet or to the LanceDB table NAME.lance.

        Raises:
            FileExistsError: something is there.
            FileNotFoundError: there is no folder for it.
            ValueError: another ending.
            ImportError: pyarrow, or lancedb, is not installed.
        """
        export(self._store, path_of("path", path))

    def everything(self) -> Iterator[tuple[list[Hit], Float32]]:
        """All texts, in the order in which they were added, some at a time, with their vectors [n, D].

        All are of one commit, the last one when this began.
        """
        return everything(self._store)

    def load(self, path: str | Path, *, same_model: bool = False) -> int:
        """Put in the texts and vectors of NAME.parquet or the LanceDB table NAME.lance, as `export` writes them.

        They take the place of texts with the same ids and of files with the same paths. A commit has some thousand, and
        whole files; after an error, those before it are there, and the same call does it again. A table of another
        program has at least the columns "id" and "text"; without "vector" its texts are embedded, and columns that
        `export` does not have are metadata.

        Args:
            path: of the file or table.
            same_model: take the vectors of a table that does not say by which model they were made.

        Returns:
            How many texts.

        Raises:
            StoreMismatchError: the vectors are of another model, or may be; files in it have chunks of another kind.
            FileNotFoundError: nothing is there.
            ValueError: another ending; a column that is missing; an id that is there twice; rows of one file that are
                apart.
            ImportError: pyarrow, or lancedb, is not installed.
        """
        return load(self._store, path_of("path", path), self._vectors, same_model=same_model)

    def close(self) -> None:
        """Give back the lock and the files; what is asked of a closed index raises ValueError."""
        self._store.close()

    def __len__(self) -> int:
        with self._store.reading() as (_, view):
            return len(view)

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, model={self.statement.model!r}, row_dtype={self.statement.row_dtype!r})"

    def _query_vectors(self, queries: Sequence[str]) -> Float32:
        prompt = self.statement.query_prompt
        vectors = vectors_of(self.model.encode_query(queries, prompt=prompt), len(queries), self.statement)
        vectors[[not query.strip() for query in queries]] = 0
        return vectors

    def _vectors(self, entries: Sequence[Entry]) -> Float32:
        said = self.statement

        def encode(texts: list[str]) -> Float32:
            return vectors_of(self.model.encode_document(texts, prompt=said.document_prompt), len(texts), said)

        return vectors_for(self._store, entries, encode)
