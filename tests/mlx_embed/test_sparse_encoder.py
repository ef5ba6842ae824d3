"""SparseEncoder against sentence-transformers: golden vectors, and live."""

import json
import pickle
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import CheckpointError, SparseEncoder, SparseVectors, UnsupportedModelError, convert
from mlx_embed.sparse_vectors import sparsified
from tests import oracles
from tests.checkpoints import damage, decoder, edit, encoder, read, rename
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import needs_transformers
from tests.sparse import CASES, METHODS, TEXTS, make

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
TABLE = "query_0_SparseStaticEmbedding"
ENGINES = ["reference", *(["native"] if cpu.available() else [])]


def load(folder: Path, **options: Any) -> SparseEncoder:
    return SparseEncoder.from_pretrained(folder, device="cpu", **options)


def oracle(folder: Path) -> Any:
    sentence_transformers = oracles.sentence_transformers()
    return sentence_transformers.SparseEncoder(str(folder), device="cpu")


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """The values within 1e-5 of the largest, and the same places above 1e-3."""
    near = np.abs(found - expected).max() <= 1e-5 * max(1, expected.max())
    return found.shape == expected.shape and bool(near and ((found > 1e-3) == (expected > 1e-3)).all())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    return load(make(tmp_path_factory.mktemp("bert"), "bert"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, engine: str, tmp_path: Path) -> None:
    model = load(make(tmp_path, name), engine=engine)
    with np.load(DATA / "sparse.npz") as file:
        for method in METHODS:
            assert close(getattr(model, method)(TEXTS).dense(), file[f"{name}: {method}"]), method


@pytest.mark.parametrize("name", CASES)
def test_live(name: str, tmp_path: Path) -> None:
    theirs = oracle(make(tmp_path, name))
    ours = load(tmp_path)
    for method in METHODS:
        expected = getattr(theirs, method)(TEXTS).to_dense().numpy()
        assert close(getattr(ours, method)(TEXTS).dense(), expected), method


def test_live_decode_similarity_and_intersection(tmp_path: Path) -> None:
    theirs = oracle(make(tmp_path, "bert"))
    ours = load(tmp_path)
    a, b = ours.encode_query(TEXTS[:2]), ours.encode_document(TEXTS)
    c, d = theirs.encode_query(TEXTS[:2]), theirs.encode_document(TEXTS)
    for name in ("dot", "cosine"):
        ours.similarity_fn_name = theirs.similarity_fn_name = name
        assert np.abs(ours.similarity(a, b) - theirs.similarity(c, d).numpy()).max() <= 1e-4
    for found, expected in zip(ours.decode(b, top_k=4), theirs.decode(d, top_k=4), strict=True):
        assert [token for token, _ in found] == [token for token, _ in expected]
        assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected], abs=1e-5)
    shared = ours.intersection(a[0], b)
    assert isinstance(shared, SparseVectors)
    assert close(shared.dense(), theirs.intersection(c[0], d).to_dense().numpy())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["bert", "sum"])
def test_batches_change_nothing(name: str, engine: str, tmp_path: Path) -> None:
    model = load(make(tmp_path, name), engine=engine)
    whole = model.encode(TEXTS).dense()
    for options in ({"batch_tokens": 7}, {"batch_size": 1}):
        assert close(model.encode(iter(TEXTS), **options).dense(), whole)
    for text, row in zip(TEXTS, whole, strict=True):
        vector = model.encode(text)
        assert close(SparseVectors.of([vector], model.dimension).dense()[0], row)


def test_max_active_dims_keeps_the_largest(model: SparseEncoder) -> None:
    whole, few = model.encode(TEXTS).dense(), model.encode(TEXTS, max_active_dims=5)
    for vector, row in zip(few, whole, strict=True):
        assert len(vector.indices) == 5
        assert (np.diff(vector.indices) > 0).all()
        assert set(vector.indices.tolist()) == set(np.argsort(-row)[:5].tolist())
        assert np.abs(row[vector.indices] - vector.values).max() <= 1e-6


def test_the_largest_are_those_farthest_from_zero() -> None:
    """As sentence-transformers has it: a table of tokens' weights may hold some below 0."""
    [vector] = sparsified(np.array([[1, 0, -3, 2]], dtype=np.float32), 2)
    assert (vector.indices.tolist(), vector.values.tolist()) == ([2, 3], [-3, 2])


def test_vectors_are_a_csr_matrix(model: SparseEncoder) -> None:
    pytest.importorskip("scipy")
    vectors = model.encode(TEXTS)
    assert (vectors.scipy().toarray() == vectors.dense()).all()
    assert vectors.scipy().shape == (len(TEXTS), model.dimension)


def test_some_of_the_rows(model: SparseEncoder) -> None:
    vectors = model.encode(TEXTS)
    assert (vectors[1:4].dense() == vectors.dense()[1:4]).all()
    assert (vectors.values != 0).all()


