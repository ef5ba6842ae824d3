"""The head of a sequence classifier: its layers, their weights, and what the checkpoint says of its use."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_embed.checkpoint import adapters, quantization
from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import present
from mlx_embed.checkpoint.folder import is_causal_lm
from mlx_embed.checkpoint.listed import listed, saved_settings
from mlx_embed.checkpoint.logit_score import LogitScore
from mlx_embed.checkpoint.modules import Dense, LayerNorm, Module, Pooling
from mlx_embed.checkpoint.safetensors import Tensor, load_float32, load_tensors
from mlx_embed.checkpoint.weights import read_tensors
from mlx_embed.errors import CheckpointError, UnsupportedModelError
from mlx_embed.scores import activations

_log = logging.getLogger("mlx_embed")

LATE = "late"
# Of a head whose hidden states are a row a pair already.
POOLED = "pooled"


def load_head(checkpoint: Checkpoint) -> list[tuple[Module, dict[str, mx.array]]]:
    """The layers of a sequence classifier's head and their weights, float32, evaluated; the last gives the labels.

    Raises:
        CheckpointError: a layer that is missing, whose shape does not fit the one before, or that is not finite.
        UnsupportedModelError: an architecture or activation that has no head here.
    """
    if not _layers(checkpoint):
        raise UnsupportedModelError(
            f"Rerankers of model_type {checkpoint.config['model_type']!r} with a classifier are not supported."
        )
    folder = checkpoint.transformer
    tensors = _head_tensors(checkpoint)
    head: list[tuple[Module, dict[str, mx.array]]] = []
    dimension = checkpoint.encoder_config.hidden_size
    if checkpoint.config.get("classifier_activation", "gelu") != "gelu":
        raise UnsupportedModelError(
            f'config.json has "classifier_activation": {checkpoint.config["classifier_activation"]!r}; '
            'mlx_embed has "gelu".'
        )
    for layer, activation in _layers(checkpoint):
        weight, bias = (tensors.get(f"{layer}.{part}") for part in ("weight", "bias"))
        if weight is None:
            raise CheckpointError(f"{folder} has no tensor {layer}.weight; is it a reranker (sequence classifier)?")
        if bias is not None and _of_decoder(checkpoint):  # the classifier of transformers' decoders has none
            _log.info("%s has %s.bias, which transformers does not read either: passed over.", folder, layer)
            bias = None
        kind: Module
        if activation == "LayerNorm":
            kind = LayerNorm(folder, dimension, bias=bias is not None, eps=checkpoint.config.get("norm_eps", 1e-5))
        else:
            kind = Dense(folder, dimension, weight.shape[0] if weight.shape else 0, activation, bias=bias is not None)
            dimension = kind.out_features
        parts = {"weight": weight} | ({} if bias is None else {"bias": bias})
        named = {name: parts[name.rpartition(".")[2]] for name in kind.shapes}
        head.append((kind, load_float32(named, kind.shapes)))
    return head


_EMBEDDINGS, _LM_HEAD = "embed_tokens", "lm_head"


def load_score(checkpoint: Checkpoint, score: LogitScore) -> list[tuple[Module, dict[str, mx.array]]]:
    """What makes a causal model's last hidden state a score: the difference of two rows of its output matrix.

    Raises:
        CheckpointError: a matrix that is missing, of another shape or not finite.
        UnsupportedModelError: logits that are more than a product; an adapter of a matrix that is the embeddings too.
    """
    config, folder = checkpoint.config, checkpoint.transformer
    if config["model_type"] == "modernbert-decoder":  # whose output matrix has layers in front
        raise UnsupportedModelError(f"Rerankers of model_type {config['model_type']!r} are not supported.")
    if config.get("final_logit_softcapping") is not None:
        raise UnsupportedModelError("config.json has final_logit_softcapping, which mlx_embed does not compute.")
    tied = config.get("tie_word_embeddings")
    weight = None if tied else _matrix(checkpoint, _LM_HEAD)
    if weight is None and tied is False:
        raise CheckpointError(
            f"{folder} has no {_LM_HEAD}.weight, and its config.json says that this is not the embeddings: it was "
            "saved without what makes it a reranker. Download it, or convert it, again."
        )
    if weight is None:
        weight = _matrix(checkpoint, _EMBEDDINGS)
        adapters.require_as_in_base(checkpoint.adapter, weight, _matrix(checkpoint, _LM_HEAD))
    shape = (checkpoint.encoder_config.vocab_size, checkpoint.encoder_config.hidden_size)
    if weight is None:
        raise CheckpointError(f"{folder} has neither {_LM_HEAD}.weight nor {_EMBEDDINGS}.weight.")
    if weight.shape != shape:
        raise CheckpointError(f"{weight} has shape {weight.shape}, where config.json means {shape}.")
    rows = load_tensors({_LM_HEAD: weight})[_LM_HEAD]
    difference = rows[score.true_token_id][None].astype(mx.float32)
    if score.false_token_id is not None:
        difference = difference - rows[score.false_token_id][None].astype(mx.float32)
    mx.eval(difference)
    if not np.isfinite(np.array(difference)).all():
        raise CheckpointError(f"{weight} holds NaN or infinite numbers; download it again.")
    return [(Dense(folder, shape[1], 1, "Identity", bias=False), {"linear.weight": difference})]


def _matrix(checkpoint: Checkpoint, name: str) -> Tensor | None:
    """The matrix of this name of a causal model, in floats; None where it has none."""
    return _tensors(checkpoint, [name]).get(f"{name}.weight")


def has_score(checkpoint: Checkpoint) -> bool:
    """Whether the folder says that it is a reranker that generates, whatever it is opened as."""
    folder = checkpoint.folder
    return present(folder / "modules.json") and "LogitScore" in [kind for kind, _ in listed(folder)]


def has_head(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is a sequence classifier, by its tensors."""
    head, tensors = _layers(checkpoint), _head_tensors(checkpoint)
    return bool(head) and all(f"{layer}.weight" in tensors for layer, _ in head)


