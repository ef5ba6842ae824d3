"""The head of a masked language model: from hidden states to a logit for each token of the vocabulary."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import activation
from mlx_embed.checkpoint import adapters
from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import read_json
from mlx_embed.checkpoint.listed import inside
from mlx_embed.checkpoint.safetensors import Tensor, load_float32, load_numpy, load_tensors, read_headers
from mlx_embed.checkpoint.weights import read_tensors
from mlx_embed.errors import CheckpointError, UnsupportedModelError


class _Names(NamedTuple):
    """What a model calls its head's parts, and where config.json says how they compute.

    An activation or eps in place of a key stands for itself.
    """

    dense: str
    norm: str
    decoder: str
    bias: str
    act: str
    eps: str | float


_ROBERTA = _Names("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", "gelu", "layer_norm_eps")
_NAMES = {
    "bert": _Names(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
        "cls.predictions.bias",
        "hidden_act",
        "layer_norm_eps",
    ),
    "camembert": _ROBERTA,
    "distilbert": _Names(
        "vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias", "activation", 1e-12
    ),
    "gte": _ROBERTA,
    "modernbert": _Names("head.dense", "head.norm", "decoder", "decoder.bias", "classifier_activation", "norm_eps"),
    "mpnet": _ROBERTA,
    "new": _Names("lm_head.dense", "lm_head.norm", "lm_head.decoder", "lm_head.bias", "hidden_act", "layer_norm_eps"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
# Decoders, whose logits are products of the last hidden states, with no layers between.
_PLAIN = {"qwen3": "lm_head"}
_EMBEDDINGS = ("word_embeddings.weight", "tok_embeddings.weight", "embed_tokens.weight")
_EPS = {"layer_norm_eps": 1e-12, "norm_eps": 1e-5}


class MaskedLMHead(NamedTuple):
    """The head's layers: decoder(norm(act(dense(x)))), or decoder(x) where the others are None; float32."""

    dense: nn.Linear | None
    act: str
    norm: LayerNorm | None
    decoder: nn.Linear


def load_masked_lm(checkpoint: Checkpoint) -> MaskedLMHead:
    """Read the head of a masked language model, evaluated.

    Raises:
        CheckpointError: a part that is missing, of another shape, or not finite.
        UnsupportedModelError: an architecture whose head is not implemented; an adapter of a decoder that is the
            embeddings too.
    """
    config = checkpoint.config
    names = _NAMES.get(config["model_type"])
    if config["model_type"] in _PLAIN:
        return MaskedLMHead(None, "", None, _plain_decoder(checkpoint, _PLAIN[config["model_type"]]))
    if names is None:
        raise UnsupportedModelError(
            f"Sparse models of model_type {config['model_type']!r} are not supported; mlx_embed has "
            f"{', '.join(sorted({*_NAMES, *_PLAIN}))}."
        )
    tensors = _by_name(checkpoint)
    names = _as_written(names, tensors)
    tied = next((tensors[name] for name in tensors if name.endswith(_EMBEDDINGS)), None)
    weight = tensors.get(f"{names.decoder}.weight")
    # Where the decoder is the word embeddings, its bias is the head's; else it has one of its own.
    biases = [names.bias, f"{names.decoder}.bias"]
    if config.get("tie_word_embeddings", True) or weight is None:
        adapters.require_as_in_base(checkpoint.adapter, tied, weight)
        weight = tied
    else:
        biases.reverse()
    hidden, vocabulary = checkpoint.encoder_config.hidden_size, checkpoint.encoder_config.vocab_size
    found: dict[str, Tensor | None] = {
        "dense.weight": tensors.get(f"{names.dense}.weight"),
        "dense.bias": tensors.get(f"{names.dense}.bias"),
        "norm.weight": _either(tensors, f"{names.norm}.weight", f"{names.norm}.gamma"),
        "norm.bias": _either(tensors, f"{names.norm}.bias", f"{names.norm}.beta"),
        "decoder.weight": weight,
        "decoder.bias": _either(tensors, *biases),
    }
    optional = ("dense.bias", "norm.bias", "decoder.bias") if config["model_type"] == "modernbert" else ()
    for name, tensor in found.items():
        if tensor is None and name not in optional:
            part, _, kind = name.partition(".")
            wanted = names.bias if name == "decoder.bias" else f"{getattr(names, part)}.{kind}"
            raise CheckpointError(f"{checkpoint.weights} has no tensor {wanted}; is it a masked language model?")
    there = {name: tensor for name, tensor in found.items() if tensor is not None}
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(there, (hidden,))
    shapes |= {"dense.weight": (hidden, hidden), "decoder.weight": (vocabulary, hidden)}
    if "decoder.bias" in there:
        shapes["decoder.bias"] = (vocabulary,)
    arrays = load_float32(there, shapes)
    eps = names.eps if isinstance(names.eps, float) else config.get(names.eps, _EPS[names.eps])
    norm = LayerNorm(hidden, eps, bias="norm.bias" in arrays)
    norm.load_weights([(name[5:], array) for name, array in arrays.items() if name.startswith("norm.")])
    act = activation(str(config.get(names.act, "gelu")))
    return MaskedLMHead(_linear(arrays, "dense"), act, norm, _linear(arrays, "decoder"))


