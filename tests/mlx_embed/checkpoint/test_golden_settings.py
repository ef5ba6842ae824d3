"""What the files beside the weights say, against sentence-transformers: golden vectors, and live."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.checkpoints import FLAGS, NORMALIZE, STACKS, dense, edit, pooling, read, with_modules
from tests.conftest import DATA
from tests.mlx_embed.checkpoint.test_modules import PROMPT, PROMPTS, close, load, oracle

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")

TEXTS = ["the WING", "", "heat of the flow " * 30]
# A method of the model, and its options.
Call = tuple[str, dict[str, Any]]


def _all_flags(folder: Path) -> Path:
    """Every mode, side by side, in the order of sentence-transformers' flags and not of FLAGS."""
    return with_modules(folder, [pooling(*reversed(FLAGS))], layout=4)


def _without(stack: str, place: str, *keys: str, layout: int = 6) -> Callable[[Path], Path]:
    """One of STACKS with keys of a config.json left out, for which there are defaults."""

    def make(folder: Path) -> Path:
        path = with_modules(folder, STACKS[stack], layout=layout) / place / "config.json"
        config = json.loads(path.read_text())
        assert set(keys) <= set(config)
        path.write_text(json.dumps({key: value for key, value in config.items() if key not in keys}))
        return folder

    return make


def _normed(folder: Path) -> Path:
    """Of unit vectors, so that what LayerNorm adds to the variance shows."""
    return with_modules(folder, [pooling("mean"), NORMALIZE, ("LayerNorm", {"dimension": 32})])


def _prompts(index: int, include_prompt: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with_modules(folder, [pooling("mean", include_prompt=include_prompt)])
        (folder / "config_sentence_transformers.json").write_text(json.dumps(PROMPTS[index]))
        return folder

    return make


def _short(folder: Path) -> Path:
    path = with_modules(folder, STACKS["mean"]) / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 17}))
    return folder


def _lower(lower: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        """A tokenizer that does not lowercase, of a checkpoint that may ask for it."""
        transformer = with_modules(folder, STACKS["mean"], layout=4) / "0_Transformer"
        tokenizer = json.loads((transformer / "tokenizer.json").read_text())
        tokenizer["normalizer"]["lowercase"] = False
        (transformer / "tokenizer.json").write_text(json.dumps(tokenizer))
        settings = {"max_seq_length": 64, "do_lower_case": lower}
        (transformer / "sentence_bert_config.json").write_text(json.dumps(settings))
        return folder

    return make


def _bare(folder: Path) -> Path:
    with_modules(folder, STACKS["mean"])
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    return folder


def _gentler(folder: Path, by: float = 8.0) -> Path:
    """The tensors of a folder as float32, divided, so that tanh tells them apart."""
    tensors = {name: array.astype(mx.float32) / by for name, array in read(folder).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    return folder


def _labse(folder: Path) -> Path:
    """As LaBSE lies on the hub: the first token, a Dense layer with tanh, and in config.json BERT's own pooler."""
    with_modules(folder, [pooling("cls"), dense(32, 32), NORMALIZE], layout=4)
    own = {"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_type": "first"}
    edit(folder / "0_Transformer", architectures=["BertModel"], **own)
    settings = {"max_seq_length": 40, "do_lower_case": False}
    (folder / "0_Transformer/sentence_bert_config.json").write_text(json.dumps(settings))
    _gentler(folder / "2_Dense")
    return folder


def _distiluse(folder: Path) -> Path:
    """As distiluse-base-multilingual-cased lies there: DistilBERT's average, fewer dimensions, of any length."""
    with_modules(folder, [pooling("mean"), dense(32, 20)], layout=4, base="distilbert")
    edit(_gentler(folder / "0_Transformer", 1.0), sinusoidal_pos_embds=False, tie_weights_=True, dtype="float32")
    _gentler(folder / "2_Dense")
    return folder


def _stack(name: str) -> Callable[[Path], Path]:
    return lambda folder: with_modules(folder, STACKS[name])


PLAIN: list[Call] = [("encode", {})]
PROMPTED: list[Call] = [(name, {}) for name in ("encode", "encode_query", "encode_document")]
PROMPTED += [("encode_query", {"prompt": "a: "}), ("encode_document", {"prompt": ""})]
SETTINGS: dict[str, tuple[Callable[[Path], Path], list[Call]]] = {
    "all flags": (_all_flags, PLAIN),
    "no flags": (_without("mean", "1_Pooling", *FLAGS.values(), layout=4), PLAIN),
    "no include_prompt": (_without("mean", "1_Pooling", "include_prompt"), [("encode", {"prompt": PROMPT})]),
    "a dense layer of defaults": (_without("dense", "2_Dense", "activation_function", "bias"), PLAIN),
    **{f"prompts {i}": (_prompts(i, True), PROMPTED) for i in range(len(PROMPTS))},
    "prompts that are not pooled": (_prompts(1, False), [*PROMPTED, ("encode", {"prompt_name": "query"})]),
    "a LayerNorm of small numbers": (_normed, PLAIN),
    "17 tokens": (_short, PLAIN),
    "lowercased": (_lower(True), PLAIN),
    "not lowercased": (_lower(False), PLAIN),
    "LaBSE": (_labse, PLAIN),
    "distiluse": (_distiluse, PLAIN),
    "bare": (_bare, PLAIN),
    "normalised when told": (_stack("mean"), [("encode", {"normalize_embeddings": True})]),
    "cut and normalised": (_stack("two dense"), [("encode", {"truncate_dim": 8, "normalize_embeddings": True})]),
    "cut": (_stack("mean"), [("encode", {"truncate_dim": 8})]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_golden(name: str, tmp_path: Path) -> None:
    make, calls = SETTINGS[name]
    model = load(make(tmp_path))
    with np.load(DATA / "settings.npz") as file:
        for (method, options), expected in zip(calls, file[f"files: {name}"], strict=True):
            assert close(getattr(model, method)(TEXTS, **options), expected), (method, options)


@pytest.mark.parametrize("name", SETTINGS)
def test_live(name: str, tmp_path: Path) -> None:
    make, calls = SETTINGS[name]
    model, reference = load(make(tmp_path)), oracle(tmp_path)
    for method, options in calls:
        found, expected = (getattr(one, method)(TEXTS, **options) for one in (model, reference))
        assert close(found, expected), (method, options)