def head_arrays(checkpoint: Checkpoint, dtype: mx.Dtype | None) -> dict[str, mx.array]:
    """The tensors of a reranker's head, to be saved as `dtype`, or as they are; none where there is none.

    Of a bare causal model nothing says whether it is one that generates: its own output matrix is kept.
    """
    tensors = _head_tensors(checkpoint) if has_head(checkpoint) else {}
    bare = not present(checkpoint.folder / "modules.json") and is_causal_lm(checkpoint.config)
    if (bare or has_score(checkpoint)) and not checkpoint.config.get("tie_word_embeddings"):
        matrix = _matrix(checkpoint, _LM_HEAD)
        tensors |= {} if matrix is None else {f"{_LM_HEAD}.weight": matrix}
    if not tensors:
        return {}
    arrays = load_tensors(tensors)
    return arrays if dtype is None else {name: array.astype(dtype) for name, array in arrays.items()}


def pooling(checkpoint: Checkpoint) -> str:
    """What the head reads: the first token, "cls", unless a ModernBERT or UltraBERT says that it is the "mean".

    An EuroBERT may say that too, or LATE: all tokens, whose logits are averaged. Of a decoder it is the last.
    """
    if checkpoint.generates or _of_decoder(checkpoint):
        return "lasttoken"
    config = checkpoint.config
    if config["model_type"] == "eurobert":
        mode = config.get("classifier_pooling", LATE)
        if mode in ("bos", "mean", LATE):
            return "cls" if mode == "bos" else f"{mode}"
        raise UnsupportedModelError(f'config.json has "classifier_pooling": {mode!r}; mlx_embed has bos, mean, late.')
    chooses = config["model_type"] in ("modernbert", "ultrabert")
    mode = config.get("classifier_pooling", "cls") if chooses else "cls"
    if mode not in ("cls", "mean"):
        raise UnsupportedModelError(f'config.json has "classifier_pooling": {mode!r}; mlx_embed has "cls" and "mean".')
    return str(mode)


def as_read(checkpoint: Checkpoint) -> Checkpoint:
    """With the last token as the pooling, where a decoder's classifier reads that: `int8_layers` measures by it."""
    if checkpoint.generates or not _of_decoder(checkpoint):
        return checkpoint
    return replace(checkpoint, pooling=Pooling(("lasttoken",)))


