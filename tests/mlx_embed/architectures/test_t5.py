"""What T5's config.json says of the feed-forward, in one key or in its parts."""

from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import edit
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make, oracle

ALONE = {"dense_act_fn": None, "is_gated_act": None}
TEXTS = ["the wing", "", "heat of the flow " * 9]
# By case, what config.json says, and the feed_forward_proj that means the same where it stands alone.
PARTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("t5", {"dense_act_fn": "gelu_new"}, {"feed_forward_proj": "gelu_new"}),
    ("t5", {"dense_act_fn": "silu", "is_gated_act": False}, {"feed_forward_proj": "silu"}),
    ("t5", {"feed_forward_proj": "gated-relu", "is_gated_act": False}, {"feed_forward_proj": "relu"}),
    ("t5, gated", {"dense_act_fn": "silu"}, {"feed_forward_proj": "gated-silu"}),
    ("t5, gated", {"feed_forward_proj": "gelu", "is_gated_act": True}, {"feed_forward_proj": "gated-gelu"}),
    ("t5, gated", ALONE, {"feed_forward_proj": "gated-gelu"}),
]


@pytest.mark.parametrize(("name", "parts", "same"), PARTS)
def test_the_parts_are_obeyed(name: str, parts: dict[str, Any], same: dict[str, Any], tmp_path: Path) -> None:
    found = encode(edit(make(name, tmp_path / "parts"), **parts), TEXTS)
    assert difference(found, encode(edit(make(name, tmp_path / "same"), **ALONE, **same), TEXTS)) <= TOLERANCE


@pytest.mark.parametrize(("name", "parts"), [(name, parts) for name, parts, _ in PARTS if parts != ALONE])
def test_the_parts_are_obeyed_by_transformers(name: str, parts: dict[str, Any], tmp_path: Path) -> None:
    folder = edit(make(name, tmp_path), **parts)
    assert difference(encode(folder, TEXTS), oracle(folder).encode(TEXTS, normalize_embeddings=True)) <= TOLERANCE


def test_another_activation_shows_in_the_vectors(tmp_path: Path) -> None:
    """Else these tests would prove nothing."""
    texts, vectors = golden("t5")
    assert difference(encode(edit(make("t5", tmp_path), dense_act_fn="silu"), texts), vectors) > 100 * TOLERANCE
