"""A column of a Ray dataset embedded by actors, each with one engine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlx_embed.arguments import positive_number
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.jobs.devices import share_of_threads

if TYPE_CHECKING:
    from mlx_embed.options import EncodeOptions

# Rows that an actor gets at a time: of fewer rows than this one actor has all. Ray's None is a block, of any size.
BATCH = 1024


class Embedder:
    """Embeds a column of batches: what `Dataset.map_batches` makes one of in each actor.

    Batches are Arrow tables, which are read and not written to, so that `zero_copy_batch` is safe.
    """

    def __init__(
        self,
        model: str,
        column: str = "text",
        output: str = "vector",
        load: Mapping[str, Any] | None = None,
        encode: "EncodeOptions | None" = None,
    ) -> None:
        """Load the model; `load` are options of `EmbeddingModel.from_pretrained`, and `encode` of `encode`."""
        self._model = EmbeddingModel.from_pretrained(model, **(load or {}))
        self._column, self._output = column, output
        self._options: Any = dict(encode or {})

    def __call__(self, batch: Any) -> Any:
        """The table with one more column: the vectors, as tensors over one piece of memory.

        Raises:
            ValueError: no such column, one of the output's name already, or a text that is null.
            TypeError: something else than text.
        """
        from mlx_embed.records import parquet

        if self._column not in batch.column_names:
            raise ValueError(f"There is no column {self._column!r}; there are {', '.join(batch.column_names)}.")
        if self._output in batch.column_names:
            raise ValueError(f"There is a column {self._output!r} already; give the vectors another name by output=.")
        texts = batch.column(self._column).to_pylist()
        return batch.append_column(self._output, parquet.tensors(self._model.encode(texts, **self._options)))


def embed(
    dataset: Any,
    *,
    model: str,
    column: str = "text",
    output: str = "vector",
    compute: Any = None,
    batch_size: int = BATCH,
    num_gpus: float | None = None,
    num_cpus: float | None = None,
    load: Mapping[str, Any] | None = None,
    encode: "EncodeOptions | None" = None,
) -> Any:
    """A Ray dataset with the vectors of a column of texts.

    Ray keeps neither the order of rows nor their number as a promise where actors fail: give rows an id column, or set
    `ray.data.DataContext.get_current().execution_options.preserve_order`.

    Args:
        dataset: of `ray.data`.
        model: as for `EmbeddingModel.from_pretrained`; every node needs it.
        column: of the texts.
        output: the name of the column of vectors: Arrow's fixed-shape tensors, in batches one numpy float32 [n, D].
        compute: how many actors: a `ray.data.ActorPoolStrategy`; None is one. On one machine the actors share its cores
            evenly, and on several they do as if they were spread evenly.
        batch_size: rows that an actor gets at a time.
        num_gpus: of an actor; 1 on GPUs.
        num_cpus: of an actor, by which Ray counts how many fit on a node; the threads are as `compute` says.
        load: options of `EmbeddingModel.from_pretrained`.
        encode: options of `EmbeddingModel.encode`.

    Raises:
        ImportError: Ray is not installed.
        ValueError: no positive number of rows.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise missing() from error
    compute = ActorPoolStrategy(size=1) if compute is None else compute
    resources = {"num_gpus": num_gpus, "num_cpus": num_cpus}
    nodes = sum(node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 1
    per_node = -(-(compute.max_size if compute.max_size < 2**31 else 1) // max(nodes, 1))
    return dataset.map_batches(
        Embedder,
        fn_constructor_kwargs={"model": model, "column": column, "output": output, "load": load, "encode": encode},
        compute=compute,
        batch_size=positive_number("batch_size", batch_size, "rows"),
        batch_format="pyarrow",
        zero_copy_batch=True,
        runtime_env={"env_vars": share_of_threads(per_node)},
        **{name: value for name, value in resources.items() if value is not None},
    )


def missing() -> ImportError:
    """Where Ray is not installed."""
    return ImportError('This needs Ray: pip install ".[ray]" in a clone of mlx-embed')
