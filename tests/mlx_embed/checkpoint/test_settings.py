"""sentence_bert_config.json against sentence-transformers' vectors; keys that nobody knows, impossible values."""

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, UnsupportedModelError
from mlx_embed.checkpoint import read_checkpoint
from tests.checkpoints import read, reranker
from tests.conftest import DATA
from tests.mlx_embed.tokenizer.checkpoints import lists

FILE = "sentence_bert_config.json"
with np.load(DATA / "odd" / "transformer_settings.npz") as golden:
    META = json.loads(str(golden["meta"]))
    VECTORS = {name: golden[name] for name in golden.files if name != "meta"}
TEXTS = META["texts"]
ROWS = [str(row["keys"]) for row in META["rows"]]
# Of these sentence-transformers says nothing, fails, or makes queries of a fixed width.
REFUSED = ("modality_config", "query_expansion")
LONG = "the wing flow of heat in the boundary layer"


def change(folder: Path, **keys: Any) -> Path:
    path = folder / FILE
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | keys))
    return folder


def load(folder: Path, **options: Any) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(folder, device="cpu", **options)


def beyond(tensor: str, layers: int) -> bool:
    return tensor.startswith("encoder.layer.") and int(tensor.split(".")[2]) >= layers


@pytest.mark.filterwarnings("error::UserWarning", "ignore::mlx_embed.TruncationWarning")
@pytest.mark.parametrize("number", range(len(ROWS)), ids=ROWS)
def test_golden_settings(number: int, checkpoint: Path) -> None:
    row = META["rows"][number]
    change(checkpoint, **row["keys"])
    if str(number) not in VECTORS or "query_expansion" in row["keys"]:
        with pytest.raises(UnsupportedModelError, match=f'has "({"|".join(REFUSED)})"'):
            load(checkpoint)
        return
    if layers := row["keys"].get("config_kwargs", {}).get("num_hidden_layers"):
        tensors = {name: array for name, array in read(checkpoint).items() if not beyond(name, layers)}
        mx.save_safetensors(str(checkpoint / "model.safetensors"), tensors)
    model = load(checkpoint)
    ways = (model.encode, model.encode_query, model.encode_document)
    for way, expected in zip(ways, VECTORS[str(number)], strict=True):
        assert np.abs(way(TEXTS) - expected).max() <= 1e-5


def test_the_golden_vectors_tell_the_keys_apart() -> None:
    """Most keys change some vector; of those that change none, three are there to show just that."""
    plain = VECTORS["0"]
    same = [ROWS[int(name)] for name, vectors in VECTORS.items() if np.abs(vectors - plain).max() <= 1e-5]
    assert len(same) <= 10
    assert len(VECTORS) == 25


def test_lengths_of_queries_and_documents(checkpoint: Path) -> None:
    model = load(change(checkpoint, query_length=5, document_length=7, max_seq_length=9))
    for way, length in ((model.encode, 9), (model.encode_query, 5), (model.encode_document, 7)):
        fits = way(["the wing"], return_info=True, long_text="error")[1]
        assert not fits.truncated[0]
        with pytest.raises(ValueError, match=f"and the model takes {length}; cut it"):
            way(LONG, long_text="error")
        model._said_cut = False
        with pytest.warns(UserWarning, match=f"longer than the model's {length} tokens"):
            info = way(LONG, return_info=True)[1]
        assert (info.truncated[0], info.token_counts[0]) == (True, 11)
    assert model.max_seq_length == 9
    chunks = [
        way(LONG, long_text="mean_of_chunks", chunk_overlap=0, return_info=True)[1].chunks[0]
        for way in (model.encode, model.encode_query, model.encode_document)
    ]
    assert chunks == [2, 3, 2]


def test_a_length_beyond_the_positions_is_cut_there(checkpoint: Path) -> None:
    model = load(change(checkpoint, query_length=4000, processing_kwargs={"text": {"truncation": False}}))
    assert np.isfinite(model.encode_query("the wing " * 500, long_text="mean_of_chunks")).all()
    with pytest.raises(ValueError, match="the model takes 64"):
        model.encode_query("the wing " * 500, long_text="error")
    with pytest.raises(ValueError, match="the model takes 64"):
        load(change(checkpoint, processing_kwargs={})).encode_query("the wing " * 500, long_text="error")


@pytest.mark.parametrize("text", [{}, {"max_length": 7}])
def test_texts_that_are_not_cut(text: dict[str, int], checkpoint: Path) -> None:
    """But at the positions."""
    processing = {"text": text, "common": {"truncation": "do_not_truncate"}}
    model = load(change(checkpoint, max_seq_length=6, query_length=5, processing_kwargs=processing))
    assert model.max_seq_length == 64
    for way in (model.encode, model.encode_query, model.encode_document):
        assert not way(LONG, return_info=True)[1].truncated[0]


def test_a_length_that_leaves_no_room(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="A maximum of 2 tokens leaves no room"):
        load(change(checkpoint, query_length=2))


