"""Every architecture as a tiny checkpoint of tests/data, and what else config.json can say of the same weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests import oracles
from tests.checkpoints import FAMILIES, decoder, edit, encoder
from tests.conftest import DATA
from tests.definitions import Defined

TOLERANCE = 1e-5
WORDS = ["the", "wing", "flow", "of", "heat", "is", "in", "code", "qux", "42", "!"]


@dataclass(frozen=True)
class Case:
    """A checkpoint, and the golden vectors of transformers or sentence-transformers.

    Attributes:
        base: the folder of its weights, by architecture.
        changes: of config.json; None removes a key.
        golden: the file and the key of its vectors, which are of length 1.
    """

    base: str
    golden: tuple[str, str]
    changes: Mapping[str, Any] = field(default_factory=dict)


def _encoder(base: str, **changes: Any) -> Case:
    return Case(base, ("encoders", base), changes)


def _defined(base: str, **changes: Any) -> Case:
    return Case(base, ("defined", base), changes)


def _decoder(key: str, **changes: Any) -> Case:
    return Case(key.split(",")[0], ("decoders", key), changes)


CASES = {
    "bert": Case("bert", ("tiny-bert", "encode")),
    "mpnet": Case("mpnet", ("tiny-mpnet", "encode")),
    "roberta": _encoder("roberta"),
    "xlm-roberta": _encoder("roberta", model_type="xlm-roberta"),
    "camembert": _encoder("roberta", model_type="camembert"),
    "distilbert": _encoder("distilbert"),
    "modernbert": _encoder("modernbert"),
    "modernbert-decoder": _encoder("modernbert_decoder", model_type="modernbert-decoder"),
    "nomic_bert": _encoder("nomic_bert"),
    "gte": _encoder("gte"),
    "electra": _encoder("electra"),
    "albert": _encoder("albert"),
    "deberta-v2": _encoder("deberta-v2"),
    "eurobert": _encoder("eurobert"),
    "t5": _encoder("t5"),
    "t5, gated": _encoder("t5_gated", model_type="t5"),
    "jina_bert": _defined("jina_bert"),
    "jina_bert, code": _defined("jina_bert_code", model_type="bert"),
    "nomic_bert, experts": _defined("nomic_bert_moe", model_type="nomic_bert"),
    "jina_embeddings_v3": _defined("jina_embeddings_v3"),
    "embedding_gemma2": _defined("embedding_gemma2"),
    "ultrabert": _defined("ultrabert"),
    "ultrabert, of old": _defined(
        "ultrabert",
        layer_types=None,
        attention_windows=[6, None, 6],
        sliding_window=None,
        rope_parameters=None,
        rope_theta=[10_000.0, 2_560_000.0, 10_000.0],
    ),
}
DECODER_CASES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3, own base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "qwen3, linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    "qwen3, yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 2048,
            "rope_theta": 100.0,
        }
    },
    "qwen3, yarn of old": {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 4.0}},
    "qwen2": {},
    "qwen2, both ways": {"is_causal": False},
    "gemma": {},
    "llama": {},
    "llama, both ways": {"is_causal": False},
    "mistral": {},
    "mistral, no window": {"sliding_window": None},
    "mistral, old base": {"rope_parameters": None, "rope_theta": 500.0},
    "mistral, llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
            "rope_theta": 10000.0,
        }
    },
    "gemma3_text": {},
    "gemma3_text, odd window": {"sliding_window": 7},
    "gemma3_text, causal": {"use_bidirectional_attention": False},
    "gemma3_text, no full layer": {"layer_types": ["sliding_attention", "sliding_attention", "sliding_attention"]},
    "gemma3_text, causal, no full layer": {
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention"],
        "use_bidirectional_attention": False,
    },
    "gemma3_text, no sliding layer": {"layer_types": ["full_attention", "full_attention", "full_attention"]},
    "gemma3_text, of old": {
        "rope_parameters": None,
        "layer_types": None,
        "_sliding_window_pattern": 2,
        "sliding_window_pattern": 2,
        "rope_theta": 5000.0,
        "rope_local_base_freq": 300.0,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    },
}
CASES |= {key: _decoder(key, **changes) for key, changes in DECODER_CASES.items()}
CASES["llama_bidirec"] = Case("llama", ("decoders", "llama, both ways"), {"model_type": "llama_bidirec"})
# One for each set of weights.
BASES = [name for name, case in CASES.items() if name == case.base]
DECODERS = [name for name in BASES if name in FAMILIES]
# The ways to compute a model, by the options of from_pretrained.
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "graph": {"engine": "graph"},
    "reference": {"engine": "reference"},
}


def make(name: str, folder: Path) -> Path:
    """The checkpoint of a case, complete."""
    case = CASES[name]
    (decoder if case.base in FAMILIES else encoder)(case.base, folder)
    return edit(folder, **case.changes)


def golden(name: str) -> tuple[list[str], np.ndarray]:
    """Texts and their vectors."""
    file, key = CASES[name].golden
    with np.load(DATA / f"{file}.npz") as arrays:
        return arrays["texts"].tolist(), arrays[key]


def encode(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    """Vectors of length 1, on the CPU unless told otherwise."""
    model = EmbeddingModel.from_pretrained(folder, **{"device": "cpu", **options})
    return model.encode(texts, normalize_embeddings=True)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest of any component."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def least_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine of two vectors of length 1 in the same place."""
    return float((found * expected).sum(axis=1).min())


def random_texts(longest: int) -> list[str]:
    """Fresh texts of every number of words up to `longest`, shuffled."""
    rng = np.random.default_rng()
    return [" ".join(rng.choice(WORDS, size=n)) for n in rng.permutation(np.arange(0, longest))]


def needs_transformers(model_type: str) -> Any:
    """transformers; skips where it is not installed, or older than this type of model."""
    found = pytest.importorskip("transformers", reason='PyTorch oracles are not installed: pip install ".[oracles]"')
    if model_type not in found.CONFIG_MAPPING:
        pytest.skip(f"transformers {found.__version__} has no {model_type}")
    return found


def is_defined(folder: Path) -> bool:
    """Whether transformers has a checkpoint's model not at all, or another under its name."""
    config = json.loads((folder / "config.json").read_text())
    return "moe_top_k" in config or config.get("position_embedding_type") == "alibi"


def oracle(folder: Path) -> Any:
    """The checkpoint in sentence-transformers, in float32; a bare transformers checkpoint is mean pooled there.

    What transformers does not have is computed by its definition.
    """
    if is_defined(folder):
        return Defined(folder)
    oracles.sentence_transformers()
    transformers = needs_transformers(json.loads((folder / "config.json").read_text())["model_type"])
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    if (
        type(model[0].processor).__name__ == "Qwen2Tokenizer"
    ):  # transformers makes that of any tokenizer.json of a qwen2
        model[0].processor = transformers.TokenizersBackend.from_pretrained(folder)
    return model
