"""modules.json, prompts, truncation and similarity against sentence-transformers: golden vectors, and live."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError, convert
from tests import oracles
from tests.checkpoints import FLAGS, NORMALIZE, STACKS, damage, encoder, pooling, with_modules
from tests.conftest import DATA, TINY

TOLERANCE = 1e-5
PROMPT = "the wing: "
TEXTS = ["heat", "", "a query of code", "the wing flow", "Naïve CAFÉ 42", "boundary layer " * 50]


def load(folder: Path) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(folder, device="cpu")


def oracle(folder: Path) -> Any:
    sentence_transformers = oracles.sentence_transformers()
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal within the tolerance, where each vector is scaled by its expected length."""
    length = np.linalg.norm(expected, axis=1, keepdims=True)
    return found.shape == expected.shape and bool((np.abs(found - expected) <= TOLERANCE * length).all())


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("name", STACKS)
def test_golden_modules(name: str, tmp_path: Path) -> None:
    with np.load(DATA / "modules.npz") as file:
        expected = file[name]
    assert close(load(with_modules(tmp_path, STACKS[name])).encode(TEXTS, prompt=PROMPT), expected)


@pytest.mark.parametrize("name", ["three side by side", "two dense", "sigmoid, silu"])
def test_golden_modules_in_the_old_layout(name: str, tmp_path: Path) -> None:
    with np.load(DATA / "modules.npz") as file:
        expected = file[name]
    assert close(load(with_modules(tmp_path, STACKS[name], layout=4)).encode(TEXTS, prompt=PROMPT), expected)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("name", TINY)
def test_golden_pooling(name: str, mode: str, tmp_path: Path) -> None:
    """On both tokenizers, for texts of every kind, and in the layout of before version 5."""
    with np.load(DATA / f"{name}.npz") as file:
        texts, expected = file["texts"].tolist(), file[mode]
    encoder(name.removeprefix("tiny-"), tmp_path)
    package = "sentence_transformers.models"
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{package}.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    flags = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, FLAGS[mode]: True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    found = load(tmp_path).encode(texts)
    assert close(unit(found), unit(expected))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4), "the vectors' lengths differ"


@pytest.mark.parametrize("layout", [4, 6])
@pytest.mark.parametrize("name", STACKS)
def test_live_modules(name: str, layout: int, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS[name], layout=layout)
    expected = oracle(tmp_path)
    model = load(tmp_path)
    assert model.dimension == expected.get_embedding_dimension()
    assert model.max_seq_length == expected.max_seq_length == 64
    for options in ({}, {"prompt": PROMPT}, {"normalize_embeddings": True}):
        assert close(model.encode(TEXTS, **options), expected.encode(TEXTS, **options)), options


def test_live_saved_by_sentence_transformers(tmp_path: Path) -> None:
    """What the installed version writes, after it has read it itself."""
    with_modules(tmp_path / "a", STACKS["two dense"])
    model = oracle(tmp_path / "a")
    model.save(str(tmp_path / "b"), create_model_card=False)
    assert close(load(tmp_path / "b").encode(TEXTS), model.encode(TEXTS))


def test_modules_survive_conversion_and_compilation(tmp_path: Path) -> None:
    folder = with_modules(tmp_path / "a", STACKS["two dense"])
    expected = load(folder).encode(TEXTS)
    compiled = EmbeddingModel.from_pretrained(folder, device="cpu", engine="graph")
    assert close(compiled.encode(TEXTS), expected)
    report = convert(folder, tmp_path / "b")
    assert np.array_equal(load(tmp_path / "b").encode(TEXTS), load(folder).encode(TEXTS))
    assert report.destination_bytes > 48 * 52 * 4, "the modules' weights count too"
    dense_bytes = sum(path.stat().st_size for path in folder.glob("?_Dense/model.safetensors"))
    assert report.source_bytes == (folder / "model.safetensors").stat().st_size + dense_bytes
    convert(folder, tmp_path / "c", dtype="float16")
    cosine = (load(tmp_path / "c").encode(TEXTS) * expected).sum(axis=1)
    assert cosine.min() >= 0.9999


