"""LoRA adapters: merged as peft computes them, on their own or beside the base model; other kinds are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import (
    CheckpointError,
    CrossEncoder,
    EmbeddingModel,
    ModelNotFoundError,
    SparseEncoder,
    UnsupportedModelError,
    convert,
)
from mlx_embed.checkpoint.adapters import CONFIG, FILE
from tests import oracles, sparse
from tests.checkpoints import decoder, edit, encoder, generative, read, reranker
from tests.conftest import DATA
from tests.data.make_odd import noise
from tests.mlx_embed.architectures.cases import TOLERANCE, needs_transformers, oracle
from tests.mlx_embed.test_sparse_encoder import decoder_of

GOLDEN: dict[str, Any] = json.loads((DATA / "odd/adapters.json").read_text())
REFUSED = {"dora": "'use_dora': True", "tokens": r"'trainable_token_indices': \[5, 6\]"}
QUERY = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"


def put(folder: Path, name: str, **changes: Any) -> Path:
    """Write a golden adapter into a folder, keys of its config changed."""
    adapter = GOLDEN["adapters"][name]
    config = adapter["config"] | changes
    (folder / CONFIG).write_text(json.dumps(config))
    save(folder, {key: mx.array(noise(key, tuple(shape))) for key, shape in adapter["shapes"].items()})
    return folder


def save(folder: Path, tensors: dict[str, mx.array]) -> None:
    mx.save_safetensors(str(folder / FILE), tensors, {"format": "pt"})


def tensors(folder: Path) -> dict[str, mx.array]:
    return {name: mx.array(np.array(array)) for name, array in mx.load(str(folder / FILE)).items()}


def vectors(folder: Path, texts: list[str] = GOLDEN["texts"], **options: Any) -> np.ndarray:
    return EmbeddingModel.from_pretrained(folder, **{"device": "cpu", **options}).encode(texts)


def differs(found: np.ndarray, name: str) -> float:
    return float(np.abs(found - np.array(GOLDEN["adapters"][name]["vectors"])).max())


@pytest.mark.parametrize("name", [name for name in GOLDEN["adapters"] if name not in REFUSED])
def test_golden(name: str, checkpoint: Path) -> None:
    plain = vectors(checkpoint)
    put(checkpoint, name)
    assert differs(vectors(checkpoint), name) <= TOLERANCE
    assert differs(plain, name) > 0.01, "else the adapter need not be merged"
    assert differs(vectors(checkpoint, engine="reference"), name) <= TOLERANCE


@pytest.mark.parametrize("name", REFUSED)
def test_kinds_that_are_refused(name: str, checkpoint: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{CONFIG} has {REFUSED[name]}; mlx_embed does not merge that"):
        vectors(put(checkpoint, name))


@pytest.mark.parametrize("kind", ["ADALORA", "IA3", "LOHA", "PREFIX_TUNING", None])
def test_other_adapters_than_lora(kind: str | None, checkpoint: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=f'"peft_type": {kind!r}; mlx_embed merges LORA alone'):
        vectors(put(checkpoint, "plain", peft_type=kind))


def test_a_kind_of_the_future(checkpoint: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'use_whatever': 3"):
        vectors(put(checkpoint, "plain", use_whatever=3, another=None))


@pytest.mark.parametrize("beginning", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga"])
def test_a_beginning_that_changed_the_base(beginning: str, checkpoint: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'init_lora_weights': '{beginning}'"):
        vectors(put(checkpoint, "plain", init_lora_weights=beginning))


def test_fan_in_fan_out_is_not_of_linear_layers(checkpoint: Path) -> None:
    assert differs(vectors(put(checkpoint, "plain", fan_in_fan_out=True)), "plain") <= TOLERANCE


def test_a_pattern_is_of_the_end_of_a_path(checkpoint: Path) -> None:
    assert differs(vectors(put(checkpoint, "plain", alpha_pattern={"encoder.layer.1": 16})), "plain") <= TOLERANCE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lora_A.weight", "lora_A.default.weight"),
        ("lora_B.weight", "lora_B.default.weight"),
        ("base_model.model.", ""),
        ("base_model.model.", "base_model.model.bert."),
        ("base_model.model.", "base_model.model.0.auto_model."),
    ],
)
def test_other_spellings(old: str, new: str, checkpoint: Path) -> None:
    put(checkpoint, "plain")
    renamed = {name.replace(old, new): array for name, array in tensors(checkpoint).items()}
    assert renamed.keys() != tensors(checkpoint).keys()
    save(checkpoint, renamed)
    assert differs(vectors(checkpoint), "plain") <= TOLERANCE


@pytest.mark.parametrize("there", [True, False], ids=["a base that is there", "none"])
def test_the_base_model_elsewhere(there: bool, checkpoint: Path, tmp_path: Path) -> None:
    """As sentence-transformers saves an adapter: with modules and tokenizer, and without config.json and weights."""
    base = shutil.copytree(checkpoint, tmp_path / "base") if there else tmp_path / "gone"
    put(checkpoint, "plain", base_model_name_or_path=str(base))
    for file in ("config.json", "model.safetensors"):
        (checkpoint / file).unlink()
    if there:
        assert differs(vectors(checkpoint), "plain") <= TOLERANCE
        convert(checkpoint, tmp_path / "b")
        shutil.rmtree(base)
        assert differs(vectors(tmp_path / "b"), "plain") <= TOLERANCE
    else:
        with pytest.raises(ModelNotFoundError, match="gone"):
            vectors(checkpoint)


def test_a_base_model_that_is_not_named(checkpoint: Path) -> None:
    put(checkpoint, "plain", base_model_name_or_path=None)
    assert differs(vectors(checkpoint), "plain") <= TOLERANCE
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match='names no "base_model_name_or_path"'):
        vectors(checkpoint)


def test_converted(checkpoint: Path, tmp_path: Path) -> None:
    """The folder written has merged weights and no adapter."""
    put(checkpoint, "saved_modules")
    report = convert(checkpoint, tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").glob("*adapter*")) == []
    assert differs(vectors(tmp_path / "b"), "saved_modules") <= TOLERANCE
    assert report.source_bytes == sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({QUERY: None}, "there is only tensor '.*query.lora_B.weight'"),
        ({QUERY: (3, 32)}, r"has shape \(3, 32\), but .*adapter_config.json gives it the rank 2"),
        ({QUERY: (2, 31)}, r"has shape \(2, 31\) and .* \(32, 2\), which do not fit \(32, 32\)"),
        ({QUERY.replace("layer.0", "layer.9"): (2, 32), QUERY.replace("layer.0", "layer.9").replace("_A", "_B"): (32, 2)},  # noqa: E501
         "layer.9.attention.self.query.weight, which the base model does not have"),
        ({"base_model.model.encoder.layer.0.lora_magnitude_vector": (2,)}, "of a kind of adapter that mlx_embed does"),
        ({"base_model.model.encoder.layer.0.odd": (2,)}, "encoder.layer.0.odd' of .*, which the architecture does not"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(changes: dict[str, tuple[int, ...] | None], message: str, checkpoint: Path) -> None:
    kept = tensors(put(checkpoint, "plain"))
    for name, shape in changes.items():
        kept.pop(name, None)
        if shape is not None:
            kept[name] = mx.zeros(shape)
    save(checkpoint, kept)
    with pytest.raises(CheckpointError, match=message):
        vectors(checkpoint)


def test_the_bias_of_a_layer_without_one(tmp_path: Path) -> None:
    folder, layer = decoder("qwen3", tmp_path), "base_model.model.layers.0.self_attn.o_proj.lora_"
    width = read(folder)["layers.0.self_attn.o_proj.weight"].shape
    (folder / CONFIG).write_text(json.dumps(GOLDEN["adapters"]["bias_of_b"]["config"]))
    sizes = {"A.weight": (2, width[1]), "B.weight": (width[0], 2), "B.bias": width[:1]}
    save(folder, {layer + part: mx.zeros(shape) for part, shape in sizes.items()})
    with pytest.raises(UnsupportedModelError, match=r"bias of layers\.0\.self_attn\.o_proj, which has none"):
        vectors(folder)


def test_the_bias_of_another_layer(checkpoint: Path) -> None:
    kept = tensors(put(checkpoint, "bias_of_b"))
    name = QUERY.replace("lora_A.weight", "lora_B.bias")
    assert name in kept
    save(checkpoint, kept | {name: mx.zeros(31)})
    with pytest.raises(CheckpointError, match=r"has shape \(31,\), which does not fit \(32,\)"):
        vectors(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 0}, '"r": 0, where a whole number'),
        ({"r": 2.0}, '"r": 2.0'),
        ({"lora_alpha": "8"}, "\"lora_alpha\": '8', where a number"),
        ({"use_rslora": 1}, '"use_rslora": 1, where a bool'),
        ({"rank_pattern": [1]}, r'"rank_pattern": \[1\], where an object'),
        ({"rank_pattern": {"query": "x"}}, "\"rank_pattern\": 'x'"),
        ({"alpha_pattern": {"(": 2}}, r"'\(' in \"alpha_pattern\", which is no expression"),
    ],
)
def test_an_adapter_config_that_is_wrong(changes: dict[str, Any], message: str, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        vectors(put(checkpoint, "plain", **changes))


def test_no_tensors(checkpoint: Path) -> None:
    (put(checkpoint, "plain") / FILE).unlink()
    with pytest.raises(CheckpointError, match=f"no {FILE}; save the adapter as safetensors"):
        vectors(checkpoint)


def test_weights_that_are_quantized(checkpoint: Path, tmp_path: Path) -> None:
    converted = tmp_path / "b"
    convert(checkpoint, converted, quantize=8, group_size=32)
    put(converted, "plain")
    save(converted, {"layers.0.up.lora_A.weight": mx.zeros((2, 32)), "layers.0.up.lora_B.weight": mx.zeros((48, 2))})
    with pytest.raises(UnsupportedModelError, match="which is quantized: merge it into the original weights"):
        vectors(converted)


@pytest.fixture
def lora() -> Any:
    """A trained-looking adapter of peft on a folder: (folder, class of transformers, options) -> what peft computes."""
    peft = pytest.importorskip("peft", reason="PyTorch oracles are not installed")
    import torch
    import transformers

    def make(folder: Path, kind: str = "AutoModel", **options: Any) -> Any:
        torch.manual_seed(0)
        model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32)
        adapted = peft.get_peft_model(model, peft.LoraConfig(init_lora_weights=False, **({"r": 2} | options)))
        adapted.save_pretrained(folder)
        return adapted

    return make


@pytest.mark.parametrize("name", ["roberta", "mpnet", "distilbert", "modernbert", "nomic_bert", "gte"])
def test_live_encoders(name: str, lora: Any, tmp_path: Path) -> None:
    """All linear layers, in checkpoints whose names and fused layers differ."""
    folder = encoder(name, tmp_path)
    needs_transformers(json.loads((folder / "config.json").read_text())["model_type"])
    before = vectors(folder, ["the wing"])
    lora(folder, target_modules="all-linear", use_rslora=True, lora_alpha=3)
    expected = oracle(folder).encode(GOLDEN["texts"])
    assert np.abs(vectors(folder) - expected).max() <= 2 * TOLERANCE
    assert np.abs(vectors(folder, ["the wing"]) - before).max() > 0.01


@pytest.mark.parametrize("prefixed", [True, False])
def test_live_decoder(prefixed: bool, lora: Any, tmp_path: Path) -> None:
    """An adapter of the causal model has its prefix."""
    folder = decoder("qwen3", tmp_path)
    if prefixed:
        tied = read(folder)
        mx.save_safetensors(
            str(folder / "model.safetensors"), {f"model.{k}": x for k, x in tied.items()}, {"format": "pt"}
        )
        edit(folder, architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True)
    kind = "AutoModelForCausalLM" if prefixed else "AutoModel"
    lora(folder, kind, target_modules=["q_proj", "down_proj"])
    name = "base_model.model.model.layers.0.self_attn" if prefixed else "base_model.model.layers.0.self_attn"
    assert any(key.startswith(name) for key in tensors(folder))
    expected = oracle(folder).encode(GOLDEN["texts"])
    assert np.abs(vectors(folder) - expected).max() <= 2 * TOLERANCE


def test_live_reranker(lora: Any, tmp_path: Path) -> None:
    """The adapter's classifier wins over the base model's, whichever way it is loaded."""
    sentence_transformers = oracles.sentence_transformers()
    folder = reranker("bert", 1, tmp_path / "a")
    adapted = lora(
        folder, "AutoModelForSequenceClassification", task_type="SEQ_CLS", target_modules=["query", "pooler.dense"]
    )
    for parameter in adapted.classifier.modules_to_save.default.parameters():
        parameter.data += 0.5
    adapted.save_pretrained(folder)
    pairs = [("the wing", "heat of the layer"), ("note", "code")]
    expected = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(pairs)
    found = CrossEncoder.from_pretrained(folder, device="cpu").predict(pairs)
    assert np.abs(found - expected).max() <= TOLERANCE
    convert(folder, tmp_path / "b")
    converted = CrossEncoder.from_pretrained(tmp_path / "b", device="cpu").predict(pairs)
    assert np.abs(converted - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["t5", "t5_gated"])
def test_embeddings_of_t5_by_their_other_name(name: str, tmp_path: Path) -> None:
    """Transformers' encoder has them as embed_tokens, and saves them as shared."""
    folder = encoder(name, tmp_path / "a")
    whole = read(folder)
    other = mx.array(noise("other", whole["shared.weight"].shape))
    a, b = (mx.array(noise(part, shape)) for part, shape in (("a", (2, other.shape[0])), ("b", (other.shape[1], 2))))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3}

    def having(place: str, weights: dict[str, mx.array], adapter: dict[str, mx.array] | None = None) -> np.ndarray:
        copy = shutil.copytree(folder, tmp_path / place)
        mx.save_safetensors(str(copy / "model.safetensors"), weights, {"format": "pt"})
        if adapter is not None:
            (copy / CONFIG).write_text(json.dumps(config))
            save(copy, {f"base_model.model.encoder.embed_tokens.{key}": array for key, array in adapter.items()})
        return vectors(copy)

    def replaced(array: mx.array) -> dict[str, mx.array]:
        return whole | {"shared.weight": array}

    saved = having("c", whole, {"weight": other})
    assert np.abs(saved - having("d", replaced(other))).max() <= TOLERANCE
    low = having("e", whole, {"lora_embedding_A": a, "lora_embedding_B": b})
    merged = whole["shared.weight"].astype(mx.float32) + 1.5 * (b @ a).T
    assert np.abs(low - having("f", replaced(merged))).max() <= TOLERANCE
    alone = {key: array for key, array in whole.items() if key != "shared.weight"}
    of_one_name = having("g", alone | {"encoder.embed_tokens.weight": whole["shared.weight"]})
    of_both = having("h", whole | {"encoder.embed_tokens.weight": other})
    assert np.array_equal(of_one_name, vectors(folder))
    assert np.array_equal(of_both, vectors(folder))
    assert np.abs(saved - of_both).max() > 0.01


