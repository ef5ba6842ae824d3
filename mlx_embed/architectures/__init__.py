"""The architectures, one file each, named by Hugging Face model_type; `contract` says what such a file exports."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

from mlx_embed.architectures.contract import Architecture, EncoderConfig
from mlx_embed.errors import CheckpointError, UnsupportedModelError

__all__ = ["ARCHITECTURES", "Architecture", "EncoderConfig", "architecture"]

# model_type to the name of the file.
_FILES = {
    "albert": "albert",
    "bert": "bert",
    "camembert": "roberta",
    "deberta-v2": "deberta_v2",
    "distilbert": "distilbert",
    "electra": "electra",
    "embedding_gemma2": "embedding_gemma2",
    "embedding_gemma2_text": "embedding_gemma2",
    "eurobert": "eurobert",
    "gemma": "gemma",
    "gemma3_text": "gemma3_text",
    "gte": "gte",
    "jina_bert": "jina_bert",
    "jina_embeddings_v3": "jina_embeddings_v3",
    "llama": "llama",
    "llama_bidirec": "llama",
    "mistral": "mistral",
    "modernbert": "modernbert",
    "modernbert-decoder": "modernbert_decoder",
    "mpnet": "mpnet",
    "new": "gte",
    "nomic_bert": "nomic_bert",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "roberta": "roberta",
    "t5": "t5",
    "ultrabert": "ultrabert",
    "xlm-roberta": "roberta",
}

# What their own code defines under the model_type of another: told apart by config.json's position_embedding_type.
_BY_POSITIONS = {("bert", "alibi"): "jina_bert", ("xlm-roberta", "rotary"): "jina_embeddings_v3"}
# One model_type of two architectures, the decoder and the encoder: told apart by is_decoder.
_OF_TWO = {"jina_embeddings_v5": ("qwen3", "eurobert")}


class _Architectures(Mapping[str, Architecture]):
    """By model_type; a file is imported when it is asked for, since a program uses one or two of them."""

    def __getitem__(self, model_type: str) -> Architecture:
        return cast(Architecture, import_module(f"{__name__}.{_FILES[model_type]}"))

    def __iter__(self) -> Iterator[str]:
        return iter(_FILES)

    def __len__(self) -> int:
        return len(_FILES)


ARCHITECTURES = _Architectures()


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The file that implements config.json's model_type."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError('config.json has no "model_type"; is this the folder of a transformers checkpoint?')
    positions = config.get("position_embedding_type")
    if isinstance(positions, str):
        model_type = _BY_POSITIONS.get((model_type, positions), model_type)
    if model_type in _OF_TWO:
        model_type = _OF_TWO[model_type][config.get("is_decoder") is False]
    if model_type not in ARCHITECTURES:
        known = f"mlx_embed has {', '.join(sorted(ARCHITECTURES))}."
        if config.get("auto_map"):
            raise UnsupportedModelError(
                f"model_type {model_type!r} is defined by Python code of the model's own repository, which mlx_embed "
                f"does not run; {known}"
            )
        raise UnsupportedModelError(f"model_type {model_type!r} is not supported; {known}")
    return ARCHITECTURES[model_type]
