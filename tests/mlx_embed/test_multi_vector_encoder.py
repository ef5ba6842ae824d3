"""MultiVectorEncoder against sentence-transformers and PyLate: golden scores, and live vectors."""

import json
import pickle
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import CheckpointError, EmbeddingModel, MultiVectorEncoder, MultiVectors, UnsupportedModelError
from mlx_embed.checkpoint.multi_vector import Clustering, read_multi_vector
from mlx_embed.multi_vectors import clustered
from tests import oracles
from tests.checkpoints import damage, decoder, edit, encoder, read
from tests.conftest import DATA
from tests.multi_vector import CASES, EXPANSION, METHODS, TEXTS, make

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
# What differs between engines: how tokens are hidden, and the heads.
ON_GRAPHS = (
    *("sentence-transformers", "at least so long", "two dense", "modernbert", "modernbert, narrow", "mpnet", "roberta"),
    "stanford",
)
ENGINES = ["reference", *(["native"] if cpu.available() else [])]


def load(folder: Path, **options: Any) -> MultiVectorEncoder:
    return MultiVectorEncoder.from_pretrained(folder, device="cpu", **options)


def oracle(folder: Path) -> Any:
    return oracles.sentence_transformers().MultiVectorEncoder(str(folder), device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MultiVectorEncoder:
    return load(make(tmp_path_factory.mktemp("own"), "sentence-transformers"))


@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, engine) for name in CASES for engine in ENGINES if engine == ENGINES[-1] or name in ON_GRAPHS],
)
def test_golden(name: str, engine: str, tmp_path: Path) -> None:
    model = load(make(tmp_path, name), engine=engine)
    queries, documents, texts = model.encode_query(TEXTS), model.encode_document(TEXTS), model.encode(TEXTS)
    # Their score of a document without vectors.
    scores = np.maximum(model.similarity(queries, documents), -1e9)
    with np.load(DATA / "multi_vector.npz") as file:
        assert [[len(text) for text in found] for found in (queries, documents)] == file[f"{name}: lengths"].tolist()
        assert np.abs(scores - file[name]).max() <= 1e-4
        few = np.maximum(model.similarity(texts[:3], texts[:3]), -1e9)
        assert np.abs(few - file[f"{name}: encode"]).max() <= 1e-4
        if name.startswith("pylate"):
            theirs = file[f"{name}: PyLate"]
            assert np.abs(scores - theirs).max() <= 1e-4
            assert (np.argsort(-scores) == np.argsort(-theirs)).all()


@pytest.mark.parametrize("name", CASES)
def test_live(name: str, tmp_path: Path) -> None:
    theirs = oracle(make(tmp_path, name))
    ours = load(tmp_path)
    for method in METHODS:
        found, expected = getattr(ours, method)(TEXTS), getattr(theirs, method)(TEXTS, convert_to_numpy=True)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape, method
            if name == "clustered":  # theirs are in another order
                a, b = (rows[np.lexsort(np.round(rows, 3).T)] for rows in (a, b))
            assert np.abs(a - b).max(initial=0) <= 1e-5, method


def test_live_pooling_of_a_call(tmp_path: Path) -> None:
    theirs = oracle(make(tmp_path, "sentence-transformers"))
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    found = load(tmp_path).encode_document(TEXTS, pool_factor=3)
    expected = theirs.encode_document(TEXTS, token_pooling=HierarchicalTokenPooling(3.0), convert_to_numpy=True)
    for a, b in zip(found, expected, strict=True):
        a, b = (rows[np.lexsort(np.round(rows, 3).T)] for rows in (a, b))
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-5


def test_real_weights(minilm: EmbeddingModel, tmp_path: Path) -> None:
    """Stanford's layout of a real model, whose projection keeps some of its dimensions."""
    folder = tmp_path
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((minilm.checkpoint.transformer / name).read_bytes())
    tensors = read(minilm.checkpoint.transformer)
    named = {f"bert.{key}": array for key, array in tensors.items()} | {"linear.weight": mx.eye(384)[:128]}
    mx.save_safetensors(str(folder / "model.safetensors"), named, {"format": "pt"})
    edit(folder, architectures=["HF_ColBERT"])
    model = load(folder)
    queries, documents = ["How do wings stall?"], ["A wing stalls at a high angle of attack.", "Soup of lentils."]
    a, b = model.encode_query(queries), model.encode_document(documents)
    assert a.shape == (1, 32, 128)
    found = model.similarity(a, b)
    assert found == pytest.approx(np.array([[(a[0] @ text.T).max(axis=1).sum() for text in b]]), abs=1e-4)
    assert found[0, 0] > found[0, 1]
    assert found == pytest.approx(oracle(folder).similarity(*_of(oracle(folder), queries, documents)).numpy(), abs=1e-4)