def padding(checkpoint: Checkpoint) -> int | None:
    """The token that a decoder's classifier takes for padding wherever a text ends with it; None where there is none.

    Transformers' classifiers read the last token that is another one, in training too: a decoder that has the end of a
    text for its padding was trained to be read before that end.

    Raises:
        CheckpointError: a pad_token_id that is no number.
        UnsupportedModelError: the end of a text is padding to a decoder that sees both ways, and so sees it.
    """
    if checkpoint.generates or not _of_decoder(checkpoint):
        return None
    unless_said = 0 if checkpoint.config["model_type"].startswith("gemma") else None
    token = checkpoint.config.get("pad_token_id", unless_said)
    if token is not None and type(token) is not int:
        raise CheckpointError(f'config.json has "pad_token_id": {token!r}, where the number of a token is needed.')
    causal = getattr(checkpoint.encoder_config, "causal", True)
    if token is not None and token == checkpoint.config.get("eos_token_id") and not causal:
        raise UnsupportedModelError(
            f'config.json has "pad_token_id": {token}, which is the end of a text too: mlx_embed does not read a '
            "classifier before that end where tokens see both ways."
        )
    return token


def activation(checkpoint: Checkpoint, num_labels: int) -> str:
    """What logits go through, a key of SCORES: what sentence-transformers noted, else what suits the labels.

    Its version 6 keeps the note in a file of its own, version 4 in config.json, and those before under another key.
    """
    note = checkpoint.config.get("sentence_transformers")
    named = (
        _noted(checkpoint).get("activation_fn")
        or (note.get("activation_fn") if isinstance(note, dict) else None)
        or checkpoint.config.get("sbert_ce_default_activation_function")
    )
    if named is None:
        return "Sigmoid" if num_labels == 1 else "Identity"
    package, _, name = str(named).rpartition(".")
    known = activations(num_labels)
    if package.split(".")[0] != "torch" or name not in known:
        raise UnsupportedModelError(
            f"The checkpoint has the activation {named!r}; mlx_embed has torch's {', '.join(known)}."
        )
    return name


def prompts(checkpoint: Checkpoint) -> tuple[dict[str, str], str | None]:
    """The prompts of a reranker by name, and the name of that which is put before a query unless told otherwise.

    Raises:
        CheckpointError: prompts that are no texts, or a default that is none of them.
    """
    noted = _noted(checkpoint)
    found, default = noted.get("prompts") or {}, noted.get("default_prompt_name")
    path = checkpoint.folder / "config_sentence_transformers.json"
    if not isinstance(found, dict) or not all(isinstance(text, str | None) for text in found.values()):
        raise CheckpointError(f'{path} has "prompts": {found!r}, not names with texts.')
    if default is not None and default not in found:
        raise CheckpointError(f"{path} names the default prompt {default!r}, but has the prompts {sorted(found)}.")
    return {name: text or "" for name, text in found.items()}, default


def _noted(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What sentence-transformers 6 notes of a CrossEncoder; nothing of a folder that is another kind of model."""
    found = saved_settings(checkpoint.folder)
    return found if found.get("model_type") == "CrossEncoder" else {}


def _head_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """By name without prefixes."""
    return _tensors(checkpoint, [layer for layer, _ in _layers(checkpoint)])


def _tensors(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of layers of these names, in floats."""
    starts = tuple(f"{name}." for name in names)
    tensors = read_tensors(checkpoint)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(starts)}
    for name, how in quantization.layers(checkpoint.config, own).items():
        tensors = quantization.dequantized(tensors, name, how)
    return {name: tensor for name, tensor in tensors.items() if name.startswith(starts)}


def _layers(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    """HEAD of the architecture; nothing of llama_bidirec, whose own code averages tokens and scales the logits."""
    return () if checkpoint.config["model_type"] == "llama_bidirec" else checkpoint.architecture.HEAD


def _of_decoder(checkpoint: Checkpoint) -> bool:
    """Whether the classifier is a decoder's."""
    return [layer for layer, _ in _layers(checkpoint)] == ["score"]
