"""The options of `from_pretrained` and of `encode`, each stated once, for every method that takes them."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import mlx.core as mx
import numpy.typing as npt

from mlx_embed.arguments import positive_number, require_string, type_name
from mlx_embed.engine import EngineChoice
from mlx_embed.migration import OPTIONS
from mlx_embed.vector_dtypes import OutputDtype

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "ENCODE",
    "LOAD",
    "MISSING",
    "PREDICT",
    "SIMILARITY_OPTIONS",
    "EncodeOptions",
    "LoadOptions",
    "LongText",
    "PredictOptions",
    "SimilarityOptions",
    "Unpack",
    "checked_batch_size",
    "chosen_prompt",
    "complete",
    "numpy_only",
]

# The default of a first argument, so that encode(sentences=...) gets as far as the error that says where texts go.
MISSING: Any = None

LongText = Literal["truncate", "mean_of_chunks", "error"]


class LoadOptions(TypedDict, total=False):
    """How to load a model.

    Attributes:
        dtype: "float32", "float16" or "bfloat16". None is float32 on the CPU and the checkpoint's own elsewhere, but
            float16 on Metal for an encoder stored as float32, of which "float32" gives the exact vectors. On a CPU
            "bfloat16" is about twice as fast where the processor multiplies it, and there is "int8", faster still
            and less precise, whose first load of a model measures which layers are to stay in bfloat16; what it does
            not have, and float16, the native kernels compute in the next better one, and say so.
        device: "cpu", "gpu", "metal" or "cuda". None is MLX's default device.
        engine: "auto" takes the fastest for the device: the native CPU kernels, or MLX graphs with this package's GPU
            kernels. "native" and "graph" name one of these; a graph on the CPU is compiled, by the C++ compiler.
            "reference" is MLX's own ops alone, which "auto" is too where the environment has
            MLX_EMBED_KERNELS=reference.
        max_seq_length: tokens at which texts are cut, instead of the checkpoint's number.
        task: of a model with a LoRA for each task, that which its vectors are for, unless `encode` is told another.
        revision: a branch, tag or commit of the hub repository.
        cache_dir: the hub's cache folder, if not the usual one.
        local_files_only: never download.
    """

    dtype: str | mx.Dtype | None
    device: str | mx.Device | None
    engine: EngineChoice
    max_seq_length: int | None
    task: str | None
    revision: str | None
    cache_dir: str | Path | None
    local_files_only: bool


class EncodeOptions(TypedDict, total=False):
    """How to embed texts.

    Attributes:
        prompt_name: the checkpoint's prompt to put before each text.
        prompt: the text to put before each text, instead of a named one.
        task: of a model with a LoRA for each task, that which vectors are for, as "retrieval.query". Each task that is
            used keeps weights of its own in memory.
        normalize_embeddings: None gives vectors of length 1 where the checkpoint normalises, also when they are cut;
            True gives them always. False gives sentence-transformers' numbers: the checkpoint normalises whole vectors,
            and those that are cut are shorter.
        truncate_dim: keep the first so many dimensions (Matryoshka).
        output_dtype: "float32", "float16"; "int8" or "uint8", each dimension's range cut into 256 steps; "binary"
            or "ubinary", the signs, eight to a byte. The bytes of sentence-transformers' `quantize_embeddings`.
        ranges: [2, D], for "int8" and "uint8": the least and the largest value of each dimension.
        calibration_embeddings: [M, D] float32 vectors of typical texts, to take the ranges from instead.
        long_text: what becomes of a text beyond max_seq_length: "truncate" embeds its beginning; "mean_of_chunks"
            all of it, by the mean of its chunks' vectors, weighted by their tokens, and scaled to length 1 where
            vectors are; "error" raises ValueError.
        chunk_overlap: the tokens that a chunk shares with the one before. None is an eighth of what fits into one.
        batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes vectors.
        batch_size: no more texts than this in a batch either; there is no need to set it.
        convert_to_numpy: True; there is nothing else, and the option is there for code written for
            sentence-transformers.
        convert_to_tensor: False, likewise; the view in `integrations.sentence_transformers` gives tensors.
        show_progress_bar: show a bar of texts done. None shows it where mlx_embed logs at INFO.
    """

    prompt_name: str | None
    prompt: str | None
    task: str | None
    normalize_embeddings: bool | None
    truncate_dim: int | None
    output_dtype: OutputDtype
    ranges: npt.ArrayLike | None
    calibration_embeddings: npt.ArrayLike | None
    long_text: LongText
    chunk_overlap: int | None
    batch_tokens: int | None
    batch_size: int | None
    convert_to_numpy: bool
    convert_to_tensor: bool
    show_progress_bar: bool | None


class PredictOptions(TypedDict, total=False):
    """How to score pairs.

    Attributes:
        prompt_name: the checkpoint's prompt to put before each query.
        prompt: the text to put before each query, instead of a named one; "" for none.
        activation: what logits go through instead of the model's own, by torch's class name, or an object of such a
            class: "Sigmoid", "Identity", "LogSigmoid"; of several labels also "Softmax" and "LogSoftmax".
        activation_fn: the same, for code written for sentence-transformers.
        apply_softmax: make the scores of a pair's labels add up to 1, where there are several.
        batch_tokens: tokens a batch; the default suits the device. Bounds memory, never changes scores.
        batch_size: no more pairs than this in a batch either; there is no need to set it.
        convert_to_numpy: True; there is nothing else.
        convert_to_tensor: False, likewise.
        show_progress_bar: show a bar of pairs done. None shows it where mlx_embed logs at INFO.
    """

    prompt_name: str | None
    prompt: str | None
    activation: Any
    activation_fn: Any
    apply_softmax: bool
    batch_tokens: int | None
    batch_size: int | None
    convert_to_numpy: bool
    convert_to_tensor: bool
    show_progress_bar: bool | None


class SimilarityOptions(TypedDict, total=False):
    """What codes are that `similarity` compares: the options that `encode` was given when it made them.

    Attributes:
        output_dtype: None of vectors of numbers.
        truncate_dim: None is what `encode` keeps by default.
        ranges: [2, D], for "int8" and "uint8".
        calibration_embeddings: [M, D], to take the ranges from instead.
    """

    output_dtype: OutputDtype | None
    truncate_dim: int | None
    ranges: npt.ArrayLike | None
    calibration_embeddings: npt.ArrayLike | None


LOAD: LoadOptions = {
    "dtype": None,
    "device": None,
    "engine": "auto",
    "max_seq_length": None,
    "task": None,
    "revision": None,
    "cache_dir": None,
    "local_files_only": False,
}
ENCODE: EncodeOptions = {
    "prompt_name": None,
    "prompt": None,
    "task": None,
    "normalize_embeddings": None,
    "truncate_dim": None,
    "output_dtype": "float32",
    "ranges": None,
    "calibration_embeddings": None,
    "long_text": "truncate",
    "chunk_overlap": None,
    "batch_tokens": None,
    "batch_size": None,
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "show_progress_bar": None,
}
PREDICT: PredictOptions = {
    "prompt_name": None,
    "prompt": None,
    "activation": None,
    "activation_fn": None,
    "apply_softmax": False,
    "batch_tokens": None,
    "batch_size": None,
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "show_progress_bar": None,
}
SIMILARITY_OPTIONS: SimilarityOptions = {
    "output_dtype": None,
    "truncate_dim": None,
    "ranges": None,
    "calibration_embeddings": None,
}


def complete(method: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """The options given, and the defaults of all others.

    Raises:
        TypeError: an option that `method` does not have; the one to use instead, or the nearest, is named.
    """
    for name in given:
        if name not in defaults:
            if name in OPTIONS:
                raise TypeError(f"{method} has no option {name!r}: {OPTIONS[name]}.")
            near = get_close_matches(name, defaults, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(defaults)}."
            raise TypeError(f"{method} has no option {name!r}; {hint}")
    return {**defaults, **given}


def numpy_only(method: str, options: EncodeOptions | PredictOptions) -> None:
    """Refuse what sentence-transformers can return besides numpy arrays.

    Raises:
        ValueError: tensors are asked for.
    """
    if options["convert_to_tensor"] or not options["convert_to_numpy"]:
        raise ValueError(
            f"{method} returns numpy arrays: leave convert_to_numpy True, convert_to_tensor False. For tensors, take "
            "the view in mlx_embed.integrations.sentence_transformers, or torch.from_numpy."
        )


def checked_batch_size(batch_size: int | None, unit: str = "texts") -> int | None:
    """The most texts of a batch; None bounds it by tokens alone.

    Raises:
        TypeError: something that is no whole number.
        ValueError: a number below 1.
    """
    return None if batch_size is None else positive_number("batch_size", batch_size, unit)


# The prompts of queries and of documents by name, the first that a model has.
TASK_PROMPTS: Mapping[str, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


def first_prompt(prompts: Mapping[str, str], names: Iterable[str]) -> str:
    """The prompt of the first of these names that there is; "" where there is none of them.

    Raises:
        TypeError: prompts that were set and are no mapping, or no strings.
    """
    _require_mapping(prompts)
    return next((_text(prompts, name) for name in names if name in prompts), "")


def prefer_prompt(options: Any, prompts: Mapping[str, str], *names: str) -> None:
    """Where `options` name no prompt, put in the first of these that the model has, or none at all.

    As in sentence-transformers, whose models always have the prompts of queries and documents, if empty ones: the
    default is not for them.
    """
    if options.get("prompt") is None and options.get("prompt_name") is None:
        options["prompt"] = first_prompt(prompts, names)


def chosen_prompt(prompts: Mapping[str, str], default: str | None, prompt_name: str | None, prompt: str | None) -> str:
    """The text to put in front: `prompt`, the one of a name, or that of the model's default name; "" for none.

    Raises:
        TypeError: a prompt that is no string, also one that was set; prompts that were set and are no mapping.
        ValueError: a name that is not among the model's prompts.
    """
    if prompt is not None:
        require_string("prompt", prompt)
        return prompt
    name = default if prompt_name is None else prompt_name
    if name is None:
        return ""
    _require_mapping(prompts)
    if name not in prompts:
        raise ValueError(f"prompt_name {name!r} is not among the model's prompts: {sorted(prompts) or 'none'}.")
    return _text(prompts, name)


def _require_mapping(prompts: Any) -> None:
    if not isinstance(prompts, Mapping):
        raise TypeError(f"prompts is {type_name(prompts)}, where a mapping of names to texts is needed.")


def _text(prompts: Mapping[str, str | None], name: str) -> str:
    """The prompt of a name, which a user may have set; None is none."""
    text = prompts[name]
    if not isinstance(text, str | None):
        raise TypeError(f"The prompt {name!r} is {type_name(text)}, where a string is needed.")
    return text or ""
