"""What a map is made of: texts, their vectors, and columns to colour by, of a file or of an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.index import Index
from mlx_embed.records import reading
from mlx_embed.tokenizer.surrogates import well_formed


@dataclass(frozen=True)
class Corpus:
    """Texts and their vectors.

    Attributes:
        name: of the file or index.
        ids: of each text.
        texts: N of them.
        vectors: [N, D] float32.
        columns: by name, a value of each text: text, a number, or None.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    vectors: npt.NDArray[np.float32]
    columns: Mapping[str, Sequence[Any]]


def of_file(source: reading.Source, model: EmbeddingModel, columns: Sequence[str], limit: int | None = None) -> Corpus:
    """The texts of a file, embedded now.

    Raises:
        ValueError: a row without a text; a column that no row has; fewer than two texts.
    """
    records = list(islice(reading.records(source), limit))
    if len(records) < 2:
        raise ValueError(f"{source.name} has {len(records)} texts, and a map needs two at least.")
    for place, name in enumerate(columns):
        if all(record.also[place] is None for record in records):
            raise ValueError(f"No text of {source.name} has {name!r}.")
    texts = [well_formed(record.text) for record in records]
    return Corpus(
        name=Path(source.name).name,
        ids=[record.place if record.id is None else well_formed(str(record.id)) for record in records],
        texts=texts,
        vectors=model.encode_document(texts),
        columns={name: [plain(record.also[place]) for record in records] for place, name in enumerate(columns)},
    )


def of_index(index: Index, columns: Sequence[str] | None, limit: int | None = None) -> Corpus:
    """The texts of an index, and the vectors that it has.

    Args:
        index: opened.
        columns: "path", or keys of the texts' metadata; None is the path, where there are files.
        limit: the first so many.

    Raises:
        ValueError: a column that no text has; fewer than two texts.
    """
    hits, blocks = [], []
    for block, vectors in index.everything():
        hits += block
        blocks.append(vectors)
        if limit is not None and len(hits) >= limit:
            break
    hits = hits[:limit]
    if len(hits) < 2:
        raise ValueError(f"{index.path} has {len(hits)} texts, and a map needs two at least.")
    wanted = (["path"] if any(hit.path for hit in hits) else []) if columns is None else columns
    known = {"path"}.union(*(hit.metadata for hit in hits))
    if missing := [name for name in wanted if name not in known]:
        raise ValueError(f"No text of {index.path} has {missing[0]!r}; they have {', '.join(sorted(known))}.")
    return Corpus(
        name=index.path.name,
        ids=[hit.id for hit in hits],
        texts=[hit.text for hit in hits],
        vectors=np.concatenate(blocks)[: len(hits)],
        columns={
            name: [plain(hit.path if name == "path" else hit.metadata.get(name)) for hit in hits] for name in wanted
        },
    )


def plain(value: Any) -> Any:
    """A value as a column has it: a number of 64 bits or None as it is, all else as text that UTF-8 can hold."""
    if value is None or isinstance(value, float) or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    return well_formed(str(value))
