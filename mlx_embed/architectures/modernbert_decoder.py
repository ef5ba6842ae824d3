"""ModernBERT as a decoder (Ettin: Weller et al., 2025): its layers, in which a token sees what comes before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_embed.architectures import modernbert
from mlx_embed.architectures.modernbert import LAYOUT, PREFIXES, Model
from mlx_embed.errors import UnsupportedModelError

__all__ = ["HEAD", "LAYOUT", "PREFIXES", "RENAMES", "Config", "Model"]

RENAMES = (
    *modernbert.RENAMES,
    ("attn.q_proj.", "attention.q."),
    ("attn.k_proj.", "attention.k."),
    ("attn.v_proj.", "attention.v."),
)
HEAD: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Config(modernbert.Config):
    """The part of config.json that shapes the decoder."""

    causal: ClassVar[bool] = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        result = super().from_dict(config)
        assert isinstance(result, cls)
        if result.near < 0:
            raise UnsupportedModelError('config.json has "local_attention": 1, of which a layer sees nothing.')
        return result
