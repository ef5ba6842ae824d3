"""A file of texts to weights of tokens, or to a vector a token: `encode --sparse` and `--multi-vector`."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_embed.records.reading import Record

if TYPE_CHECKING:
    from mlx_embed.multi_vector_encoder import MultiVectorEncoder
    from mlx_embed.sparse_encoder import SparseEncoder

SUFFIXES = (".npz", ".jsonl")
# Texts that are computed before any of them is written.
PART = 1024
# What these kinds do not have, by its option, and what leaves it alone.
_NOT_HERE = {
    "server": None,
    "resume": False,
    "truncate_dim": None,
    "output_dtype": "float32",
    "ranges": None,
    "long_text": "truncate",
}


def write(options: argparse.Namespace) -> str:
    """Embed, and tell what was done: a sentence. `options` are those of the command `encode`.

    Raises:
        ValueError: an option that these kinds of models do not have, or a destination of another kind.
    """
    from mlx_embed.records import reading
    from mlx_embed.texts import progress

    named = "--sparse" if options.sparse else "--multi-vector"
    for name, idle in _NOT_HERE.items():
        if getattr(options, name) != idle:
            raise ValueError(f"--{name.replace('_', '-')} is not for {named}: leave it away.")
    source = reading.source(options.file, options.format, options.fields, options.id_field)
    target = None if options.output is None else _checked(options.output, named)
    if target is not None and source.path is not None and target.exists() and target.samefile(source.path):
        raise ValueError(f"{target} is the file of texts; write the vectors to another.")
    records = reading.records(source)
    first = next(records, None)  # shows most of what can be wrong with a file, before a model is loaded
    model = _model(options)
    begun = time.perf_counter()
    kept: list[tuple[Record, Any]] = []
    count, values = 0, 0
    with progress(None, None) as advance:
        for part in _parts(first, records):
            for record, vector in zip(part, _encoded(model, part, options), strict=True):
                count += 1
                values += len(vector[0]) if options.sparse else len(vector)
                if target is None or target.suffix == ".jsonl":
                    kept.append((record, _json(vector)))
                else:
                    kept.append((record, vector))
            advance(len(part))
            if target is None:
                _print(kept)
                kept = []
    if target is not None:
        _write(target, kept, model, options)
    seconds = time.perf_counter() - begun
    what = "weights" if options.sparse else f"vectors of length {model.dimension}"
    return (
        f"{count:,} texts, {values:,} {what}, by {model.name}, to {target or 'standard output'}, in {seconds:.1f} s "
        f"({count / max(seconds, 1e-9):,.0f} texts/s)."
    )


def _checked(file: str, named: str) -> Path:
    target = Path(file).expanduser().absolute()
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{file} ends in none of {', '.join(SUFFIXES)}, which {named} writes.")
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"{target} cannot be written: it is a folder, or there is none to put it into.")
    return target


def _model(options: argparse.Namespace) -> "SparseEncoder | MultiVectorEncoder":
    if options.model is None:
        raise ValueError("Name a model of this kind by --model: there is no default one.")
    from mlx_embed.multi_vector_encoder import MultiVectorEncoder
    from mlx_embed.sparse_encoder import SparseEncoder

    kind: Any = SparseEncoder if options.sparse else MultiVectorEncoder
    model: SparseEncoder | MultiVectorEncoder = kind.from_pretrained(
        options.model, dtype=options.dtype, device=options.device
    )
    return model


def _encoded(model: Any, part: list[Record], options: argparse.Namespace) -> Any:
    encode = model.encode_query if options.task == "query" else model.encode_document
    return encode([record.text for record in part], prompt_name=options.prompt_name, show_progress_bar=False)


def _parts(first: Record | None, records: Iterator[Record]) -> Iterator[list[Record]]:
    part = [] if first is None else [first]
    for record in records:
        part.append(record)
        if len(part) == PART:
            yield part
            part = []
    if part:
        yield part


def _json(vector: Any) -> dict[str, Any]:
    if isinstance(vector, tuple):
        return {"indices": vector[0].tolist(), "values": vector[1].tolist()}
    return {"vectors": vector.tolist()}


def _lines(kept: list[tuple[Record, Any]]) -> Iterator[str]:
    for record, found in kept:
        yield json.dumps(({} if record.id is None else {"id": record.id}) | found) + "\n"


def _print(kept: list[tuple[Record, Any]]) -> None:
    if sys.stdout is None:
        raise ValueError("There is no standard output; name a file with -o.")
    sys.stdout.writelines(_lines(kept))


def _write(target: Path, kept: list[tuple[Record, Any]], model: Any, options: argparse.Namespace) -> None:
    """JSONL, or .npz: a matrix as scipy.sparse.load_npz reads it, or "vectors" and "offsets"; "ids" where there are."""
    import numpy as np

    from mlx_embed.multi_vectors import MultiVectors
    from mlx_embed.records.writing import replacing
    from mlx_embed.sparse_vectors import SparseVectors

    if target.suffix == ".jsonl":
        with replacing(target) as file:
            for line in _lines(kept):
                file.write(line.encode())
        return
    rows = [vector for _, vector in kept]
    if options.sparse:
        csr = SparseVectors.of(rows, model.dimension_for(options.task or "document"))
        arrays: dict[str, Any] = {"indptr": csr.indptr, "indices": csr.indices, "data": csr.values}
        arrays |= {"format": np.array(b"csr"), "shape": np.array([len(csr), csr.dimension])}
    else:
        whole = MultiVectors.of(rows)
        arrays = {"vectors": whole.vectors, "offsets": whole.offsets}
    if kept and kept[0][0].id is not None:
        arrays["ids"] = np.array([record.id for record, _ in kept])
    with replacing(target) as file:
        np.savez(file, **arrays)