def _of(theirs: Any, queries: list[str], documents: list[str]) -> tuple[Any, Any]:
    return theirs.encode_query(queries), theirs.encode_document(documents)


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_change_nothing(engine: str, tmp_path: Path) -> None:
    model = load(make(tmp_path, "at least so long"), engine=engine)
    for method in METHODS:
        encode = getattr(model, method)
        whole = encode(TEXTS)
        for options in ({"batch_tokens": 7}, {"batch_size": 1}):
            for a, b in zip(encode(iter(TEXTS), **options), whole, strict=True):
                assert np.abs(a - b).max() <= 1e-5
        for text, row in zip(TEXTS, whole, strict=True):
            assert np.abs(encode(text) - row).max() <= 1e-5


def test_queries_of_one_length_are_a_block(model: MultiVectorEncoder) -> None:
    queries = model.encode_query(TEXTS)
    assert isinstance(queries, np.ndarray)
    assert queries.shape == (len(TEXTS), 12, 16)
    assert model.encode_query([]).shape == (0, 12, 16)
    assert model.encode_query("heat").shape == (12, 16)
    documents = model.encode_document(TEXTS)
    assert isinstance(documents, MultiVectors)
    assert documents.offsets[-1] == len(documents.vectors)
    assert len(documents[1:4]) == 3
    assert (documents[1:4][0] == documents[1]).all()
    assert (documents[-1] == documents[len(TEXTS) - 1]).all()
    assert len(model.encode_document([])) == 0
    assert np.linalg.norm(documents.vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_similarity_takes_any_form(model: MultiVectorEncoder) -> None:
    queries, documents = model.encode_query(TEXTS), model.encode_document(TEXTS)
    expected = np.array([[(a @ b.T).max(axis=1).sum() for b in documents] for a in queries])
    for a in (queries, list(queries), MultiVectors.of(queries)):
        assert model.similarity(a, documents) == pytest.approx(expected, abs=1e-5)
    assert model.similarity(queries[2], list(documents)) == pytest.approx(expected[2:3], abs=1e-5)
    assert model.similarity(queries, documents[0:0]).shape == (len(TEXTS), 0)
    try:
        model.similarity_fn_name = "meanmaxsim"
        assert model.similarity(queries, documents) == pytest.approx(expected / 12, abs=1e-6)
    finally:
        model.similarity_fn_name = "maxsim"


def test_rank(model: MultiVectorEncoder) -> None:
    documents = ["heat", "the wing", "the wing of heat", "code"]
    scores = model.similarity(model.encode_query("the wing"), model.encode_document(documents))[0]
    ranked = model.rank("the wing", documents, top_k=3, return_documents=True)
    assert [entry["corpus_id"] for entry in ranked] == np.argsort(-scores)[:3].tolist()
    assert [entry["text"] for entry in ranked] == [documents[entry["corpus_id"]] for entry in ranked]
    vectors = model.encode_document(documents)
    assert isinstance(vectors, MultiVectors)
    assert model.rank("the wing", vectors, top_k=3) == [
        {key: entry[key] for key in ("corpus_id", "score")} for entry in ranked
    ]


def test_a_copy_gives_the_same(model: MultiVectorEncoder) -> None:
    model.similarity_fn_name = "meanmaxsim"
    try:
        copy = pickle.loads(pickle.dumps(model))
        assert copy.similarity_fn_name == "meanmaxsim"
        assert (copy.encode_document("heat") == model.encode_document("heat")).all()
    finally:
        model.similarity_fn_name = "maxsim"


def test_clusters_are_of_what_is_near() -> None:
    rng = np.random.default_rng()
    centres = np.eye(8, dtype=np.float32)[:5]
    groups = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 4, 5]))
    vectors = centres[groups] + 0.01 * rng.normal(size=(15, 8)).astype(np.float32)
    found = clustered(vectors, Clustering(3.0, protected=0))
    _, firsts = np.unique(groups, return_index=True)
    expected = np.stack([vectors[groups == group].mean(axis=0) for group in groups[np.sort(firsts)]])
    assert found == pytest.approx(expected, abs=1e-6)
    assert clustered(vectors[:3], Clustering(9.0, protected=1)).shape == (2, 8)
    assert clustered(vectors[:0], Clustering(9.0, protected=1)).shape == (0, 8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pool_factor": 0.5}, ValueError, "pool_factor"),
        ({"prompt_name": "none"}, ValueError, "none"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"task": "passage"}, ValueError, "passage"),
        ({"inputs": []}, TypeError, "inputs"),
        ({"texts": ["a", 1]}, TypeError, r"texts\[1\]"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str, model: MultiVectorEncoder) -> None:
    with pytest.raises(error, match=message):
        model.encode(**{"texts": "heat", **options})


