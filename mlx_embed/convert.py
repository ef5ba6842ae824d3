"""A Hugging Face or sentence-transformers checkpoint to an MLX folder, verified before it takes its place."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from mlx_embed import int8_layers
from mlx_embed.arguments import is_folder, path_of, whole_number
from mlx_embed.checkpoint import (
    Checkpoint,
    adapters,
    heads,
    hub,
    masked_lm,
    quantization,
    read_checkpoint,
    safetensors,
    weights,
)
from mlx_embed.checkpoint.folder import PROJECTION
from mlx_embed.checkpoint.int8 import Int8Layers
from mlx_embed.checkpoint.modules import Dense, Normalize
from mlx_embed.checkpoint.sparse import read_sides
from mlx_embed.checkpoint.tasks import OWN_MODULE, STATED, V5_STATED, place_of
from mlx_embed.cross_encoder import CrossEncoder
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.engine.device import DTYPES
from mlx_embed.engine.worker import worker
from mlx_embed.errors import MLXEmbedError, UnsupportedModelError
from mlx_embed.kinds import DENSE, SPARSE, kind_of, least_cosine
from mlx_embed.loading import checked_length
from mlx_embed.static_tokenizer import tokenizer_of
from mlx_embed.texts import logger

if TYPE_CHECKING:
    from mlx_embed.evaluation import QualityReport

GROUP_SIZES = (32, 64, 128)
BITS = (4, 8)
INT8_CPU = "int8-cpu"

# Small files that travel with the weights, wherever in the folder they lie.
_KEPT = ("*.json", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*", "artifact.metadata")
# BGE-M3's layers, beside the weights.
_LAYERS = ("sparse_linear.safetensors", "colbert_linear.safetensors")
_SKIPPED_FOLDERS = {"onnx", "openvino", "coreml", ".git", ".cache"}

# What is embedded to verify a conversion: short, long, and not only English.
SAMPLE = (
    "How do I sort a list of dictionaries by a value?",
    "The committee will publish its findings on the bridge's foundations next spring.",
    "Ein kurzer Satz auf Deutsch über Wetter und Züge.",
    "def add(a, b): return a + b",
    "Rain. " * 60,
)
# A reranker's logits are compared for the first two of them, as queries, with all as documents.
SAMPLE_PAIRS = [(query, document) for query in SAMPLE[:2] for document in SAMPLE]
# Rounding moves an unquantized model's vectors and logits by less: a lower cosine, or a difference of a larger share of
# the largest logit, means that the conversion went wrong.
LEAST_COSINE = 0.999
LARGEST_DIFFERENCE = 0.05
NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did.

    Attributes:
        destination: the folder written.
        source_bytes: size of the source's safetensors files.
        destination_bytes: size of the written one.
        min_cosine: the lowest cosine of a sample text's vector to the original's, both computed in float32.
        logit_difference: a reranker's largest difference of a logit from the original's, over pairs of sample texts;
            None for other models.
        quality: retrieval before and after on the folder that `evaluate` named; None without it.
        kept_in_bfloat16: with quantize="int8-cpu" the linear layers that stay in bfloat16; else None.
    """

    destination: Path
    source_bytes: int
    destination_bytes: int
    min_cosine: float
    logit_difference: float | None = None
    quality: "QualityReport | None" = None
    kept_in_bfloat16: tuple[str, ...] | None = None


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    dtype: str | None = None,
    quantize: int | str | None = None,
    group_size: int | None = None,
    task: str | None = None,
    overwrite: bool = False,
    evaluate: str | Path | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ConversionReport:
    """Write `source` as an MLX checkpoint that `EmbeddingModel.from_pretrained(destination)` loads as it is.

    The folder is written beside `destination`, loaded, compared with the source and only then renamed: nothing
    half-written is ever seen at `destination`. What a conversion that was killed has left beside it, hidden, the next
    one to the same destination puts back or removes. A reranker keeps its head, and
    `CrossEncoder.from_pretrained(destination)` loads it; a sparse model keeps its own, a model of a vector a token its
    projection, and a static model is its table. An adapter is merged into the weights.

    Args:
        source: a local folder, hub repository id or alias.
        destination: the folder to write; must be absent or empty unless `overwrite`.
        dtype: "float32", "float16" or "bfloat16"; None keeps the source's.
        quantize: 8 or 4 bits for linear layers and word embeddings; None leaves them. "int8-cpu" leaves the weights and
            says in config.json that a CPU is to compute in int8: what it scales columns by, and which layers cost too
            much accuracy and are not, by a measurement on sample texts: see `int8_layers`.
            `from_pretrained(..., dtype="float32")` is exact.
        group_size: 32, 64 or 128 weights share one quantization scale; None is 64. It is of 8 and 4 bits alone.
        task: of a model with a LoRA for each task, the one that is merged into the weights, as an adapter is. None
            keeps them all beside the weights, which cannot be quantized then.
        overwrite: replace a folder at `destination` that `convert` has written, and that holds nothing else.
        evaluate: for an embedding model, a folder of documents, queries and relevance judgements, laid out as
            `evaluation.read_collection` says; the report then tells what the conversion does to retrieval, both models
            run as `from_pretrained` loads them here.
        revision: see `EmbeddingModel.from_pretrained`.
        cache_dir: likewise.
        local_files_only: likewise.

    Raises:
        ValueError: an option that is not one of those above, a task that the model does not have, quantize given with a
            quantized source, with a sparse or static one, or with several tasks, a source and a destination of which
            one is inside the other, a malformed folder to evaluate on, a model to evaluate that is no embedding
            model, or a default prompt that leaves no room for a text.
        FileExistsError: something is at `destination`, and `overwrite` was not given or `convert` has not written it.
        TypeError: a number that is none.
        OSError: the disk is full, or files may not become so large.
        MLXEmbedError: the source cannot be loaded, or the result does not give the source's vectors.
    """
    int8 = quantize == INT8_CPU
    if isinstance(quantize, str) and not int8:
        raise TypeError(f"quantize is {quantize!r} and not {INT8_CPU!r}, where a whole number is needed.")
    quantize = None if quantize is None or int8 else whole_number("quantize", quantize)
    if group_size is not None:
        group_size = whole_number("group_size", group_size)
        if quantize is None:
            found = f"quantize={INT8_CPU!r}" if int8 else "none"
            raise ValueError(f"group_size {group_size} is of weights of 8 or 4 bits, and there is {found}.")
    group_size = 64 if group_size is None else group_size
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}.")
    if quantize is not None and (quantize not in BITS or group_size not in GROUP_SIZES):
        raise ValueError(f"quantize takes {BITS} bits in groups of {GROUP_SIZES}, got {quantize} and {group_size}.")
    from mlx_embed.destination import check_destination, put, record, restore, workplace
    from mlx_embed.evaluation import quality, read_collection

    collection = None if evaluate is None else read_collection(evaluate)
    target = Path(os.path.abspath(path_of("destination", destination)))
    if is_folder(source):
        _check_apart(path_of("source", source), target)
    restore(target)
    check_destination(target, overwrite)
    folder = hub.resolve(source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    _check_apart(folder, target)
    kind = kind_of(folder)
    checkpoint = read_checkpoint(
        folder, hub.repository_id(source), kind, cache_dir=cache_dir, local_files_only=local_files_only
    )
    if task is not None:
        checkpoint = checkpoint.for_task(task)
    elif checkpoint.tasks and quantize is not None:
        raise ValueError(
            f"{folder} has tasks ({', '.join(checkpoint.tasks)}), whose LoRAs cannot be added to quantized weights; "
            "pass one as task, which is merged first."
        )
    static = checkpoint.architecture.LAYOUT == "table"
    if quantize is not None and (static or kind == SPARSE):
        raise ValueError(
            f"{folder} is a {'static' if static else 'sparse'} model, whose table of tokens is not quantized: pass "
            "dtype instead."
        )
    if quantize is not None and checkpoint.config.get("quantization") is not None:
        raise ValueError(f"{folder} is quantized already; convert from the original checkpoint.")
    if int8:
        if kind != DENSE:
            raise UnsupportedModelError(f"{folder} is no embedding model or reranker, of which alone int8-cpu is.")
        int8_layers.check(checkpoint)
    if kind == DENSE:
        _check_prompt(checkpoint)
    hidden_size = checkpoint.encoder_config.hidden_size
    if quantize is not None and hidden_size % group_size:
        raise ValueError(
            f"group_size {group_size} does not divide the model's hidden_size {hidden_size}; "
            f"choose one of {[size for size in GROUP_SIZES if hidden_size % size == 0]}."
        )
    reranker = not static and (heads.has_head(checkpoint) or heads.has_score(checkpoint))
    if (reranker or kind != DENSE) and collection is not None:
        what = "a reranker" if reranker else "sparse" if kind == SPARSE else "of late interaction"
        raise ValueError(f"{folder} is {what}; evaluate measures what embedding models find.")
    layers = None
    if int8:
        measured = heads.as_read(checkpoint) if reranker else checkpoint
        layers = int8_layers.choose(measured, checked_length(None, checkpoint))[1]
    with workplace(target) as work:
        written = work / "checkpoint"
        logger.info("Writing the weights of %s.", folder)
        try:
            _write(checkpoint, kind, written, dtype, quantize, group_size, layers)
        except OSError as error:
            raise _no_room(target, error) if error.errno in NO_ROOM else error from error
        logger.info("Comparing vectors with the source's.")
        tasks = (checkpoint.tasks[0],) * 2 if checkpoint.needs_task else (checkpoint.task, None)
        cosine = least_cosine(kind, folder, written, SAMPLE, tasks)
        exact = quantize is None and not int8
        if not cosine >= (LEAST_COSINE if exact else -1.0):
            raise MLXEmbedError(
                f"The converted model's vectors differ from the source's (cosine {cosine:.6f}); nothing was written."
            )
        difference, largest = _logit_difference(folder, written) if reranker else (0.0, 0.0)
        if not difference <= (LARGEST_DIFFERENCE * largest if exact else float("inf")):
            raise MLXEmbedError(
                f"The converted model's scores differ from the source's (logits by up to {difference:.6f}); "
                "nothing was written."
            )
        report = ConversionReport(
            target,
            _weight_bytes(checkpoint, kind),
            _weight_bytes_under(written),
            cosine,
            difference if reranker else None,
            None
            if collection is None
            else quality(
                EmbeddingModel.from_pretrained(folder, task=task), EmbeddingModel.from_pretrained(written), collection
            ),
            None if layers is None else layers.kept,
        )
        record(written)
        put(written, target)
    return report


def _write(
    checkpoint: Checkpoint,
    kind: str,
    target: Path,
    dtype: str | None,
    bits: int | None,
    group_size: int,
    layers: Int8Layers | None,
) -> None:
    """Write the folder: the source's layout with one safetensors file under this package's names."""
    from shutil import copyfile

    module_files = {file for folder in _module_folders(checkpoint, kind) for file in safetensors.files(folder)}
    found = [place_of(checkpoint.transformer, checkpoint.config, name) for name in checkpoint.tasks]
    places = [place for place in found if place is not None]
    if checkpoint.task is None:
        module_files |= {place / adapters.FILE for place in places}
    module_files |= {path for name in _LAYERS if (path := checkpoint.folder / name).is_file()}
    for path in [*_kept_files(checkpoint.folder), *module_files]:
        # The shards become one file, and an adapter a part of it.
        if path.parent == checkpoint.transformer and path.name.endswith((".index.json", adapters.CONFIG)):
            continue
        if checkpoint.task is not None and path.parent in places:
            continue
        copy = target / path.relative_to(checkpoint.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copyfile(path, copy)
    transformer = target / checkpoint.transformer.relative_to(checkpoint.folder)
    config = {
        key: value for key, value in checkpoint.config.items() if not key.startswith(("quantization", "int8_cpu"))
    }
    if checkpoint.task is not None and [key for key in (STATED, V5_STATED) if config.pop(key, None) is not None]:
        path = target / "modules.json"
        if path.is_file():
            usual = path.read_text(encoding="utf-8").replace(OWN_MODULE, "sentence_transformers.models.Transformer")
            path.write_text(usual, encoding="utf-8")
    if checkpoint.prompts and kind == DENSE:
        # The E5 family's prompts come from the model's name, which a converted folder need not carry.
        path = target / "config_sentence_transformers.json"
        present = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not (target / "modules.json").is_file():
            present = {}
            _write_modules(checkpoint, target)
        _write_json(path, present | {"prompts": dict(checkpoint.prompts)})

    def save() -> None:
        with mx.stream(mx.cpu):
            encoder = weights.load_encoder(checkpoint, DTYPES[dtype] if dtype else None)
            if bits is not None:
                weights.quantize(encoder, bits, group_size)
            head = heads.head_arrays(checkpoint, DTYPES[dtype] if dtype else None)
            head |= masked_lm.head_arrays(checkpoint, DTYPES[dtype] if dtype else None)
            if checkpoint.multi_vector is not None and checkpoint.multi_vector.projected:
                head |= safetensors.load_tensors({PROJECTION: weights.read_tensors(checkpoint)[PROJECTION]})
            if checkpoint.task is None:
                head |= weights.load_tasks(checkpoint)
            try:
                weights.save_encoder(encoder, transformer, head)
            except RuntimeError as error:  # MLX does not say why it could not write
                raise OSError(errno.ENOSPC, str(error)) from error
            if how := quantization.stated(encoder):
                config["quantization"] = how

    if layers is not None:
        config["int8_cpu"] = layers.as_dict()
    transformer.mkdir(parents=True, exist_ok=True)
    if checkpoint.architecture.LAYOUT == "table":
        from mlx_embed.checkpoint.static import save_table

        save_table(checkpoint.transformer, transformer, DTYPES[dtype] if dtype else None)
        return
    worker.run(save)
    _write_json(transformer / "config.json", config)


def _write_modules(checkpoint: Checkpoint, target: Path) -> None:
    """Say in modules.json what a bare checkpoint means, since prompts are read only where there is one."""
    for path in target.glob("sentence_*_config.json"):
        path.unlink()  # which was not read either
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"))
    modules = [
        {"idx": index, "name": str(index), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, place) in enumerate(kinds)
    ]
    (target / "modules.json").write_text(json.dumps(modules, indent=2), encoding="utf-8")
    (target / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"embedding_dimension": checkpoint.dimension, "pooling_mode": list(checkpoint.pooling.modes)}
    _write_json(target / "1_Pooling" / "config.json", pooling)


def _check_apart(folder: Path, target: Path) -> None:
    places = target.resolve(), folder.resolve()
    if places[0] == places[1]:
        raise ValueError(f"The source and the destination are the same folder, {folder}.")
    if places[0] in places[1].parents or places[1] in places[0].parents:
        raise ValueError(f"Of the source {folder} and the destination {target}, one is inside the other.")


def _check_prompt(checkpoint: Checkpoint) -> None:
    """Raise where the prompt before each text leaves none of the text: all vectors are one, and tell nothing."""
    name = checkpoint.default_prompt_name
    if name is None:
        return
    prompt, tokenizer = checkpoint.prompts[name], tokenizer_of(checkpoint, checked_length(None, checkpoint))
    if tokenizer.room(prompt) < 1:
        raise ValueError(
            f"The default prompt {name!r} of {checkpoint.folder} has {tokenizer.prompt_length(prompt)} tokens with "
            f"special ones, and the model reads {tokenizer.max_length}: nothing of a text is left, and all have one "
            "vector. Shorten the prompt or remove default_prompt_name in config_sentence_transformers.json, or let "
            "max_seq_length be larger."
        )


def _no_room(target: Path, error: OSError) -> OSError:
    return OSError(
        f"{target} could not be written ({error.strerror}): the disk is full, or a quota or a limit on the size "
        "of files (ulimit -f) is in the way. Nothing was left behind."
    )


def _kept_files(folder: Path) -> list[Path]:
    found = {path for pattern in _KEPT for path in folder.rglob(pattern) if path.is_file()}
    return sorted(path for path in found if not _SKIPPED_FOLDERS & set(path.relative_to(folder).parts))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _logit_difference(source: Path, converted: Path) -> tuple[float, float]:
    """The largest difference between the two folders' logits of the sample pairs, and the largest logit, at least 1."""
    before, after = (
        CrossEncoder.from_pretrained(path, device="cpu", dtype=dtype).predict(
            SAMPLE_PAIRS, activation="Identity", show_progress_bar=False
        )
        for path, dtype in ((source, "float32"), (converted, None))
    )
    return float(np.abs(before - after).max()), max(1.0, float(np.abs(before).max()))


def _module_folders(checkpoint: Checkpoint, kind: str) -> list[Path]:
    """Folders of weights beside the encoder's, which stay as they are."""
    found = [module for module in checkpoint.modules if not isinstance(module, Normalize)]
    tables = (read_sides(checkpoint.folder).looked_up or {}).values() if kind == SPARSE else ()
    return [
        *(module.folder for module in found if not (isinstance(module, Dense) and module.beside)),
        *(checkpoint.folder / place for place in tables),
    ]


def _weight_bytes(checkpoint: Checkpoint, kind: str) -> int:
    folders = [checkpoint.weights, *_module_folders(checkpoint, kind)]
    found = [path for folder in folders for path in safetensors.files(folder)]
    if checkpoint.adapter is not None:
        found.append(checkpoint.adapter.folder / adapters.FILE)
    return sum(path.stat().st_size for path in found)


def _weight_bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
