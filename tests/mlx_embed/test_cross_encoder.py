"""CrossEncoder against sentence-transformers' own: golden scores, live, and bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, MLXEmbedError, UnsupportedModelError, cli, convert
from mlx_embed.checkpoint import heads
from tests import oracles
from tests.checkpoints import RERANKERS, edit, read
from tests.checkpoints import reranker as make
from tests.conftest import DATA

TOLERANCE = 1e-5
PAIRS = [
    ("the wing", "heat of the boundary layer"),
    ("a query of code", ""),
    ("", ""),
    ("note", "the wing flow " * 40),
    ("index text vector " * 20, "the wing flow " * 40),
    ("speed " * 70, "code"),
    ("naïve 日本", "model !"),
    ("heat", "heat"),
]
CASES = [*((name, 1) for name in RERANKERS), ("bert", 3), ("modernbert", 2)]


def load(folder: Path, **options: Any) -> CrossEncoder:
    return CrossEncoder.from_pretrained(folder, device="cpu", **options)


def oracle(folder: Path) -> Any:
    sentence_transformers = oracles.sentence_transformers()
    return sentence_transformers.CrossEncoder(str(folder), device="cpu")


@pytest.mark.parametrize(
    "options", [{}, {"engine": "reference"}, {"engine": "graph"}], ids=["native", "plain", "compiled"]
)
@pytest.mark.parametrize(("name", "labels"), CASES)
def test_golden_scores(name: str, labels: int, options: dict[str, Any], tmp_path: Path) -> None:
    with np.load(DATA / "cross_encoders.npz") as file:
        expected = file[f"{name} {labels}"]
    found = load(make(name, labels, tmp_path), **options).predict(PAIRS)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 5 * TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize(("name", "labels"), CASES)
def test_live(name: str, labels: int, tmp_path: Path) -> None:
    make(name, labels, tmp_path)
    words = ["the", "wing", "flow", "of", "heat", "code", "qux", "42", "!"]
    rng = np.random.default_rng()
    pairs = [tuple(" ".join(rng.choice(words, size=n)) for n in rng.integers(0, 50, size=2)) for _ in range(30)]
    model, reference = load(tmp_path), oracle(tmp_path)
    expected = reference.predict(pairs)
    assert np.abs(model.predict(pairs) - expected).max() <= 5 * TOLERANCE * max(1, np.abs(expected).max())
    if labels > 1:
        expected = reference.predict(pairs, apply_softmax=True)
        assert np.abs(model.predict(pairs, apply_softmax=True) - expected).max() <= 5 * TOLERANCE


def test_live_saved_by_sentence_transformers(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    reference = oracle(make("bert", 1, tmp_path / "a"))
    reference.save(str(tmp_path / "b"), create_model_card=False)
    assert np.abs(load(tmp_path / "b").predict(PAIRS) - reference.predict(PAIRS)).max() <= TOLERANCE


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_live_activation(config: dict[str, Any], tmp_path: Path) -> None:
    make("bert", 1, tmp_path, **config)
    expected = oracle(tmp_path).predict(PAIRS)
    model = load(tmp_path)
    assert np.abs(model.predict(PAIRS) - expected).max() <= 5 * TOLERANCE * np.abs(expected).max()
    logits = model.predict(PAIRS, activation="Identity")
    assert np.allclose(model.predict(PAIRS, activation="Sigmoid"), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_live_activation_as_sentence_transformers_6_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    reference = oracle(make("bert", 1, tmp_path / "a"))
    import torch

    reference.activation_fn = torch.nn.Tanh()
    reference.save(str(tmp_path / "b"), create_model_card=False)
    model = load(tmp_path / "b")
    assert model.activation == "Tanh"
    assert np.abs(model.predict(PAIRS) - oracle(tmp_path / "b").predict(PAIRS)).max() <= TOLERANCE


MODULES = '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]'


@pytest.mark.parametrize("modules", [True, False])
@pytest.mark.parametrize("model_type", ["CrossEncoder", "SentenceTransformer", None])
def test_live_settings_of_sentence_transformers(modules: bool, model_type: str | None, tmp_path: Path) -> None:
    """They count beside a modules.json, and where they are of a CrossEncoder."""
    make("bert", 1, tmp_path, sbert_ce_default_activation_function="torch.nn.modules.activation.Tanh")
    settings = {
        "activation_fn": "torch.nn.modules.linear.Identity",
        "prompts": {"q": "note ", "none": None},
        "default_prompt_name": "q",
    }
    own = {} if model_type is None else {"model_type": model_type}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings | own))
    if modules:
        (tmp_path / "modules.json").write_text(MODULES)
        kind = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
        kind["modality_config"] = {"text": {"method": "forward", "method_output_name": "logits"}}
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(kind))
    model, reference = load(tmp_path), oracle(tmp_path)
    assert model.activation == type(reference.activation_fn).__name__
    assert (model.prompts, model.default_prompt_name) == (reference.prompts, reference.default_prompt_name)
    expected = reference.predict(PAIRS)
    assert np.abs(model.predict(PAIRS) - expected).max() <= 5 * TOLERANCE * np.abs(expected).max()


def prompted(folder: Path) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    """The reranker with prompts that was saved by sentence-transformers 6.2: its folder, texts and scores."""
    with np.load(DATA / "odd/reranker_prompts.npz") as file:
        arrays, meta = dict(file), json.loads(str(file["meta"]))
    shutil.copytree(DATA / "tiny-bert", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("?_*"))
    tensors = {f"bert.{name}": array.astype(mx.float32) for name, array in read(folder).items()}
    head = {name.removeprefix("tensor/"): mx.array(arrays.pop(name)) for name in list(arrays) if "tensor/" in name}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | head, metadata={"format": "pt"})
    for name, content in meta["files"].items():
        (folder / name).write_text(json.dumps(content))
    del arrays["meta"]
    return folder, meta, arrays


def test_golden_prompts(tmp_path: Path) -> None:
    folder, meta, expected = prompted(tmp_path)
    model = load(folder)
    calls: dict[str, dict[str, Any]] = {
        "default": {},
        "name": {"prompt_name": "other"},
        "prompt": {"prompt": "the ", "prompt_name": "q"},
        "empty": {"prompt": ""},
        "sigmoid": {"activation": "Sigmoid"},
    }
    assert calls.keys() == expected.keys()
    for name, options in calls.items():
        assert np.abs(model.predict(meta["pairs"], **options) - expected[name]).max() <= 5 * TOLERANCE
    model.default_prompt_name = None
    assert np.abs(model.predict(meta["pairs"]) - expected["empty"]).max() <= 5 * TOLERANCE
    found = model.rank("the wing", [document for _, document in meta["pairs"]], prompt_name="other")
    assert [entry["corpus_id"] for entry in found] == [entry["corpus_id"] for entry in meta["rank"]]
    assert np.allclose([x["score"] for x in found], [x["score"] for x in meta["rank"]], atol=5 * TOLERANCE)
    convert(folder, tmp_path.parent / f"{tmp_path.name}-converted")
    again = load(tmp_path.parent / f"{tmp_path.name}-converted")
    assert np.abs(again.predict(meta["pairs"]) - expected["default"]).max() <= 5 * TOLERANCE


@pytest.mark.parametrize(("name", "labels"), CASES)
def test_conversion_keeps_the_scores(name: str, labels: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = make(name, labels, tmp_path / "a")
    expected = load(source).predict(PAIRS)
    report = convert(source, tmp_path / "b")
    assert report.logit_difference == 0
    assert np.array_equal(load(tmp_path / "b").predict(PAIRS), expected)
    # Once more, from a file that has this package's names.
    convert(tmp_path / "b", tmp_path / "c")
    assert np.array_equal(load(tmp_path / "c").predict(PAIRS), expected)
    assert (tmp_path / "b/model.safetensors").read_bytes() == (tmp_path / "c/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"dtype": "float16"}, 0.01),
        ({"dtype": "bfloat16"}, 0.05),
        ({"quantize": 8, "group_size": 32}, 0.1),
        ({"quantize": 4, "group_size": 32, "dtype": "float16"}, 1.0),
    ],
)
def test_conversion_to_fewer_bits(options: dict[str, Any], tolerance: float, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = make("mpnet", 1, tmp_path / "a")
    expected = load(source).predict(PAIRS, activation="Identity")
    report = convert(source, tmp_path / "b", **options)
    assert report.logit_difference is not None
    largest = np.abs(expected).max()
    assert 0 < report.logit_difference <= tolerance * largest
    found = load(tmp_path / "b").predict(PAIRS, activation="Identity")
    assert 0 < np.abs(found - expected).max() <= tolerance * largest
    stored = {str(x.dtype) for x in mx.load(str(tmp_path / "b/model.safetensors")).values()}
    assert ("mlx.core.uint32" in stored) == ("quantize" in options)
    assert (f"mlx.core.{options.get('dtype', 'float32')}") in stored


def test_conversion_of_what_is_no_reranker(tmp_path: Path) -> None:
    assert convert(DATA / "tiny-bert", tmp_path / "a").logit_difference is None


def test_a_conversion_with_other_scores_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    source = make("bert", 1, tmp_path / "a")
    arrays = heads.head_arrays
    broken = lambda *given: {name: array * 2 for name, array in arrays(*given).items()}  # noqa: E731
    monkeypatch.setattr(heads, "head_arrays", broken)
    with pytest.raises(
        MLXEmbedError, match=r"scores differ from the source's \(logits by up to .*; nothing was written"
    ):
        convert(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_reranker_is_not_evaluated_on_retrieval(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "data").mkdir()
    for file in ("docs.jsonl", "queries.jsonl"):
        (tmp_path / "data" / file).write_text('{"id": 1, "text": "the wing"}')
    with pytest.raises(ValueError, match="is a reranker; evaluate measures what embedding models find"):
        convert(make("bert", 1, tmp_path / "a"), tmp_path / "b", evaluate=tmp_path / "data")


def test_the_command_on_a_reranker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    source = make("bert", 1, tmp_path / "a")
    assert cli.main(["convert", str(source), str(tmp_path / "b"), "--dtype", "float16"]) == 0
    assert "largest difference of a logit from the original's, over sample pairs: 0.0" in capsys.readouterr().out


def test_live_rank(tmp_path: Path) -> None:
    make("bert", 1, tmp_path)
    documents = [document for _, document in PAIRS]
    model, reference = load(tmp_path), oracle(tmp_path)
    for options in ({}, {"top_k": 3}, {"return_documents": True, "top_k": 100}):
        found = model.rank("the wing", documents, **options)
        expected = reference.rank("the wing", documents, **options)
        assert [x["corpus_id"] for x in found] == [x["corpus_id"] for x in expected]
        assert [x.get("text") for x in found] == [x.get("text") for x in expected]
        assert np.allclose([x["score"] for x in found], [x["score"] for x in expected], atol=TOLERANCE)
    assert model.rank("the wing", []) == []


def test_modernbert_by_the_mean(tmp_path: Path) -> None:
    make("modernbert", 1, tmp_path, classifier_pooling="mean")
    expected = oracle(tmp_path).predict(PAIRS)
    assert np.abs(load(tmp_path).predict(PAIRS) - expected).max() <= TOLERANCE


def test_token_types_count(tmp_path: Path) -> None:
    """The second text's tokens are of type 1: with one type for all the scores would be others."""
    make("bert", 1, tmp_path)
    expected = load(tmp_path).predict(PAIRS)
    tensors = read(tmp_path)
    table = tensors["bert.embeddings.token_type_embeddings.weight"]
    tensors["bert.embeddings.token_type_embeddings.weight"] = mx.stack([table[0], table[0]])
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    assert np.abs(load(tmp_path).predict(PAIRS) - expected).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"tokenizer_class": "BertTokenizerFast"},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"tokenizer_class": "ElectraTokenizer"},
        {"tokenizer_class": "LayoutLMTokenizerFast"},
        {"tokenizer_class": "MobileBertTokenizer"},
        {"tokenizer_class": "ConvBertTokenizer"},
        {"tokenizer_class": "DPRReaderTokenizer"},
        {"tokenizer_class": "DistilBertTokenizer"},
        {"tokenizer_class": "RetriBertTokenizer"},
        {"tokenizer_class": None},
        {"model_input_names": ["input_ids", "attention_mask"]},
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        },
    ],
)
def test_live_token_types_by_tokenizer(tokenizer: dict[str, Any], tmp_path: Path) -> None:
    make("bert", 1, tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text()) | tokenizer
    config.pop("backend", None)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    assert np.abs(load(tmp_path).predict(PAIRS) - oracle(tmp_path).predict(PAIRS)).max() <= 5 * TOLERANCE


