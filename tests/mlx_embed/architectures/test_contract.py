"""What mypy cannot see of the contract: which files keep it, and the values that they export."""

import importlib
from pathlib import Path

import pytest

from mlx_embed import architectures
from mlx_embed.architectures import ARCHITECTURES
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.checkpoint.modules import ACTIVATIONS
from tests.mlx_embed.architectures.cases import BASES, CASES, DECODERS, make

TYPES = {"bert": 2, "roberta": 1, "nomic_bert": 2, "gte": 1, "electra": 2, "albert": 2}
TYPES |= {"jina_bert": 2, "jina_embeddings_v3": 1}


def test_every_architecture_has_a_case() -> None:
    """And every file with a Model is an architecture, under its own name; a table of tokens is one of another kind."""
    files = {path.stem for path in Path(architectures.__file__).parent.glob("*.py") if path.stem != "__init__"}
    with_model = {
        name for name in files if hasattr(importlib.import_module(f"{architectures.__name__}.{name}"), "Model")
    }
    assert with_model - {"contract", "decoder", "static"} == {
        module.__name__.rpartition(".")[2] for module in ARCHITECTURES.values()
    }
    covered = {ARCHITECTURES[str(case.changes.get("model_type", case.base))] for case in CASES.values()}
    assert covered == set(ARCHITECTURES.values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_exported(name: str) -> None:
    module = ARCHITECTURES[name]
    assert module.LAYOUT == "packed"
    assert all(prefix.endswith(".") for prefix in module.PREFIXES)
    assert all(activation in (*ACTIVATIONS, "LayerNorm") for _, activation in module.HEAD)


@pytest.mark.parametrize("name", BASES)
def test_what_a_config_says(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(make(name, tmp_path))
    assert checkpoint.architecture is ARCHITECTURES[name]
    config = checkpoint.encoder_config
    assert (config.vocab_size, config.hidden_size) == (120, 64 if name == "embedding_gemma2" else 32)
    three = name in (*DECODERS, "bert", "mpnet", "ultrabert", "embedding_gemma2")
    assert config.num_hidden_layers == (4 if name == "modernbert" else 3 if three else 2)
    assert config.max_tokens == (1 << 15 if name == "t5" else 64)
    assert config.type_vocab_size == TYPES.get(name, 0)
