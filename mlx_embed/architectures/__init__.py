"""The architectures, one file each, named by Hugging Face model_type; `contract` says what such a file exports."""

from collections.abc import Mapping
from typing import Any

from mlx_embed.architectures import (
    bert,
    distilbert,
    gemma3_text,
    gte,
    mistral,
    modernbert,
    mpnet,
    nomic_bert,
    qwen3,
    roberta,
)
from mlx_embed.architectures.contract import Architecture, EncoderConfig
from mlx_embed.errors import CheckpointError, UnsupportedModelError

__all__ = ["ARCHITECTURES", "Architecture", "EncoderConfig", "architecture"]

ARCHITECTURES: dict[str, Architecture] = {
    "bert": bert,
    "camembert": roberta,
    "distilbert": distilbert,
    "gemma3_text": gemma3_text,
    "gte": gte,
    "mistral": mistral,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "new": gte,
    "nomic_bert": nomic_bert,
    "qwen3": qwen3,
    "roberta": roberta,
    "xlm-roberta": roberta,
}


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The file that implements config.json's model_type."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError('config.json has no "model_type"; is this the folder of a transformers checkpoint?')
    if model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; mlx_embed has {', '.join(sorted(ARCHITECTURES))}."
        )
    return ARCHITECTURES[model_type]