def test_single_pairs_order_and_batches(tmp_path: Path) -> None:
    model = load(make("bert", 1, tmp_path))
    expected = model.predict(PAIRS)
    assert np.allclose([model.predict(pair) for pair in PAIRS], expected, atol=TOLERANCE)
    assert model.predict(list(PAIRS[0])).shape == ()
    assert np.allclose(model.predict(iter(PAIRS), batch_tokens=1), expected, atol=TOLERANCE)
    assert model.predict([]).shape == (0,)
    assert np.isfinite(model.predict([("\ud800", "\0"), ("a" * 10_000, "\U0001f600")])).all()


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), ("a", 1), None, 3])
def test_something_that_is_no_pair(pair: Any, tmp_path: Path) -> None:
    model = load(make("bert", 1, tmp_path))
    with pytest.raises(TypeError, match=r"pairs\[1\] is"):
        model.predict([("a", "b"), pair, ("a", "b")])


def test_bad_options(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    model = load(make("bert", 1, tmp_path / "a"))
    with pytest.raises(ValueError, match="activation 'Softmax' is not one of GELU"):
        model.predict(PAIRS, activation="Softmax")
    with pytest.raises(ValueError, match="activation and activation_fn are the same"):
        model.predict(PAIRS, activation="Tanh", activation_fn="Tanh")
    with pytest.raises(ValueError, match="prompt_name 'q' is not among the model's prompts: none"):
        model.predict(PAIRS, prompt_name="q")
    with pytest.raises(TypeError, match="prompt is an int"):
        model.rank("a", ["b"], prompt=3)
    with pytest.raises(ValueError, match="batch_size 0 is not a positive number of pairs"):
        model.rank("a", ["b"], batch_size=0)
    with pytest.raises(TypeError, match="rank has no option 'batch_sizes'; did you mean 'batch_size'"):
        model.rank("a", ["b"], batch_sizes=1)
    for options in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
        with pytest.raises(ValueError, match="predict returns numpy arrays"):
            model.predict(PAIRS, **options)
    with pytest.raises(ValueError, match="top_k 0"):
        model.rank("a", ["b"], top_k=0)
    with pytest.raises(ValueError, match="batch_tokens 0"):
        model.predict(PAIRS, batch_tokens=0)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="has 3 labels, and cannot rank; use predict"):
        load(make("bert", 3, tmp_path / "b")).rank("a", ["b"])


def test_checkpoints_that_are_no_rerankers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tensor classifier.weight"):
        load(DATA / "tiny-bert")
    make("bert", 2, tmp_path)
    edit(tmp_path, id2label={"0": "a"})
    with pytest.raises(CheckpointError, match="names 1 labels, but the classifier has 2"):
        load(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"id2label": None, "sentence_transformers": {"activation_fn": "os.abort"}}
    path.write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=r"activation 'os\.abort'"):
        load(tmp_path)