@pytest.mark.parametrize("dim", [1, 8, 20])
@pytest.mark.parametrize("name", ["two dense", "dense after normalize", "mean"])
def test_live_truncation(name: str, dim: int, tmp_path: Path) -> None:
    """sentence-transformers cuts and leaves the length; here a checkpoint that normalises gets unit vectors again."""
    with_modules(tmp_path, STACKS[name])
    model, reference = load(tmp_path), oracle(tmp_path)
    expected = reference.encode(TEXTS, truncate_dim=dim, normalize_embeddings=STACKS[name][-1] == NORMALIZE)
    assert close(model.encode(TEXTS, truncate_dim=dim), expected)
    expected = reference.encode(TEXTS, truncate_dim=dim, normalize_embeddings=True)
    assert close(model.encode(TEXTS, truncate_dim=dim, normalize_embeddings=True), expected)


def test_truncate_dim_of_the_checkpoint(tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    (tmp_path / "config_sentence_transformers.json").write_text('{"truncate_dim": 10}')
    model = load(tmp_path)
    assert model.dimension == 10
    assert model.encode(TEXTS).shape == (len(TEXTS), 10)
    assert model.encode(TEXTS, truncate_dim=24).shape == (len(TEXTS), 24)
    assert model.encode([]).shape == (0, 10)
    with pytest.raises(ValueError, match=r"truncate_dim 25 is not within 1\.\.24"):
        model.encode(TEXTS, truncate_dim=25)


PROMPTS = [
    {"prompts": {"query": "heat: ", "document": "flow: ", "other": "code: "}},
    {"prompts": {"query": "heat: ", "document": "flow: "}, "default_prompt_name": "document"},
    {"prompts": {"query": "heat: ", "other": None}, "default_prompt_name": "other"},
    {"prompts": {"query": ""}},
]


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("config", PROMPTS, ids=range(len(PROMPTS)))
def test_live_prompts(config: dict[str, Any], include_prompt: bool, tmp_path: Path) -> None:
    with_modules(tmp_path, [pooling("mean", include_prompt=include_prompt)])
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(config))
    model, reference = load(tmp_path), oracle(tmp_path)
    options: list[dict[str, Any]] = [{"prompt": prompt} for prompt in ("a: ", "", "wing " * 100)]
    options += [{}, *({"prompt_name": name} for name in config["prompts"])]
    for option in options:
        for name in ("encode", "encode_query", "encode_document"):
            found, expected = (getattr(x, name)(TEXTS, **option) for x in (model, reference))
            assert close(found, expected), (name, option)


def test_a_prompt_that_leaves_no_room_and_is_not_pooled(tmp_path: Path) -> None:
    """What is left to pool is the last token, [SEP]."""
    found, expected = (
        load(with_modules(tmp_path / mode, [pooling(mode, include_prompt=mode == "lasttoken")]))
        for mode in ("mean", "lasttoken")
    )
    options: dict[str, Any] = {"prompt": "wing " * 100}
    assert close(found.encode(TEXTS, **options), expected.encode(TEXTS, **options))


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_live_similarity(name: str, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["mean"])
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": name}))
    model, reference = load(tmp_path), oracle(tmp_path)
    a, b = np.random.default_rng().normal(size=(2, 5, 32)).astype(np.float32)
    assert np.allclose(model.similarity(a, b), reference.similarity(a, b).numpy(), atol=1e-5)


@pytest.mark.parametrize("pair", [(None, 64), (17, 17), (1000, 64)])
@pytest.mark.parametrize("layout", [4, 6])
def test_live_lengths(pair: tuple[int | None, int], layout: int, tmp_path: Path) -> None:
    """The positions allow 64 tokens; a checkpoint may ask for fewer, and says more in vain."""
    said, meant = pair
    with_modules(tmp_path, STACKS["mean"], layout=layout)
    where = tmp_path / ("0_Transformer/sentence_bert_config.json" if layout == 4 else "tokenizer_config.json")
    key = "max_seq_length" if layout == 4 else "model_max_length"
    config = json.loads(where.read_text())
    where.write_text(json.dumps({k: v for k, v in (config | {key: said}).items() if v is not None}))
    model = load(tmp_path)
    assert model.max_seq_length == meant
    if said != 1000:
        assert close(model.encode(TEXTS), oracle(tmp_path).encode(TEXTS))


