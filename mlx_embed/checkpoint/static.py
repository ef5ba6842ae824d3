"""Static models' folders: sentence-transformers' StaticEmbedding, and model2vec's own.

The two libraries read each other's folders, and then differ in what they do to texts. A folder is understood as the one
does that has written it: model2vec's table is called "embeddings", sentence-transformers' "embedding.weight".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_embed.architectures import static
from mlx_embed.architectures.config import LARGEST_SIZE
from mlx_embed.architectures.token_table import TokenTable
from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import read_json
from mlx_embed.checkpoint.safetensors import FILE, Tensor, load_numpy, read_headers
from mlx_embed.checkpoint.settings import flag, length
from mlx_embed.errors import CheckpointError

# Where config.json says nothing of it.
MODEL2VEC_LENGTH = 512
_TABLES = ("F32", "F16", "BF16", "I8", "F64")


@dataclass(frozen=True)
class StaticFolder:
    """What a static model's folder says of itself, beside sentence-transformers' files.

    Attributes:
        config: its table's sizes, in the place of config.json.
        max_length: tokens at which texts are cut; None where they are not.
        normalize: whether vectors are scaled to length 1; None where modules.json says it.
        token_characters: model2vec cuts a text at so many characters for each token that it may have.
        tokenizer_config: what counts beside tokenizer.json.
    """

    config: Mapping[str, Any]
    max_length: int | None = None
    normalize: bool | None = None
    token_characters: int | None = None
    tokenizer_config: Mapping[str, Any] | None = None


def read_static(place: Path) -> StaticFolder:
    """Read a StaticEmbedding module's folder, but for its numbers.

    Raises:
        CheckpointError: a file or tensor that is missing, broken or of another shape.
        UnsupportedModelError: a dtype that is not read.
    """
    tensors = _tensors(place)
    table = tensors["rows"]
    vocabulary = tensors.get("mapping", table).shape[0]
    sizes = {"model_type": "static", "vocab_size": vocabulary, "hidden_size": table.shape[1]}
    tokenizer = read_json(place / "tokenizer.json")
    if table.name != "embeddings":
        truncation = tokenizer.get("truncation")
        cut = truncation if isinstance(truncation, dict) else {}
        return StaticFolder({**sizes, "max_tokens": LARGEST_SIZE}, length(place / "tokenizer.json", cut, "max_length"))
    path = place / "config.json"
    config = {"max_length": MODEL2VEC_LENGTH, **read_json(path)}
    characters = [len(token) for token in _vocabulary(place / "tokenizer.json", tokenizer)]
    most = length(path, config, "max_length")
    return StaticFolder(
        {**sizes, "max_tokens": LARGEST_SIZE},
        most,
        flag(path, config, "normalize", False),
        None if most is None else int(median(characters)),
        {"truncation_side": "right"},
    )


def load_table(checkpoint: Checkpoint) -> static.Model:
    """A static model, evaluated: its table in the dtype that it is kept in.

    Raises:
        CheckpointError: numbers that are not finite, or rows that there are not.
    """
    place = checkpoint.transformer
    tensors = _tensors(place)
    arrays = load_numpy(tensors)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{tensors[name]} holds NaN or infinite numbers; download it again.")
    mapping, weights = arrays.get("mapping"), arrays.get("weights")
    rows = arrays["rows"]
    if mapping is not None and not (mapping.min() >= 0 and mapping.max() < len(rows)):
        raise CheckpointError(f"{tensors['mapping']} has rows that are not within 0..{len(rows) - 1}, the table's.")
    unknown = _unknown(place) if tensors["rows"].name == "embeddings" else None
    if unknown is not None:
        mapping = np.arange(checkpoint.encoder_config.vocab_size) if mapping is None else mapping.copy()
        mapping[unknown] = -1
    model = static.Model(static.Config.from_dict(checkpoint.config))
    model.table = TokenTable(
        mx.array(rows.astype(np.float32) if rows.dtype == np.float64 else rows),
        None if mapping is None else mx.array(mapping.astype(np.int32)),
        None if weights is None else mx.array(weights.astype(np.float32)),
    )
    mx.eval(model.parameters())
    return model


def save_table(place: Path, target: Path, dtype: mx.Dtype | None) -> None:
    """Write the tensors of a table into another folder, its rows as `dtype`, or as they are; float64 as float32.

    Rows of int8 become floats of the same numbers.
    """
    found = _tensors(place)
    arrays = {found[name].name: array for name, array in load_numpy(found).items()}
    arrays = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}
    with mx.stream(mx.cpu):
        made = {name: mx.array(array) for name, array in arrays.items()}
        rows = found["rows"].name
        if found["rows"].dtype == "BF16":
            made[rows] = made[rows].astype(mx.bfloat16)
        if dtype is not None:
            made[rows] = made[rows].astype(dtype)
        mx.eval(made)
        mx.save_safetensors(str(target / FILE), made, metadata={"format": "mlx"})


def _tensors(place: Path) -> dict[str, Tensor]:
    """The tensors of the table by what TokenTable calls them, their shapes checked."""
    named = {tensor.name: tensor for tensor in read_headers(place, float64=True)}
    rows = named.get("embedding.weight", named.get("embeddings"))
    if rows is None:
        raise CheckpointError(
            f"{place} has neither a tensor 'embedding.weight', sentence-transformers' table, nor 'embeddings', "
            "model2vec's; is it a static model's folder?"
        )
    found = {"rows": rows}
    if rows.name == "embeddings":
        found |= {name: named[name] for name in ("mapping", "weights") if name in named}
    vocabulary = found.get("mapping", rows).shape[:1]
    for name, tensor in found.items():
        kinds = _TABLES if name == "rows" else ("I64", "I32") if name == "mapping" else ("F32", "F16", "BF16", "F64")
        sound = len(tensor.shape) == 2 if name == "rows" else tensor.shape == vocabulary
        if not sound or 0 in tensor.shape or tensor.dtype not in kinds:
            shape = "[rows, dimensions]" if name == "rows" else f"{list(vocabulary)}"
            raise CheckpointError(
                f"{tensor} is {tensor.dtype} {list(tensor.shape)}, where {' or '.join(kinds)} {shape} is needed."
            )
    return found


def _vocabulary(path: Path, tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Every token of a tokenizer.json and its id."""
    try:
        listed = tokenizer["model"]["vocab"]
        tokens = {entry[0]: i for i, entry in enumerate(listed)} if isinstance(listed, list) else dict(listed)
        tokens |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
        return {str(token): int(number) for token, number in tokens.items()}
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} has no vocabulary that can be read ({error!r}).") from error


def _unknown(place: Path) -> int | None:
    """The token that stands for what the vocabulary lacks, which model2vec leaves out of the average."""
    tokenizer = read_json(place / "tokenizer.json")
    vocabulary = _vocabulary(place / "tokenizer.json", tokenizer)
    model = tokenizer["model"]
    found = model.get("unk_id") if isinstance(model["vocab"], list) else vocabulary.get(model.get("unk_token"))
    return found if isinstance(found, int) else None
