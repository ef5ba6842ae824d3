"""What may be changed on a loaded model, and vectors that are cut: sentence-transformers' numbers, golden and live."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, TruncationWarning
from tests import oracles
from tests.checkpoints import reranker
from tests.conftest import DATA

TOLERANCE = 1e-5
TEXTS = ["the wing flow of heat in the boundary layer", "note", "code index " * 30]
FILE = "config_sentence_transformers.json"


@pytest.fixture
def model(checkpoint: Path) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def theirs(folder: Path) -> Any:
    sentence_transformers = oracles.sentence_transformers()
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def configure(folder: Path, **changes: Any) -> None:
    path = folder / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_golden_cut_vectors(model: EmbeddingModel, checkpoint: Path) -> None:
    with np.load(DATA / "odd/truncated.npz") as file:
        texts = json.loads(str(file["meta"]))["texts"]
        cut, unit, configured = file["plain"], file["normalized"], file["from_config"]
    assert np.linalg.norm(cut, axis=1).max() < 0.4
    found = model.encode(texts, truncate_dim=8, normalize_embeddings=False)
    assert np.abs(found - cut).max() <= TOLERANCE
    assert found.flags.c_contiguous, "not a view of the whole vectors"
    for kept in (None, True):
        assert np.abs(model.encode(texts, truncate_dim=8, normalize_embeddings=kept) - unit).max() <= TOLERANCE
    configure(checkpoint, truncate_dim=8)
    again = EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    assert np.abs(again.encode(texts, normalize_embeddings=False) - configured).max() <= TOLERANCE


@pytest.mark.parametrize("dim", [None, 1, 31, 32])
@pytest.mark.parametrize("engine", ["auto", "graph"])
def test_live_cut_vectors(engine: Any, dim: int | None, checkpoint: Path) -> None:
    model = EmbeddingModel.from_pretrained(checkpoint, device="cpu", engine=engine)
    expected = theirs(checkpoint).encode(TEXTS, truncate_dim=dim)
    found = model.encode(TEXTS, truncate_dim=dim, normalize_embeddings=False)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


def test_chunks_of_cut_vectors(model: EmbeddingModel) -> None:
    """The mean is scaled to length 1 whole, and then cut, as a single vector is."""
    model.max_seq_length = 12
    options: dict[str, Any] = {"long_text": "mean_of_chunks", "normalize_embeddings": False}
    whole, info = model.encode(TEXTS, return_info=True, **options)
    assert info.chunks.max() > 1
    assert np.abs(np.linalg.norm(whole, axis=1) - 1).max() <= TOLERANCE
    assert np.abs(model.encode(TEXTS, truncate_dim=8, **options) - whole[:, :8]).max() <= TOLERANCE


def test_live_max_seq_length(model: EmbeddingModel, checkpoint: Path) -> None:
    reference = theirs(checkpoint)
    for length in (9, 4, 64):
        model.max_seq_length = reference.max_seq_length = length
        assert model.max_seq_length == length
        assert np.abs(model.encode(TEXTS) - reference.encode(TEXTS)).max() <= TOLERANCE
        _, info = model.encode(TEXTS, return_info=True)
        assert info.truncated.tolist() == [count > length for count in info.token_counts]
    model.max_seq_length = np.int64(7)
    assert model.max_seq_length == 7
    model.max_seq_length = None
    assert model.max_seq_length == 64


def test_a_new_length_is_warned_about_anew(model: EmbeddingModel) -> None:
    for length in (9, 5):
        model.max_seq_length = length
        with pytest.warns(TruncationWarning, match=f"{length} tokens"):
            model.encode(TEXTS)


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (0, ValueError, "max_seq_length 0 is not within 1..64"),
        (65, ValueError, "max_seq_length 65 is not within 1..64"),
        (2, CheckpointError, "leaves no room"),
        (2.5, TypeError, "float"),
        ("9", TypeError, "str"),
    ],
)
def test_lengths_that_cannot_be(length: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    for model in (
        EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu"),
        CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path), device="cpu"),
    ):
        with pytest.raises(error, match=message):
            model.max_seq_length = length
        assert model.max_seq_length == 64


def test_live_settings(model: EmbeddingModel, checkpoint: Path) -> None:
    """Set on sentence-transformers' model, and on this."""
    reference = theirs(checkpoint)
    for changed in (model, reference):
        changed.prompts["heat"] = "heat of the "
        changed.default_prompt_name = "heat"
        changed.truncate_dim = 8
        changed.similarity_fn_name = "euclidean"
    assert model.dimension == reference.get_embedding_dimension() == 8
    expected = reference.encode(TEXTS)
    found = model.encode(TEXTS, normalize_embeddings=False)
    assert np.abs(found - expected).max() <= TOLERANCE
    assert (
        np.abs(model.similarity(found, found[:2]) - reference.similarity(expected, expected[:2]).numpy()).max() <= 1e-3
    )
    assert model.encode(TEXTS, truncate_dim=32).shape == (3, 32)
    model.truncate_dim = 33
    with pytest.raises(ValueError, match=r"truncate_dim 33 is not within 1\.\.32"):
        model.encode(TEXTS)
    model.default_prompt_name = "cold"
    with pytest.raises(ValueError, match="prompt_name 'cold' is not among"):
        model.encode(TEXTS, truncate_dim=8)


@pytest.mark.parametrize(
    "prompts", [{"own": "code: "}, {"own": "code: ", "query": "heat: "}, {"own": "", "corpus": "x"}]
)
@pytest.mark.parametrize("method", ["encode", "encode_query"])
def test_live_the_default_prompt(method: str, prompts: dict[str, str], checkpoint: Path) -> None:
    """It is for `encode`: a query without a prompt of its own gets none."""
    configure(checkpoint, prompts=prompts, default_prompt_name="own")
    expected = getattr(theirs(checkpoint), method)(TEXTS)
    found = getattr(EmbeddingModel.from_pretrained(checkpoint, device="cpu"), method)(TEXTS)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_documents_without_a_prompt_of_their_own(model: EmbeddingModel) -> None:
    model.prompts, model.default_prompt_name = {"own": "code: "}, "own"
    assert np.array_equal(model.encode_document(TEXTS), model.encode(TEXTS, prompt=""))
    assert np.abs(model.encode_document(TEXTS) - model.encode(TEXTS)).max() > 1e-3


def test_prompts_that_were_set(model: EmbeddingModel) -> None:
    """None is none, as in a checkpoint."""
    model.prompts = {"query": None, "none": None, "number": 5}  # type: ignore[dict-item]
    plain = model.encode(TEXTS[0], prompt="")
    assert np.array_equal(model.encode_query(TEXTS[0]), plain)
    assert np.array_equal(model.encode(TEXTS[0], prompt_name="none"), plain)
    with pytest.raises(TypeError, match="The prompt 'number' is an int, where a string is needed"):
        model.encode(TEXTS[0], prompt_name="number")


@pytest.mark.parametrize("prompts", [None, "query: ", [("query", "heat of ")]])
def test_prompts_that_are_no_mapping(prompts: Any, model: EmbeddingModel) -> None:
    """Which were none in silence."""
    model.prompts = prompts
    message = f"prompts is a {type(prompts).__name__}, where a mapping of names to texts is needed"
    for call in (
        lambda: model.encode_query(TEXTS),
        lambda: model.encode(TEXTS, prompt_name="query"),
        lambda: model.begin(TEXTS, "document"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
