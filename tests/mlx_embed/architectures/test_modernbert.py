"""ModernBERT: older config.json, and layers that see only nearby."""

from pathlib import Path

from tests.checkpoints import edit
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make


def test_config_of_before_transformers_5(tmp_path: Path) -> None:
    texts, expected = golden("modernbert")
    make("modernbert", tmp_path)
    edit(tmp_path, layer_types=None, rope_parameters=None, global_attn_every_n_layers=3)
    assert difference(encode(tmp_path, texts), expected) <= TOLERANCE
    edit(tmp_path, global_rope_theta=1234.0)
    assert difference(encode(tmp_path, texts), expected) > 100 * TOLERANCE


def test_sees_only_the_neighbourhood_in_local_layers(tmp_path: Path) -> None:
    texts, expected = golden("modernbert")
    edit(make("modernbert", tmp_path), local_attention=18)
    assert difference(encode(tmp_path, texts), expected) > 10 * TOLERANCE
