"""sentence-transformers' names are errors that give this package's."""

import pydoc
from collections.abc import Callable
from typing import Any

import pytest

import mlx_embed
from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.migration import ATTRIBUTES, OPTIONS
from mlx_embed.options import ENCODE, LOAD
from tests.checkpoints import reranker
from tests.conftest import DATA


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(["a"], precision="int8"), "encode has no option 'precision': it is `output_dtype`"),
        (lambda m: m.encode(sentences=["a"]), "no option 'sentences': the texts are the first argument, `texts`"),
        (lambda m: m.encode_query(sentences=["a"]), "no option 'sentences': the texts are the first argument"),
        (lambda m: m.encode_document(inputs=["a"]), "no option 'inputs': .* is the first argument, `texts`"),
        (lambda m: m.encode(), "encode takes a string or an iterable of strings, got a NoneType"),
        (
            lambda m: EmbeddingModel("all-minilm-l6-v2"),
            r"^EmbeddingModel is loaded by .*\.from_pretrained\('all-minilm-l6-v2'\)",
        ),
        (lambda m: EmbeddingModel(DATA / "tiny-bert"), r"EmbeddingModel\.from_pretrained\('.*tiny-bert'\)"),
        (lambda m: EmbeddingModel(model_name_or_path="a"), r"EmbeddingModel\.from_pretrained\('a'\)"),
        (lambda m: CrossEncoder("a/b", max_length=5), r"CrossEncoder\.from_pretrained\('a/b'\)"),
        (lambda m: EmbeddingModel.from_pretrained(DATA / "tiny-bert", cache_folder="x"), "it is `cache_dir`"),
        (lambda m: EmbeddingModel.from_pretrained(DATA / "tiny-bert", trust_remote_code=True), "is never run"),
        (lambda m: CrossEncoder.from_pretrained(DATA / "tiny-bert", max_length=5), "it is `max_seq_length`"),
        (lambda m: EmbeddingModel.from_pretrained(DATA / "tiny-bert", truncate_dim=8), "an attribute that can be set"),
        (lambda m: EmbeddingModel.from_pretrained(DATA / "tiny-bert", prompts={}), "set the attribute of this name"),
        (lambda m: CrossEncoder.from_pretrained(DATA / "tiny-bert", activation_fn=None), "set `activation` of the"),
        (lambda m: m.encode(["a"], device="cpu"), r"`from_pretrained\(\.\.\., device=\)` says where"),
    ],
)
def test_calls(call: Callable[[Any], Any], message: str, tiny_bert: EmbeddingModel) -> None:
    with pytest.raises(TypeError, match=message):
        call(tiny_bert)


def test_attributes(tiny_bert: EmbeddingModel, tmp_path: Any) -> None:
    message = r"^EmbeddingModel has no attribute 'get_sentence_embedding_dimension': it is the property `dimension`\.$"
    with pytest.raises(AttributeError, match=message):
        tiny_bert.get_sentence_embedding_dimension()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^EmbeddingModel has no attribute 'nonsense'\.$"):
        tiny_bert.nonsense  # type: ignore[attr-defined]  # noqa: B018
    scorer = CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path / "r"))
    with pytest.raises(AttributeError, match=r"CrossEncoder has no attribute 'save_pretrained': `mlx_embed\.convert"):
        scorer.save_pretrained("x")  # type: ignore[attr-defined]
    assert not hasattr(tiny_bert, "fit")
    with pytest.raises(AttributeError, match="CrossEncoder has no attribute 'activation_fn': it is `activation`"):
        scorer.activation_fn = "Identity"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'max_length': it is the property `max_seq_length`"):
        scorer.max_length = 16  # type: ignore[attr-defined]
    scorer.max_seq_length, scorer.activation, scorer.of_the_callers_own = 16, "Identity", 1  # type: ignore[attr-defined]


def test_the_tables_name_what_there_is_not() -> None:
    assert not OPTIONS.keys() & ENCODE.keys() & LOAD.keys()
    for name in ATTRIBUTES:
        assert name not in vars(EmbeddingModel), name


def test_help_shows_the_public_names() -> None:
    """Of each class and function that `help(mlx_embed)` explains, the package exports the name, and the other way."""
    text = pydoc.render_doc(mlx_embed, renderer=pydoc.plaintext)
    explained = {line.split("(")[0].split()[1] for line in text.splitlines() if line.startswith("    class ")}
    functions = text[text.index("\nFUNCTIONS\n") : text.index("\nDATA\n")].splitlines()
    explained |= {line.split("(")[0].strip() for line in functions if line[:4].isspace() and line[4:5].isalpha()}
    assert explained == {*mlx_embed.__all__} - {"__version__"}
    head = text[: text.index("PACKAGE CONTENTS")]
    assert all(name in head for name in ("EmbeddingModel", "CrossEncoder", "search", "convert"))