def test_the_users_length_wins_over_the_processors(checkpoint: Path) -> None:
    change(checkpoint, processing_kwargs={"text": {"max_length": 8}})
    assert load(checkpoint).max_seq_length == 8
    assert load(checkpoint, max_seq_length=20).max_seq_length == 20


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"pooling": "cls"}, "pooling"),
        ({"processing_kwargs": {"texts": {}}}, "processing_kwargs.texts"),
        ({"processing_kwargs": {"text": {"stride": 3}, "audio": {"x": 1}}}, "processing_kwargs.text.stride"),
        ({"model_args": {"add_pooling_layer": False, "dtype": "float16"}}, "model_kwargs.add_pooling_layer"),
        ({"a": 1, "processing_kwargs": {"common": {"b": 2}}}, "a, processing_kwargs.text.b"),
    ],
)
def test_an_unknown_key_is_named(keys: dict[str, Any], named: str, checkpoint: Path) -> None:
    with pytest.warns(UserWarning, match=rf"{FILE} has {re.escape(named)}, which mlx_embed does not know") as said:
        load(change(checkpoint, **keys))
    assert [warning.filename for warning in said] == [__file__]


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"processing_kwargs": [1]}, CheckpointError, r'"processing_kwargs": \[1\], where an object is needed'),
        ({"processing_kwargs": {"text": 3}}, CheckpointError, '"text": 3, where an object is needed'),
        ({"processing_kwargs": {"text": {"max_length": "8"}}}, CheckpointError, "\"max_length\": '8'"),
        ({"processing_kwargs": {"text": {"truncation": "only_second"}}}, UnsupportedModelError, "'only_second'"),
        (
            {"processing_kwargs": {"text": {"add_special_tokens": "no"}}},
            CheckpointError,
            "\"add_special_tokens\": 'no'",
        ),
        ({"query_length": 0}, CheckpointError, '"query_length": 0'),
        ({"document_length": True}, CheckpointError, '"document_length": True'),
        ({"tokenizer_args": "x"}, CheckpointError, "\"processor_kwargs\": 'x'"),
        ({"config_args": [3]}, CheckpointError, '"config_kwargs": .3.'),
        ({"config_args": {"model_type": "opt"}}, UnsupportedModelError, "model_type 'opt' is not supported"),
        ({"transformer_task": "text-generation"}, UnsupportedModelError, "\"transformer_task\": 'text-generation'"),
        ({"module_output_name": "sentence_embedding"}, UnsupportedModelError, '"module_output_name"'),
        ({"modality_config": {"message": {"method": "forward"}}}, UnsupportedModelError, '"modality_config"'),
    ],
)
def test_values_that_cannot_be(keys: dict[str, Any], error: type[Exception], message: str, checkpoint: Path) -> None:
    with pytest.raises(error, match=message):
        load(change(checkpoint, **keys))


def test_of_an_old_and_a_new_name_the_old_counts(checkpoint: Path) -> None:
    change(checkpoint, tokenizer_args={"model_max_length": 6}, processor_kwargs={"model_max_length": 9})
    assert read_checkpoint(checkpoint).max_seq_length == 6


def test_an_empty_file_gives_way_to_the_next(checkpoint: Path) -> None:
    (checkpoint / FILE).write_text("{}")
    (checkpoint / "sentence_roberta_config.json").write_text('{"max_seq_length": 6}')
    assert read_checkpoint(checkpoint).max_seq_length == 6


def test_what_a_reranker_reads(tmp_path: Path) -> None:
    """Its own task, lengths and processing; not the lengths of queries and documents."""
    pairs = [("the wing", LONG), (LONG, "heat")]
    folder = reranker("bert", 1, tmp_path)
    (folder / "modules.json").write_text('[{"path": "", "type": "sentence_transformers.models.Transformer"}]')
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    whole = CrossEncoder.from_pretrained(folder, device="cpu").predict(pairs)
    change(folder, transformer_task="sequence-classification", module_output_name="scores", query_length=3)
    assert np.array_equal(CrossEncoder.from_pretrained(folder, device="cpu").predict(pairs), whole)
    change(folder, processing_kwargs={"text": {"max_length": 8}})
    cut = CrossEncoder.from_pretrained(folder, device="cpu").predict(pairs)
    expected = CrossEncoder.from_pretrained(folder, device="cpu", max_seq_length=8).predict(pairs)
    assert np.array_equal(cut, expected)
    assert not np.allclose(cut, whole)
    change(folder, processing_kwargs={"text": {"add_special_tokens": False}})
    model = CrossEncoder.from_pretrained(folder, device="cpu")
    assert lists(model.tokenizer([("the wing", "heat")]))[0] == lists(model.tokenizer([("the", "wing heat")]))[0]
    (folder / "config_sentence_transformers.json").unlink()
    with pytest.raises(UnsupportedModelError, match="\"transformer_task\": 'sequence-classification'"):
        load(folder)
