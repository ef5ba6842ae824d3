"""The architectures, one file each, named by Hugging Face model_type."""

from collections.abc import Mapping
from types import ModuleType
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
from mlx_embed.errors import CheckpointError, UnsupportedModelError

ENCODERS: dict[str, ModuleType] = {
    "bert": bert,
    "camembert": roberta,
    "distilbert": distilbert,
    "gte": gte,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "new": gte,
    "nomic_bert": nomic_bert,
    "roberta": roberta,
    "xlm-roberta": roberta,
}
# Of MLX's ops alone, in mlx-lm's code: no kernel of this package runs them.
DECODERS: dict[str, ModuleType] = {
    "gemma3_text": gemma3_text,
    "mistral": mistral,
    "qwen3": qwen3,
}
ARCHITECTURES = ENCODERS | DECODERS


def architecture(config: Mapping[str, Any]) -> ModuleType:
    """The module that implements config.json's model_type."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError('config.json has no "model_type"; is this the folder of a transformers checkpoint?')
    if model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; mlx_embed has {', '.join(sorted(ARCHITECTURES))}."
        )
    return ARCHITECTURES[model_type]
