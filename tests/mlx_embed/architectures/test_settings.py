"""What config.json can say of the same weights, against transformers: golden vectors, and live."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import edit, encoder, rename
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, encode, golden, make, oracle

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")

# Literal pad tokens, one of which ends a text, more than fits, and a text that exactly fits.
TEXTS = ["the wing", "", "<pad> the <pad><pad> wing flow <pad>", "heat of the flow " * 30, " ".join(["wing"] * 62)]
# A variance that LayerNorm meets here is about 1.
EPS = 0.3
BASE = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
# By name, whose weights these are and what config.json says.
SETTINGS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "bert": ("bert", {}),
    "bert, eps": ("bert", {"layer_norm_eps": EPS}),
    "bert, gelu_new": ("bert", {"hidden_act": "gelu_new"}),
    "bert, gelu_pytorch_tanh": ("bert", {"hidden_act": "gelu_pytorch_tanh"}),
    "bert, relu": ("bert", {"hidden_act": "relu"}),
    "mpnet": ("mpnet", {}),
    "mpnet, eps": ("mpnet", {"layer_norm_eps": EPS}),
    "roberta": ("roberta", {}),
    "roberta, eps": ("roberta", {"layer_norm_eps": EPS}),
    "roberta, pad is 0": ("roberta", {"pad_token_id": 0}),
    "distilbert, gelu_new": ("distilbert", {"activation": "gelu_new"}),
    "modernbert, eps": ("modernbert", {"norm_eps": EPS}),
    "modernbert, window": ("modernbert", {"local_attention": 6}),
    "nomic_bert, eps and base": ("nomic_bert", {"layer_norm_eps": EPS} | BASE),
    "gte, eps and base": ("gte", {"layer_norm_eps": EPS} | BASE),
}
# Another name of the same function.
SAME = ("bert, gelu_pytorch_tanh",)


def checkpoint(name: str, folder: Path) -> Path:
    base, changes = SETTINGS[name]
    return edit(encoder(base, folder), **changes)


def expected(name: str) -> np.ndarray:
    with np.load(DATA / "settings.npz") as file:
        return file[f"config: {name}"]


# A compiled graph is the reference's, and takes a second to compile.
@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", SETTINGS)
def test_golden_vectors(name: str, engine: str, tmp_path: Path) -> None:
    found = encode(checkpoint(name, tmp_path), TEXTS, dtype="float32", engine=engine)
    assert difference(found, expected(name)) <= TOLERANCE


@pytest.mark.parametrize("name", SETTINGS)
def test_live(name: str, tmp_path: Path) -> None:
    vectors = oracle(checkpoint(name, tmp_path)).encode(TEXTS, normalize_embeddings=True)
    assert difference(encode(tmp_path, TEXTS), vectors) <= TOLERANCE


def test_each_setting_shows_in_the_vectors() -> None:
    """Else it would prove nothing."""
    for name, (base, _) in SETTINGS.items():
        others = [other for other in SETTINGS if other not in (name, *SAME) and SETTINGS[other][0] == base]
        assert name in SAME or all(difference(expected(name), expected(other)) > 5 * TOLERANCE for other in others)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert"])
def test_gamma_and_beta(name: str, tmp_path: Path) -> None:
    """As very old checkpoints call the weight and the bias of a LayerNorm."""
    texts, vectors = golden(name)
    rename(make(name, tmp_path), (r"LayerNorm\.weight$", "LayerNorm.gamma"), (r"LayerNorm\.bias$", "LayerNorm.beta"))
    assert difference(encode(tmp_path, texts), vectors) <= TOLERANCE