def head_arrays(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> dict[str, mx.array]:
    """The tensors of a masked language model's head, to be saved as `dtype`, or as they are; none where there is none.

    A decoder that is the word embeddings is among these already.
    """
    names = _NAMES.get(checkpoint.config["model_type"])
    plain = _PLAIN.get(checkpoint.config["model_type"])
    if plain is not None and checkpoint.sentence.get("model_type") == "SparseEncoder":
        weight = _plain_weight(checkpoint, plain)
        arrays = load_tensors({f"{plain}.weight": weight}) if weight.name.startswith(plain) else {}
        return arrays if dtype is None else {name: array.astype(dtype) for name, array in arrays.items()}
    named = checkpoint.config.get("architectures")
    if names is None or not any(str(name).endswith("ForMaskedLM") for name in named or ()):
        return {}
    tensors = _by_name(checkpoint)
    names = _as_written(names, tensors)
    parts = (f"{names.dense}.", f"{names.norm}.", f"{names.decoder}.")
    tied = checkpoint.config.get("tie_word_embeddings", True)
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if (name.startswith(parts) or name == names.bias) and not (tied and name == f"{names.decoder}.weight")
    }
    arrays = load_tensors(kept)
    return arrays if dtype is None else {name: array.astype(dtype) for name, array in arrays.items()}


def _by_name(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors by their names in the model, whether the weights' file has them or an adapter's."""
    return {adapters.plain_name(tensor.name): tensor for tensor in read_tensors(checkpoint).values()}


def _as_written(names: _Names, tensors: Mapping[str, Tensor]) -> _Names:
    """The names of a head's parts in its file: what transformers calls layer_norm in GTE's, it writes as norm."""
    written = names.norm.replace("layer_norm", "norm")
    there = f"{names.norm}.weight" in tensors or f"{written}.weight" not in tensors
    return names if there else names._replace(norm=written)


def _plain_weight(checkpoint: Checkpoint, name: str) -> Tensor:
    """A decoder's output matrix, which may be its word embeddings.

    Raises:
        CheckpointError: it is missing.
    """
    tensors = _by_name(checkpoint)
    output = tensors.get(f"{name}.weight")
    own = None if checkpoint.config.get("tie_word_embeddings") else output
    weight = own or next((tensors[key] for key in tensors if key.endswith(_EMBEDDINGS)), None)
    if own is None:
        adapters.require_as_in_base(checkpoint.adapter, weight, output)
    if weight is None:
        raise CheckpointError(f"{checkpoint.weights} has no tensor {name}.weight; is it a language model?")
    return weight


def _plain_decoder(checkpoint: Checkpoint, name: str) -> nn.Linear:
    config = checkpoint.encoder_config
    weight = _plain_weight(checkpoint, name)
    return _linear(
        load_float32({"decoder.weight": weight}, {"decoder.weight": (config.vocab_size, config.hidden_size)}), "decoder"
    )


def load_weights(checkpoint: Checkpoint, place: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The weight of each token in the folder of a SparseStaticEmbedding: float32 [V].

    Raises:
        CheckpointError: a file or tensor that is missing, of another shape, or not finite.
        UnsupportedModelError: weights that are in a file of another kind.
    """
    folder = inside(checkpoint.folder, place)
    if read_json(folder / "config.json").get("path") is not None:
        raise UnsupportedModelError(f"{folder} has its weights in JSON; save the model anew by sentence-transformers.")
    tensor = next((tensor for tensor in read_headers(folder) if tensor.name == "weight"), None)
    if tensor is None or len(tensor.shape) != 1 or tensor.dtype not in ("F32", "F16", "BF16"):
        raise CheckpointError(f'{folder} has no tensor "weight" of a number a token.')
    weights: np.ndarray[Any, np.dtype[np.float32]] = load_numpy({"weight": tensor})["weight"].astype(np.float32)
    if not np.isfinite(weights).all():
        raise CheckpointError(f"{tensor} holds NaN or infinite numbers; download it again.")
    return weights


def _either(tensors: Mapping[str, Tensor], *names: str) -> Tensor | None:
    return next((tensors[name] for name in names if name in tensors), None)


def _linear(arrays: Mapping[str, mx.array], name: str) -> nn.Linear:
    weight, bias = arrays[f"{name}.weight"], arrays.get(f"{name}.bias")
    layer = nn.Linear(1, 1, bias=bias is not None)
    layer.weight = weight
    if bias is not None:
        layer.bias = bias
    return layer