def test_no_texts_and_one(model: SparseEncoder) -> None:
    assert len(model.encode([])) == 0
    assert model.encode([]).dense().shape == (0, model.dimension)
    assert model.similarity(model.encode("heat"), model.encode(TEXTS)).shape == (1, len(TEXTS))
    assert model.similarity(model.encode([]), model.encode(TEXTS)).shape == (0, len(TEXTS))
    assert model.decode(model.encode("heat"), top_k=2)[0][1] >= model.decode(model.encode("heat"), top_k=2)[1][1]


def test_a_copy_gives_the_same(model: SparseEncoder) -> None:
    model.max_active_dims = 3
    try:
        copy = pickle.loads(pickle.dumps(model))
        assert copy.max_active_dims == 3
        assert (copy.encode("heat").values == model.encode("heat").values).all()
    finally:
        model.max_active_dims = None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_active_dims": 0}, ValueError, "max_active_dims"),
        ({"prompt_name": "none"}, ValueError, "none"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"sentences": []}, TypeError, "sentences"),
        ({"texts": ["a", 1]}, TypeError, r"texts\[1\]"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str, model: SparseEncoder) -> None:
    with pytest.raises(error, match=message):
        model.encode(**{"texts": "heat", **options})
    with pytest.raises(ValueError, match="top_k"):
        model.decode(model.encode("heat"), top_k=0)


@pytest.mark.parametrize(
    "given", ["heat", [], None, np.zeros((2, 120), np.float32)], ids=["text", "list", "none", "dense"]
)
def test_what_are_no_sparse_vectors(given: Any, model: SparseEncoder) -> None:
    one = model.encode("heat")
    calls: list[Any] = [
        lambda: model.similarity(given, one),
        lambda: model.similarity(one, given),
        lambda: model.decode(given),
        lambda: model.intersection(one, given),
        lambda: model.intersection(given, one),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=rf"{type(given).__name__}.*, where (SparseVectors|one SparseVector)"):
            call()


def test_vectors_of_two_models_are_not_compared(model: SparseEncoder) -> None:
    other = SparseVectors(np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 7)
    with pytest.raises(ValueError, match="120 and 7"):
        model.similarity(model.encode(TEXTS), other)


@pytest.mark.parametrize(
    ("name", "place", "change", "error", "message"),
    [
        ("bert", "1_SpladePooling/config.json", {"pooling_strategy": "mean"}, UnsupportedModelError, "max and sum"),
        ("bert", "1_SpladePooling/config.json", {"activation_function": "gelu"}, UnsupportedModelError, "relu and"),
        ("bert", "sentence_bert_config.json", {"transformer_task": "text-generation"}, UnsupportedModelError, "fill-"),
        ("bare", "config.json", {"architectures": ["BertModel"]}, UnsupportedModelError, "ForMaskedLM"),
        ("queries looked up", "router_config.json", {"structure": {"image": []}}, UnsupportedModelError, "routes"),
        ("queries looked up", "router_config.json", {"structure": None}, CheckpointError, "for which task"),
        (
            "queries looked up",
            "query_0_SparseStaticEmbedding/config.json",
            {"path": "a"},
            UnsupportedModelError,
            "JSON",
        ),
    ],
)
def test_what_is_not_there(
    name: str, place: str, change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    damage(make(tmp_path, name), place, change)
    with pytest.raises(error, match=message):
        load(tmp_path)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("most", [3, 6, 10**30])
def test_queries_that_are_looked_up_are_cut_by_their_own_tokenizer(most: int, side: str, tmp_path: Path) -> None:
    folder, words = make(tmp_path, "queries looked up"), ["wing", "the", "flow", "of", "heat", "code", "note"]
    damage(folder, "document_0_Transformer/sentence_bert_config.json", {"max_seq_length": 5})
    damage(folder, f"{TABLE}/tokenizer_config.json", {"model_max_length": most, "truncation_side": side})
    model = load(folder)
    found = model.encode_query(" ".join(words)).indices.tolist()
    kept = words[:most] if side == "right" else words[-most:]
    assert found == sorted(model.encode_query(word).indices.item() for word in kept)
    assert (model.max_seq_length, len(found)) == (5, min(most, 7))
    theirs = oracle(folder).encode_query([" ".join(words)], convert_to_sparse_tensor=False).numpy()
    assert np.flatnonzero(theirs[0]).tolist() == found


def test_a_table_that_is_too_short(tmp_path: Path) -> None:
    path = make(tmp_path, "queries looked up") / TABLE / "model.safetensors"
    mx.save_safetensors(str(path), {"weight": mx.ones(117)})
    with pytest.raises(CheckpointError, match="weights of 117 tokens, but token ids up to 117"):
        load(tmp_path)


def test_other_modules_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "bert") / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    with pytest.raises(UnsupportedModelError, match="lists Transformer; mlx_embed runs"):
        load(tmp_path)


def test_a_head_that_is_missing_or_broken(tmp_path: Path) -> None:
    tensors = read(make(tmp_path, "bert"))
    bias = "cls.predictions.bias"
    for change, message in (
        ({}, "has no tensor cls.predictions.bias"),
        ({bias: mx.zeros(119)}, "where its config.json means"),
        ({bias: mx.full(120, float("nan"))}, "NaN"),
    ):
        kept = {name: array for name, array in tensors.items() if name != bias} | change
        mx.save_safetensors(str(tmp_path / "model.safetensors"), kept)
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)