@pytest.mark.parametrize("lower", [True, False])
def test_live_lowercasing(lower: bool, tmp_path: Path) -> None:
    """do_lower_case adds lowercasing to a tokenizer that has none."""
    with_modules(tmp_path, STACKS["mean"], layout=4)
    path = tmp_path / "0_Transformer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(tokenizer))
    settings = {"max_seq_length": 64, "do_lower_case": lower}
    (tmp_path / "0_Transformer" / "sentence_bert_config.json").write_text(json.dumps(settings))
    texts = ["the WING", "the wing", "Heat"]
    found = load(tmp_path).encode(texts)
    assert close(found, oracle(tmp_path).encode(texts))
    assert np.allclose(found[0], found[1], atol=1e-5) == lower


def test_live_bare_checkpoint(tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["mean"])
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (tmp_path / name).unlink()
    assert close(load(tmp_path).encode(TEXTS), oracle(tmp_path).encode(TEXTS))


@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        ("2_Dense/config.json", {"in_features": 31}, CheckpointError, '"in_features": 31, but .* gives 32'),
        ("3_Dense/config.json", {"out_features": 10**9}, CheckpointError, '"out_features": 1000000000'),
        ("3_Dense/config.json", {"out_features": 21}, CheckpointError, r"F32 \(20, 48\), where .* floats \(21, 48\)"),
        ("3_Dense/config.json", {"out_features": True}, CheckpointError, '"out_features": True'),
        ("3_Dense/config.json", {"bias": False}, CheckpointError, "linear.bias, linear.weight, where .* linear.weight"),
        ("3_Dense/config.json", {"use_residual": True}, CheckpointError, "residual.weight"),
        ("3_Dense/config.json", {"activation_function": "os.system"}, UnsupportedModelError, "'os.system'"),
        ("3_Dense/config.json", {"activation_function": "torch.nn.Mish"}, UnsupportedModelError, "torch's GELU, Id"),
        ("3_Dense/config.json", {"module_input_name": "token_embeddings"}, UnsupportedModelError, "token_embeddings"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, UnsupportedModelError, r"pooling by \['median'\]"),
        ("1_Pooling/config.json", {"pooling_mode": []}, UnsupportedModelError, r"pooling by \[\]"),
        ("1_Pooling/config.json", {"pooling_mode": [["mean"]]}, UnsupportedModelError, r"pooling by \[\['mean'\]\]"),
        ("1_Pooling/config.json", {"embedding_dimension": 33}, CheckpointError, '"embedding_dimension": 33'),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, CheckpointError, '"truncate_dim": 0'),
        ("config_sentence_transformers.json", {"prompts": {"a": 1}}, CheckpointError, "not names with texts"),
        ("config_sentence_transformers.json", {"prompts": [1]}, CheckpointError, "not names with texts"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, UnsupportedModelError, "'maxsim'"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, CheckpointError, "default prompt 'x'"),
    ],
)
def test_a_config_that_does_not_fit(
    place: str, change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with_modules(tmp_path, STACKS["two dense"])
    damage(tmp_path, place, change)
    with pytest.raises(error, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer", "Dense"], "has Dense after the Transformer"),
        (["Transformer", "Pooling", "LSTM"], "has the module LSTM after Pooling"),
        (["Transformer", "Pooling", "Pooling"], "has the module Pooling after Pooling"),
        (["Pooling", "Transformer"], "lists Pooling -> Transformer"),
        (["Transformer", "Transformer"], "lists Transformer -> Transformer"),
        (["Transformer", "StaticEmbedding"], "lists Transformer -> StaticEmbedding"),
        (["LSTM"], "lists LSTM"),
        ([], "lists nothing"),
    ],
)
def test_an_order_of_modules_that_is_not_there(kinds: list[str], message: str, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["mean"])
    listed = [
        {"type": f"sentence_transformers.models.{kind}", "path": "" if kind == "Transformer" else "1_Pooling"}
        for kind in kinds
    ]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UnsupportedModelError, match=message):
        load(tmp_path)


def test_weights_of_a_module_that_are_missing_or_broken(tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    path = tmp_path / "2_Dense" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="truncated"):
        load(tmp_path)
    path.rename(path.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match=r"2_Dense has no model.safetensors. It has pytorch_model.bin"):
        load(tmp_path)