TIED = {
    "a reranker that generates": ("model.embed_tokens", "lm_head"),
    "a sparse decoder": ("model.embed_tokens", "lm_head"),
    "a sparse model": ("bert.embeddings.word_embeddings", "cls.predictions.decoder"),
}


@pytest.mark.parametrize("kind", TIED)
def test_one_matrix_for_embeddings_and_output_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    """Peft would change one of the two."""
    model: Any = CrossEncoder if "reranker" in kind else SparseEncoder
    if "sparse" in kind:
        folder = sparse.make(tmp_path, "bert") if kind == "a sparse model" else decoder_of(tmp_path)
    else:
        folder = generative("qwen3", tmp_path)
    embeddings, output = TIED[kind]
    model.from_pretrained(folder, device="cpu")
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 3}))
    for adapter in (
        {f"{embeddings}.lora_embedding_A": (2, 120), f"{embeddings}.lora_embedding_B": (32, 2)},
        {f"{embeddings}.weight": (120, 32)},
        {f"{output}.weight": (120, 32)},
    ):
        save(folder, {f"base_model.model.{name}": mx.zeros(shape) for name, shape in adapter.items()})
        with pytest.raises(UnsupportedModelError, match="one matrix for the embeddings and the output"):
            model.from_pretrained(folder, device="cpu")


def test_the_head_of_a_masked_model_that_an_adapter_brings(tmp_path: Path) -> None:
    folder = sparse.make(tmp_path / "a", "bert")
    head, name = "cls.predictions.transform.dense", "cls.predictions.transform.dense.weight"
    other = mx.array(noise("head", (32, 32)))
    copy = shutil.copytree(folder, tmp_path / "b")
    weights = dict(mx.load(str(copy / "model.safetensors")))
    mx.save_safetensors(str(copy / "model.safetensors"), weights | {name: other}, {"format": "pt"})
    before = SparseEncoder.from_pretrained(folder, device="cpu").encode(["the wing"])
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "modules_to_save": [head]}))
    save(folder, {f"base_model.model.{name}": other})
    convert(folder, tmp_path / "c")
    found, expected, converted = (
        SparseEncoder.from_pretrained(tmp_path / place, device="cpu").encode(["the wing"]) for place in "abc"
    )
    assert np.array_equal(found[0].values, expected[0].values)
    assert np.allclose(converted[0].values, expected[0].values, atol=TOLERANCE)
    assert not np.array_equal(found[0].values, before[0].values)
