"""Rerankers that answer with a token against sentence-transformers' own: golden scores, live, recipes, bad input."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, UnsupportedModelError, convert
from tests import oracles
from tests.checkpoints import GENERATIVE, damage, edit, generative, read
from tests.conftest import DATA
from tests.mlx_embed.test_cross_encoder import PAIRS
from tests.mlx_embed.tokenizer.checkpoints import cuts_as_ever

TOLERANCE = 2e-5
PROMPT = "the note of "


def load(folder: Path, **options: Any) -> CrossEncoder:
    return CrossEncoder.from_pretrained(folder, device="cpu", **options)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_golden_scores(name: str, engine: str, tmp_path: Path) -> None:
    model = load(generative(name, tmp_path), engine=engine)
    with np.load(DATA / "generative.npz") as file:
        for key, options in ((name, {}), (f"{name}, prompt", {"prompt": PROMPT})):
            assert np.abs(model.predict(PAIRS, **options) - file[key]).max() <= TOLERANCE
    assert model.num_labels == 1
    assert model.activation == "Sigmoid"


@pytest.mark.parametrize("name", GENERATIVE)
def test_live(name: str, tmp_path: Path) -> None:
    oracle = oracles.sentence_transformers().CrossEncoder(
        str(generative(name, tmp_path)), device="cpu", prompts={"q": PROMPT}, default_prompt_name="q"
    )
    rng = np.random.default_rng()
    words = ["the", "wing", "flow", "of", "heat", "code", "qux", "42", "!"]
    pairs = [(" ".join(rng.choice(words, n % 9)), " ".join(rng.choice(words, n))) for n in range(0, 80, 3)]
    model = load(tmp_path)
    model.prompts, model.default_prompt_name = {"q": PROMPT}, "q"
    assert np.abs(model.predict(pairs) - oracle.predict(pairs)).max() <= TOLERANCE


@pytest.mark.parametrize("quantize", [None, 8])
@pytest.mark.parametrize("name", ["qwen3, chat", "llama, own output"])
def test_conversion_keeps_the_scores(name: str, quantize: int | None, tmp_path: Path) -> None:
    generative(name, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", quantize=quantize, group_size=quantize and 32)
    before, after = (load(tmp_path / place).predict(PAIRS, activation="Identity") for place in "ab")
    assert np.abs(before - after).max() <= (TOLERANCE if quantize is None else 0.05 * np.abs(before).max())


QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
    "<Instruct>: {}\n<Query>: heat\n<Document>: the wing",
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
QWEN2 = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>"
    "user\n",
    "{}query: heat\ndocument: the wing",
    "\nYou are a search relevance expert who evaluates how well documents match search queries. For each query-document"
    " pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
)
GEMMA = ("<bos>", "A: heat\nB: the wing", "\n{}")
WEB = "Given a web search query, retrieve relevant passages that answer the query"
YES_OR_NO = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)


@pytest.mark.parametrize("prompt", ["", "find it"])
@pytest.mark.parametrize(
    ("name", "recipe", "default", "asked", "words"),
    [
        ("qwen3", QWEN3, WEB, "{}", ("yes", "no")),
        ("qwen2", QWEN2, "", "instruction: {}\n", ("1", "0")),
        ("gemma", GEMMA, YES_OR_NO, "{}", ("Yes", "No")),
    ],
)
def test_the_recipes_of_the_authors(
    name: str,
    recipe: tuple[str, str, str],
    default: str,
    asked: str,
    words: tuple[str, str],
    prompt: str,
    tmp_path: Path,
) -> None:
    """A folder without modules.json says nothing of how it is asked."""
    generative(name, tmp_path, bare=True, words=words if name != "qwen2" else ())
    edit(tmp_path, max_position_embeddings=512)
    model = load(tmp_path, max_seq_length=512)
    text = "".join(recipe).format(asked.format(prompt) if prompt else default)
    ids = model.tokenizer.library.encode(text, add_special_tokens=False).ids
    (found,), _ = model.tokenizer([("heat", "the wing")], prompt)
    assert found.tolist() == ids
    # The score is the difference of logits behind the last token, or the one logit.
    last = EmbeddingModel.from_pretrained(tmp_path, device="cpu")
    tied = np.array(read(tmp_path)["model.embed_tokens.weight"])
    yes, no = (model.tokenizer.library.token_to_id(word) for word in words)
    row = tied[yes] - (0 if name == "gemma" else tied[no])
    ((_, hidden),) = last.engine.run(last.engine.batches([ids], 4096), last.engine.head(_last))
    assert model.predict(("heat", "the wing"), prompt=prompt, activation="Identity") == pytest.approx(
        float(hidden[0] @ row), abs=1e-4
    )
    if prompt:
        return
    # What is cut is the pair.
    (cut,), _ = load(tmp_path, max_seq_length=len(ids) - 1).tokenizer([("heat", "the wing")])
    tail = model.tokenizer.library.encode(recipe[2].format(default), add_special_tokens=False).ids
    assert len(cut) == len(ids) - 1
    assert cut.tolist()[-len(tail) :] == tail


@pytest.mark.parametrize("kept", [True, False])
def test_what_stands_behind_texts_that_are_cut(kept: bool, tmp_path: Path) -> None:
    folder = generative("qwen3, chat", tmp_path)
    chosen = {"chat_template": {"ask": True, "restore_suffix": kept}}
    damage(folder, "sentence_bert_config.json", {"processing_kwargs": chosen})
    (whole, cut), _ = load(folder, max_seq_length=12).tokenizer([("heat", "the"), ("heat", "the wing " * 20)])
    assert len(whole) < len(cut) == 12
    assert (cut.tolist()[-3:] == whole.tolist()[-3:]) is kept


@pytest.mark.parametrize("most", [3, 6, 12])
def test_of_what_is_cut_on_the_left_the_end_stays(most: int, tmp_path: Path) -> None:
    """Also where there is no room for the template itself."""
    folder = generative("qwen3, chat", tmp_path)
    damage(folder, "tokenizer_config.json", {"truncation_side": "left"})
    pair = ("heat", "the wing " * 8)
    whole, cut = (load(folder, max_seq_length=n).tokenizer([pair], PROMPT)[0][0].tolist() for n in (64, most))
    assert len(whole) < 64
    assert cut == whole[-most:]


def _last(hidden: Any, cu_seqlens: Any, max_seqlen: int, parameters: Any) -> Any:
    return hidden[cu_seqlens[1:] - 1]


def test_bad_folders(tmp_path: Path) -> None:
    def made(place: str, name: str = "qwen3, chat") -> Path:
        return generative(name, tmp_path / place)

    folder = made("a")
    damage(folder, "1_LogitScore/config.json", {"true_token_id": 120})
    with pytest.raises(CheckpointError, match='"true_token_id": 120, where a token below 120'):
        load(folder)
    folder = made("b")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{% if %}")
    with pytest.raises(CheckpointError, match="The chat template is broken"):
        load(folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only users') }}")
    with pytest.raises(CheckpointError, match=r"takes no messages of the roles query and document: .*only users"):
        load(folder)
    (folder / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(CheckpointError, match="takes no messages"):
        load(folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="is said to take messages, but has no chat template"):
        load(folder)
    folder = made("c", "llama, own output")
    tensors = read(folder)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | {"lm_head.weight": mx.ones((119, 32))})
    with pytest.raises(CheckpointError, match=r"lm_head.weight.* has shape \(119, 32\), where .*\(120, 32\)"):
        load(folder)
    bad = tensors["lm_head.weight"] * float("nan")
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | {"lm_head.weight": bad})
    with pytest.raises(CheckpointError, match=r"lm_head.weight.* NaN"):
        load(folder)
    with pytest.raises(UnsupportedModelError, match="final_logit_softcapping"):
        load(edit(folder, final_logit_softcapping=30.0))
    folder = generative("llama", tmp_path / "d", bare=True, words=())
    with pytest.raises(CheckpointError, match="has no token 'yes', with which a causal reranker answers"):
        load(folder)
    settings = json.loads((made("e") / "sentence_bert_config.json").read_text())
    assert settings["transformer_task"] == "text-generation"
    damage(tmp_path / "e", "sentence_bert_config.json", {"module_output_name": "scores"})
    with pytest.raises(UnsupportedModelError, match="\"module_output_name\": 'scores'"):
        load(tmp_path / "e")


@pytest.mark.parametrize("how", [{}, {"dtype": "float16"}, {"quantize": 8, "group_size": 32}])
def test_a_bare_one_that_is_converted_keeps_its_own_output(how: dict[str, Any], tmp_path: Path) -> None:
    source = generative("llama, own output", tmp_path / "a", bare=True)
    pairs = [("the wing", "heat"), ("the wing", "wing flow")]
    expected = load(source).predict(pairs, activation="Identity")
    convert(source, tmp_path / "b", **how)
    found = load(tmp_path / "b", dtype="float32").predict(pairs, activation="Identity")
    np.testing.assert_allclose(found, expected, rtol=0.05 if how else 1e-6)
    convert(tmp_path / "b", tmp_path / "c")
    np.testing.assert_allclose(load(tmp_path / "c", dtype="float32").predict(pairs, activation="Identity"), found)


def test_one_that_has_lost_its_own_output(tmp_path: Path) -> None:
    folder = generative("llama, own output", tmp_path, bare=True)
    tensors = {key: array for key, array in read(folder).items() if "lm_head" not in key}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError, match=r"no lm_head\.weight, and its config\.json says .* not the embeddings"):
        load(folder)


def test_an_own_output_that_is_quantized_is_converted_in_floats(tmp_path: Path) -> None:
    folder = generative("llama, own output", tmp_path / "a", bare=True)
    tensors = read(folder)
    parts = mx.quantize(tensors.pop("lm_head.weight"), 32, 8)
    tensors |= {f"lm_head.{name}": part for name, part in zip(("weight", "scales", "biases"), parts, strict=True)}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    edit(folder, quantization={"group_size": 32, "bits": 8})
    expected = load(folder).predict(("the wing", "heat"), activation="Identity")
    convert(folder, tmp_path / "b")
    assert read(tmp_path / "b")["lm_head.weight"].shape == (120, 32)
    assert load(tmp_path / "b").predict(("the wing", "heat"), activation="Identity") == pytest.approx(expected)


@cuts_as_ever
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("most", [6, 11, 30])
def test_pairs_without_a_form_are_cut_as_the_library_does(most: int, side: str, tmp_path: Path) -> None:
    """Though not by it, whose time and memory grow with the square of the texts."""
    folder = generative("llama, own output", tmp_path)
    damage(folder, "tokenizer_config.json", {"truncation_side": side})
    model = load(folder, max_seq_length=most)
    words = ["the", "wing", "flow", "of", "heat", "code"]
    rng = np.random.default_rng(most)
    pairs = [
        (" ".join(rng.choice(words, a)), " ".join(rng.choice(words, b))) for a in (1, 4, 9, 40) for b in (0, 3, 40)
    ]
    library = Tokenizer.from_str(model.tokenizer.library.to_str())
    library.enable_truncation(most, direction=side)
    found, _ = model.tokenizer(pairs, PROMPT)
    expected = library.encode_batch([(PROMPT + query, document) for query, document in pairs])
    assert found.tolist() == [one.ids for one in expected]
    assert max(map(len, expected)) == most
    assert model.tokenizer.library.truncation is None
