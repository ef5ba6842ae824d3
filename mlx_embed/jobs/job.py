"""Files of texts to files of vectors, a shard at a time, by several processes or a Ray cluster."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mlx_embed.checkpoint.files import sha256
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.jobs.devices import environments_of
from mlx_embed.jobs.processes import Processes
from mlx_embed.jobs.shards import Done, Manifest, Shard
from mlx_embed.records import reading
from mlx_embed.tokenizer import TruncationWarning

# Texts that are in memory at a time.
_TEXTS = 8192


@dataclass(frozen=True)
class Work:
    """What is done with a shard, as it travels to whoever does it.

    Attributes:
        folder: absolute; on a cluster one that every node sees.
        model: as for `EmbeddingModel.from_pretrained`.
        load: options of that.
        encode: options of `EmbeddingModel.encode`.
    """

    folder: str
    model: str
    load: Mapping[str, Any] = field(default_factory=dict)
    encode: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Callable[[Shard], Done]:
        """Load the model, and give what embeds a shard."""
        model = EmbeddingModel.from_pretrained(self.model, **self.load)
        return lambda shard: _embedded(model, self.encode, Path(self.folder), shard)


def run(
    manifest: Manifest,
    shards: Iterable[Shard],
    work: Work,
    workers: int | None,
    ray: str | None = None,
    embedded: Callable[[int], Any] = lambda _: None,
) -> Iterator[Done]:
    """Each shard that was not done, once it is in its place and in the manifest, in the order that they get there.

    Args:
        manifest: open.
        shards: all of the job.
        work: what is done with each.
        workers: processes, or actors; None is one for each GPU of this machine, or one.
        ray: the address of a Ray cluster, whose actors are to do it.
        embedded: told by processes now and then how many more texts are embedded.

    Raises:
        Exception: what reading or embedding a shard raises; what is done by then is kept.
        WorkerError: two processes or actors died over the same shard.
    """
    left = [shard for shard in shards if shard.number not in manifest.done]
    if not left:
        return
    environments = environments_of(workers, work.load.get("device"))[: len(left)]
    if ray is None:
        with Processes(work, environments, embedded=embedded) as processes:
            for _, done in processes.results(left):
                manifest.add(done)
                yield done
        return
    from mlx_embed.jobs import ray_job

    gpus = float("CUDA_VISIBLE_DEVICES" in environments[0])
    for _, done in ray_job.results(work, left, len(environments), ray, gpus):
        manifest.add(done)
        yield done


def _embedded(model: EmbeddingModel, options: Mapping[str, Any], folder: Path, shard: Shard) -> Done:
    """Write a shard's vectors to a file of another name, and put it in its place."""
    from mlx_embed.records import parquet

    counts: list[Any] = []
    ids: list[reading.Id | None] = []

    def blocks() -> Iterator[Any]:
        for texts in _texts(parquet.holdable(reading.records(shard.source)), ids):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)  # counted, and said of the whole job
                vectors, info = model.encode(texts, return_info=True, **options)
            counts.append((len(texts), int(info.token_counts.sum()), int(info.truncated.sum())))
            yield vectors

    vectors = blocks()
    first = next(vectors, None)
    empty = model.encode([], **options)
    first = empty if first is None else first
    has_ids = shard.source.id_field is not None
    target = folder / shard.name
    other = folder / f".{shard.name}.{os.getpid()}.writing"
    try:
        parquet.write(other, chain([first], vectors), _taken(ids) if has_ids else None, empty.shape[1], empty.dtype)
        with other.open("rb") as file:
            os.fsync(file.fileno())
        size, digest = other.stat().st_size, sha256(other)
        os.replace(other, target)
    finally:
        other.unlink(missing_ok=True)
    rows, tokens, cut = (int(total) for total in np.array(counts or [(0, 0, 0)]).sum(axis=0))
    return Done(shard.number, shard.name, rows, tokens, cut, size, digest)


def _texts(records: Iterable[reading.Record], ids: list[Any]) -> Iterator[list[str]]:
    """The texts, some thousand at a time; their ids are added to `ids` before each."""
    texts: list[str] = []
    for record in records:
        texts.append(record.text)
        ids.append(record.id)
        if len(texts) == _TEXTS:
            yield texts
            texts = []
    if texts:
        yield texts


def _taken(ids: list[Any]) -> Iterator[Any]:
    """The ids that there are by the time that they are asked for."""
    place = 0
    while place < len(ids):
        yield ids[place]
        place += 1