def test_an_architecture_without_a_head(tmp_path: Path) -> None:
    edit(encoder("nomic_bert", tmp_path), architectures=["NewForMaskedLM"])
    with pytest.raises(UnsupportedModelError, match="Sparse models of model_type"):
        load(tmp_path)


def test_gte_as_its_authors_wrote_it(tmp_path: Path) -> None:
    """opensearch-neural-sparse-encoding-doc-v3-gte has their names, and model_type "new"."""
    folder = make(tmp_path / "new", "gte")
    rename(folder, (r"^gte\.layers", "new.encoder.layer"), (r"^gte\.", "new."), ("lm_head.layer_norm", "lm_head.norm"))
    edit(folder, model_type="new", architectures=["NewForMaskedLM"], rope_parameters=None, rope_theta=160_000)
    with np.load(DATA / "sparse.npz") as file:
        assert close(load(folder).encode(TEXTS).dense(), file["gte: encode"])
    convert(folder, tmp_path / "converted")
    assert close(load(tmp_path / "converted").encode(TEXTS).dense(), load(folder).encode(TEXTS).dense())


def test_gte_as_transformers_writes_it(tmp_path: Path) -> None:
    """By its authors' names too, under a model_type of its own."""
    folder = make(tmp_path / "gte", "gte")
    rename(folder, (r"^gte\.layers", "gte.encoder.layer"), ("lm_head.layer_norm", "lm_head.norm"))
    with np.load(DATA / "sparse.npz") as file:
        assert close(load(folder).encode(TEXTS).dense(), file["gte: encode"])
    convert(folder, tmp_path / "converted")
    assert close(load(tmp_path / "converted").encode(TEXTS).dense(), load(folder).encode(TEXTS).dense())


def test_gte_saved_anew_by_transformers(tmp_path: Path) -> None:
    transformers = needs_transformers("gte")
    folder = make(tmp_path / "gte", "gte")
    transformers.AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    with np.load(DATA / "sparse.npz") as file:
        assert close(load(folder).encode(TEXTS).dense(), file["gte: encode"])


def decoder_of(folder: Path, *, tied: bool = True) -> Path:
    """As splade-code lies on the hub: a Qwen3 that sees both ways, whose logits are pooled."""
    decoder("qwen3", folder)
    for path in (*folder.glob("?_*"), folder / "modules.json", folder / "config_sentence_transformers.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    tensors = {f"model.{key}": array.astype(mx.float32) for key, array in read(folder).items()}
    if not tied:
        tensors["lm_head.weight"] = mx.array(np.random.default_rng(5).normal(size=(120, 32)).astype(np.float32))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    edit(folder, architectures=["Qwen3ForCausalLM"], is_causal=False, tie_word_embeddings=tied, dtype="float32")
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling/config.json").write_text('{"pooling_strategy": "max", "activation_function": "relu"}')
    sparse = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"
    kinds = {"": "sentence_transformers.base.modules.transformer.Transformer", "1_SpladePooling": sparse}
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds.items())]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder(tied: bool, engine: str, tmp_path: Path) -> None:
    """The logarithm of 1 and the largest product of a token's hidden state, with a row of the output matrix."""
    folder = decoder_of(tmp_path / "a", tied=tied)
    tensors, model = read(folder), load(folder, engine=engine)
    matrix = np.array(tensors["model.embed_tokens.weight" if tied else "lm_head.weight"])
    ids = model.tokenizer(TEXTS).ids
    states: Any = model.engine.head(_states)
    with closing(model.engine.run(model.engine.batches(ids, 4096), states, of_tokens=True)) as run:
        ((batch, hidden),) = run
    found = model.encode(TEXTS).dense()
    ends = np.cumsum(ids.lengths[batch.texts])
    for text, part in zip(batch.texts, np.split(hidden, ends[:-1]), strict=True):
        assert close(found[text], np.log1p(np.maximum(part @ matrix.T, 0).max(axis=0)))
    convert(folder, tmp_path / "b")
    assert close(load(tmp_path / "b", engine=engine).encode(TEXTS).dense(), found)


def _states(hidden: Any, cu_seqlens: Any, max_seqlen: int, parameters: Any) -> Any:
    return hidden


@pytest.mark.parametrize("tied", [True, False])
def test_live_a_decoder(tied: bool, tmp_path: Path) -> None:
    """transformers' language model, pooled as sentence-transformers' SpladePooling does it."""
    torch = pytest.importorskip("torch", reason="PyTorch oracles are not installed")
    transformers = pytest.importorskip("transformers", reason="PyTorch oracles are not installed")
    folder = decoder_of(tmp_path, tied=tied)
    theirs = transformers.Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = load(folder)
    for text, vector in zip(TEXTS, ours.encode(TEXTS).dense(), strict=True):
        (ids,) = ours.tokenizer([text]).ids.tolist()
        with torch.no_grad():
            logits = theirs(torch.tensor([ids, ids])).logits[0]
        assert close(vector, torch.log1p(torch.relu(logits)).amax(dim=0).numpy())