def test_what_cannot_be_compared(model: MultiVectorEncoder) -> None:
    with pytest.raises(ValueError, match="16 and 7"):
        model.similarity(model.encode("heat"), np.zeros((3, 7)))
    with pytest.raises(ValueError, match="an array"):
        model.similarity(np.zeros(3), np.zeros((3, 7)))
    for given in ("wing", None, 3, {"wing": 1}, ["wing"], [None]):
        with pytest.raises(TypeError, match=r"where (vectors|numbers) are needed"):
            model.similarity(model.encode("heat"), given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pass \\[document\\]"):
        model.rank("heat", "wing")
    with pytest.raises(ValueError, match="top_k"):
        model.rank("heat", ["wing"], top_k=0)
    with pytest.raises(ValueError, match="strings, and not vectors"):
        model.rank("heat", MultiVectors.of([model.encode("wing")]), return_documents=True)
    with pytest.raises(ValueError, match="pool_factor: only of documents that are strings"):
        model.rank("heat", MultiVectors.of([model.encode("wing")]), pool_factor=2)
    for name in ("prompt", "prompt_name"):  # it would be that of documents alone
        with pytest.raises(TypeError, match=f"rank has no option '{name}'"):
            model.rank("heat", ["wing"], **{name: "a "})


def test_no_texts_have_vectors_of_the_models_length(model: MultiVectorEncoder) -> None:
    vectors = model.encode_document(["the wing", "heat"])
    for none in (vectors[:0], vectors[2:], model.encode_document([]), model.encode_document([])[:0]):
        assert (len(none), none.vectors.shape) == (0, (0, 16))
        assert np.concatenate([none.vectors, vectors.vectors]).shape == vectors.vectors.shape


@pytest.mark.parametrize(
    ("name", "place", "change", "error", "message"),
    [
        (
            "sentence-transformers",
            "sentence_bert_config.json",
            {"query_expansion": {**EXPANSION, "strategy": "all"}},
            CheckpointError,
            "fixed",
        ),
        (
            "sentence-transformers",
            "sentence_bert_config.json",
            {"query_expansion": {**EXPANSION, "length": 65}},
            CheckpointError,
            "takes 64",
        ),
        (
            "sentence-transformers",
            "sentence_bert_config.json",
            {"query_expansion": {**EXPANSION, "token": "no"}},
            CheckpointError,
            "no mask token",
        ),
        ("clustered", "4_HierarchicalTokenPooling/config.json", {"pool_factor": 0}, CheckpointError, "pool_factor"),
        ("some tokens kept", "2_MultiVectorMask/config.json", {"keep_only_token_ids": ["a"]}, CheckpointError, "ids"),
        ("pylate", "config_sentence_transformers.json", {"query_prefix": 3}, CheckpointError, "query_prefix"),
        ("pylate", "config_sentence_transformers.json", {"prompts": "the"}, CheckpointError, "names with texts"),
        ("stanford", "artifact.metadata", {"doc_maxlen": "long"}, CheckpointError, "doc_maxlen"),
        ("stanford", "tokenizer_config.json", {"padding_side": "left"}, UnsupportedModelError, "in front of queries"),
    ],
)
def test_what_is_wrong(
    name: str, place: str, change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    damage(make(tmp_path, name), place, change)
    with pytest.raises(error, match=message):
        load(tmp_path)


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="no model of a vector a token"):
        load(encoder("bert", tmp_path / "dense"))
    folder = make(tmp_path / "pooled", "sentence-transformers")
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    listed[1]["type"] = "sentence_transformers.models.Pooling"
    path.write_text(json.dumps(listed))
    with pytest.raises(UnsupportedModelError, match="Transformer -> Pooling"):
        load(folder)
    folder = decoder("qwen3", tmp_path / "decoder")
    listed = json.loads((folder / "modules.json").read_text())[:1]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "MultiVectorEncoder"}')
    (folder / "sentence_bert_config.json").write_text(json.dumps({"query_expansion": EXPANSION}))
    with pytest.raises(UnsupportedModelError, match="in front of queries, for its padding is on the left"):
        load(folder)
    folder = encoder("deberta-v2", tmp_path / "deberta")
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).write_bytes((tmp_path / "decoder" / name).read_bytes())
    with pytest.raises(UnsupportedModelError, match="to which the others do not attend; in DeBERTa"):
        load(folder)
    damage(folder, "sentence_bert_config.json", {"query_expansion": {**EXPANSION, "attend": True}})
    assert load(folder).encode_query("wing").shape == (12, 32)


def test_pylates_settings_in_another_form(tmp_path: Path) -> None:
    """The older name of one, and prompts that begin with the marker already."""
    folder = make(tmp_path, "pylate, attended")
    before = read_multi_vector(folder)
    path = folder / "config_sentence_transformers.json"
    said = json.loads(path.read_text())
    said["attend_to_mask_tokens"] = said.pop("attend_to_expansion_tokens")
    path.write_text(json.dumps(said | {"prompts": {"query": "[Q] ", "document": "[D] "}}))
    after = read_multi_vector(folder)
    assert after.expansion == before.expansion
    assert after.sentence["prompts"] == before.sentence["prompts"] == {"query": "[Q] ", "document": "[D] "}


def test_stanfords_projection_is_missing(tmp_path: Path) -> None:
    folder = make(tmp_path, "stanford")
    tensors = {name: array for name, array in read(folder).items() if name != "linear.weight"}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError, match=r"no tensor linear\.weight"):
        load(folder)
