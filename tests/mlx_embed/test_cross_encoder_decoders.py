"""Decoders with a classifier against sentence-transformers' own: golden scores, live, and which token is the last."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import CheckpointError, CrossEncoder, UnsupportedModelError, convert
from tests import oracles
from tests.checkpoints import CLASSIFIERS, ROLE, ROLE_IN_PARTS, classifier, damage, edit, generative, read
from tests.conftest import DATA

TOLERANCE = 2e-5
PAIRS = [
    ("the wing", "heat of the boundary layer"),
    ("a query of code", ""),
    ("note", "the wing flow " * 40),
    ("index text vector " * 20, "the wing flow " * 40),
    ("speed " * 70, "code"),
    ("naïve 日本", "model !"),
    ("heat", "heat"),
    # Which end with padding, or what is padding to some of them, though nobody has padded them.
    ("heat", "the wing [SEP] [SEP]"),
    ("heat", "the wing [PAD]"),
    ("heat [PAD]", "the [PAD] wing [PAD] [PAD]"),
]
PLAIN = PAIRS[:8]
WORDS = ["the", "wing", "flow", "of", "heat", "code", "qux", "42", "!", "[SEP]", "[PAD]"]


def load(folder: Path, **options: Any) -> CrossEncoder:
    return CrossEncoder.from_pretrained(folder, device="cpu", **options)


def oracle(folder: Path, **options: Any) -> Any:
    model = oracles.sentence_transformers().CrossEncoder(str(folder), device="cpu", **options)
    if type(model.tokenizer).__name__ == "Qwen2Tokenizer":  # transformers makes that of any tokenizer.json of a qwen2
        from transformers import TokenizersBackend

        model[0].processor = TokenizersBackend.from_pretrained(folder)
    return model


def differ(found: Any, expected: Any) -> float:
    """The largest difference, as a share of the largest number."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("engine", ["auto", "reference", "graph"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_golden_scores(name: str, engine: str, tmp_path: Path) -> None:
    model = load(classifier(name, tmp_path), engine=engine)
    assert model.num_labels == CLASSIFIERS[name].labels
    # Where tokens see both ways, they see a text's own padding in transformers.
    pairs = PLAIN if "both ways" in name else PAIRS
    with np.load(DATA / "classifiers.npz") as file:
        logits, prompted = file[name], file[f"{name}, prompt"]
    assert differ(model.predict(pairs, activation="Identity"), logits[: len(pairs)]) <= TOLERANCE
    assert differ(model.predict(pairs, prompt="find the "), prompted[: len(pairs)]) <= TOLERANCE


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_live(name: str, tmp_path: Path) -> None:
    model, reference = load(classifier(name, tmp_path)), oracle(tmp_path)
    rng = np.random.default_rng()
    words = WORDS[:-1] if "both ways" in name else WORDS
    pairs = [tuple(" ".join(rng.choice(words, n)) for n in rng.integers(1, 50, size=2)) for _ in range(40)]
    options = {"apply_softmax": True} if model.num_labels > 1 else {}
    assert (model.activation, model.prompts) == (type(reference.activation_fn).__name__, reference.prompts)
    assert model.max_seq_length == reference.max_seq_length == 64
    assert differ(model.predict(pairs, **options), reference.predict(pairs, **options)) <= TOLERANCE


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text", "qwen3, labels", "qwen3, chat"])
def test_live_saved_by_sentence_transformers(name: str, tmp_path: Path) -> None:
    reference = oracle(classifier(name, tmp_path / "a"))
    reference.save(str(tmp_path / "b"), create_model_card=False)
    assert differ(load(tmp_path / "b").predict(PAIRS), reference.predict(PAIRS)) <= TOLERANCE


def test_a_score_depends_on_no_other_pair(tmp_path: Path) -> None:
    model = load(classifier("mistral", tmp_path))
    expected = model.predict(PAIRS)
    assert differ(np.array([model.predict(pair) for pair in PAIRS]), expected) <= TOLERANCE
    assert differ(model.predict(iter(PAIRS), batch_tokens=1), expected) <= TOLERANCE
    ranked = model.rank("heat", [document for _, document in PAIRS], top_k=3)
    assert [entry["score"] for entry in ranked] == sorted((entry["score"] for entry in ranked), reverse=True)


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma"])
def test_padding_at_the_end_is_not_read(name: str, tmp_path: Path) -> None:
    """Unless there is nothing else."""
    model = load(classifier(name, tmp_path))
    plain = model.predict([("the", "wing"), ("the [PAD]", "wing")], activation="Identity")
    ended = model.predict([("the", "wing" + n * " [PAD]") for n in (1, 3)], activation="Identity")
    assert differ(ended, plain[:1].repeat(2)) <= TOLERANCE
    assert abs(plain[1] - plain[0]) > 0.01, "padding within a pair is a token like others"
    if name == "qwen3":
        one, three = model.predict([("[PAD]", ""), ("[PAD]", "[PAD] [PAD]")], activation="Identity")
        assert one == three
        with pytest.raises(ValueError, match=r"pairs\[1\] has no token in either text"):
            model.predict([("a", ""), ("", "")])


@pytest.mark.parametrize(
    ("name", "change", "read"),
    [
        ("qwen3", {"pad_token_id": None}, True),
        ("llama", {"pad_token_id": -1}, True),
        ("llama", {"pad_token_id": 0}, False),
        ("gemma", {"pad_token_id": None}, False),
        ("gemma3_text", {"pad_token_id": None}, False),
    ],
)
def test_live_what_padding_is(name: str, change: dict[str, Any], read: bool, tmp_path: Path) -> None:
    """None, unless config.json says so, but in Gemma's own class; one by one, since there is no batch without."""
    folder = edit(classifier(name, tmp_path), **change)  # None takes the key away
    model = load(folder)
    pair, ended = ("heat", "the wing"), ("heat", "the wing [PAD]")
    found = [model.predict(x, activation="Identity") for x in (pair, ended)]
    assert (abs(found[0] - found[1]) > 0.01) == read
    reference = oracle(folder)
    import torch

    expected = [reference.predict([x], activation_fn=torch.nn.Identity())[0] for x in (pair, ended)]
    assert differ(np.array(found), np.array(expected)) <= TOLERANCE


def test_live_padding_that_the_tokenizer_does_not_use(tmp_path: Path) -> None:
    """A batch of transformers is read at its padding then; a single pair at its end, as they all are here."""
    folder = classifier("qwen3", tmp_path, pad_token_id=4)
    expected = oracle(folder).predict(PLAIN, batch_size=1)
    assert differ(load(folder).predict(PLAIN), expected) <= TOLERANCE


def test_padding_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="\"pad_token_id\": 'x', where the number of a token"):
        load(classifier("qwen3", tmp_path, pad_token_id="x"))


def test_what_sees_its_own_end_and_is_read_before_it(tmp_path: Path) -> None:
    folder = classifier("llama, the end is padding", tmp_path, eos_token_id=3)
    load(folder)
    with pytest.raises(UnsupportedModelError, match='"pad_token_id": 3, which is the end of a text too'):
        load(edit(folder, is_causal=False))


def test_the_same_as_one_that_generates(tmp_path: Path) -> None:
    """Qwen3-Reranker as a classifier: its two rows' difference, and its authors' form around the pair."""
    asked = load(edit(generative("qwen3", tmp_path / "a", bare=True), max_position_embeddings=512), max_seq_length=512)
    folder = classifier("qwen3", tmp_path / "b", max_position_embeddings=512)
    damage(folder, "tokenizer_config.json", {"model_max_length": 512})
    tensors = read(folder)
    yes, no = (asked.tokenizer.library.token_to_id(word) for word in ("yes", "no"))
    tied = tensors["model.embed_tokens.weight"]
    tensors["score.weight"] = (tied[yes] - tied[no])[None]
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes((tmp_path / "a/tokenizer.json").read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"]["pair"] = [{"Sequence": {"id": part, "type_id": 0}} for part in "AB"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    # What their documentation puts around the two texts of each pair.
    head = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n<Query>: "
    )
    tail = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    pairs = [(f"{head}{query}\n", f"<Document>: {document}{tail}") for query, document in PLAIN[:2]]
    expected = asked.predict(PLAIN[:2], activation="Identity")
    assert differ(load(folder).predict(pairs, activation="Identity"), expected) <= TOLERANCE


GENERAL = "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content }}{% endfor %}"
THROUGH = "{% for m in messages %}note {{ m.role }} {{ m.content }} {% endfor %}"


QUERIES = "{% for m in messages if m.role == 'query' %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize("template", [GENERAL, THROUGH, QUERIES])
def test_the_chat_template_of_a_base_model(template: str, tmp_path: Path) -> None:
    """A folder that does not say that it takes chats, nor has a template for pairs, takes pairs."""
    expected = load(classifier("qwen3", tmp_path)).predict(PAIRS)
    (tmp_path / "chat_template.jinja").write_text(template)
    assert np.array_equal(load(tmp_path).predict(PAIRS), expected)


def named(*templates: str) -> dict[str, Any]:
    """Of tokenizer_config.json."""
    return {"chat_template": [{"name": f"t{i}", "template": text} for i, text in enumerate(templates)]}


def test_several_chat_templates_are_refused_where_one_would_be_needed(tmp_path: Path) -> None:
    """Not by a classifier that was trained without, nor where the folder says that it takes pairs."""
    pairs = "{% for m in messages if m.role in ('query', 'document') %}{{ m.content }}{% endfor %}"
    message = r"several chat templates by name, and mlx_embed takes one: put that for pairs into chat_template\.jinja"
    folder = classifier("qwen3", tmp_path / "bare")
    expected = load(folder).predict(PAIRS)
    damage(folder, "tokenizer_config.json", named(GENERAL, THROUGH))
    assert np.array_equal(load(folder).predict(PAIRS), expected)
    damage(folder, "tokenizer_config.json", named(GENERAL, pairs))
    with pytest.raises(UnsupportedModelError, match=message):
        load(folder)
    (folder / "chat_template.jinja").write_text(GENERAL)  # which counts, as in transformers
    assert np.array_equal(load(folder).predict(PAIRS), expected)
    folder = classifier("qwen3, chat", tmp_path / "saved")
    (folder / "chat_template.jinja").unlink()
    damage(folder, "tokenizer_config.json", named(GENERAL, pairs))
    with pytest.raises(UnsupportedModelError, match=message):
        load(folder)
    forward = {"method": "forward", "method_output_name": "logits"}
    damage(folder, "sentence_bert_config.json", {"modality_config": {"text": forward}})
    load(folder).predict(PAIRS)
    folder = generative("llama, own output", tmp_path / "asked", bare=True)
    damage(folder, "tokenizer_config.json", named(GENERAL, pairs))
    with pytest.raises(UnsupportedModelError, match=message):
        load(folder)
    folder = generative("qwen3", tmp_path / "recipe", bare=True)
    edit(folder, max_position_embeddings=512)
    expected = load(folder, max_seq_length=512).predict(PLAIN)
    damage(folder, "tokenizer_config.json", named(GENERAL, pairs))
    assert np.array_equal(load(folder, max_seq_length=512).predict(PLAIN), expected)


@pytest.mark.parametrize("given", [7, [7], [{"name": "t"}], {"t": "x"}])
def test_chat_templates_that_are_none(given: Any, tmp_path: Path) -> None:
    damage(classifier("qwen3", tmp_path), "tokenizer_config.json", {"chat_template": given})
    with pytest.raises(
        CheckpointError, match=r'tokenizer_config\.json has "chat_template": .*, where a text is needed'
    ):
        load(tmp_path)


@pytest.mark.parametrize("text", [ROLE, ROLE_IN_PARTS])
def test_live_the_chat_template_of_a_bare_folder(text: str, tmp_path: Path) -> None:
    folder = classifier("mistral, on the left", tmp_path)
    plain = load(folder).predict(PAIRS)
    (folder / "chat_template.jinja").write_text(f"query {text % 'query'} text {text % 'document'} is it")
    found = load(folder).predict(PAIRS)
    assert differ(found, plain) > 0.01
    assert differ(found, oracle(folder).predict(PAIRS)) <= TOLERANCE


def test_a_stated_chat_template_need_not_name_the_roles(tmp_path: Path) -> None:
    folder = classifier("qwen3, chat", tmp_path)
    plain = load(folder).predict(PAIRS)
    (folder / "chat_template.jinja").write_text(THROUGH)
    (found,), _ = load(folder).tokenizer([("heat", "wing")])
    library = load(folder).tokenizer.library
    expected = library.encode("note query heat note document wing ", add_special_tokens=False).ids
    assert found.tolist() == expected
    assert differ(load(folder).predict(PAIRS), plain) > 0.01


@pytest.mark.parametrize("template", [GENERAL, "query {{ messages[0].content }}", "{{ messages[1].content }} note"])
@pytest.mark.parametrize("make", [classifier, generative])
def test_a_template_that_leaves_out_a_text(make: Any, template: str, tmp_path: Path) -> None:
    folder = make("qwen3, chat", tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match="leaves out one of a pair's texts, which are of the roles query and"):
        load(folder)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_conversion_keeps_the_scores(name: str, tmp_path: Path) -> None:
    expected = load(classifier(name, tmp_path / "a")).predict(PAIRS)
    assert convert(tmp_path / "a", tmp_path / "b").logit_difference == 0
    assert np.array_equal(load(tmp_path / "b").predict(PAIRS), expected)
    convert(tmp_path / "b", tmp_path / "c")
    assert (tmp_path / "b/model.safetensors").read_bytes() == (tmp_path / "c/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [({"dtype": "float16"}, 0.01), ({"dtype": "bfloat16"}, 0.05), ({"quantize": 8, "group_size": 32}, 0.1)],
)
def test_conversion_to_fewer_bits(how: dict[str, Any], tolerance: float, tmp_path: Path) -> None:
    expected = load(classifier("qwen3", tmp_path / "a")).predict(PAIRS, activation="Identity")
    convert(tmp_path / "a", tmp_path / "b", **how)
    assert 0 < differ(load(tmp_path / "b").predict(PAIRS, activation="Identity"), expected) <= tolerance


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_fewer_bits_on_a_cpu(name: str, dtype: str, tmp_path: Path) -> None:
    if not (cpu.available() and cpu.product(dtype)):
        pytest.skip(f"this machine has no products of {dtype}")
    folder = classifier(name, tmp_path)
    expected = load(folder).predict(PAIRS, activation="Identity")
    found = load(folder, dtype=dtype)
    assert found.engine.name == "native"
    assert 0 < differ(found.predict(PAIRS, activation="Identity"), expected) <= 0.15


@pytest.mark.parametrize("mode", ["affine", "mxfp8"])
def test_a_classifier_that_is_quantized(mode: str, tmp_path: Path) -> None:
    """As other programs of MLX quantize all linear layers."""
    folder = classifier("qwen3, labels", tmp_path / "a")
    tensors = read(folder)
    packed = mx.quantize(tensors["score.weight"], 32, 8, mode=mode)
    tensors["score.weight"] = mx.dequantize(*packed, group_size=32, bits=8, mode=mode).astype(mx.float32)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    expected = load(folder).predict(PAIRS)
    tensors |= {f"score.{name}": part for name, part in zip(("weight", "scales", "biases"), packed, strict=False)}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    edit(folder, quantization={"group_size": 32, "bits": 8, "mode": mode})
    assert differ(load(folder).predict(PAIRS), expected) <= TOLERANCE
    convert(folder, tmp_path / "b")
    assert differ(load(tmp_path / "b").predict(PAIRS), expected) <= TOLERANCE


def test_an_adapter_makes_a_classifier_of_a_causal_model(tmp_path: Path) -> None:
    base = classifier("qwen3", tmp_path / "base", architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True)
    tensors, query = read(base), "model.layers.0.self_attn.q_proj"
    score = tensors.pop("score.weight")
    mx.save_safetensors(str(base / "model.safetensors"), tensors, metadata={"format": "pt"})
    a, b = (mx.array(np.random.default_rng(n).normal(size=shape)) for n, shape in ((1, (2, 32)), (2, (64, 2))))
    found = {f"{query}.lora_A.weight": a, f"{query}.lora_B.weight": b, "score.weight": score}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    adapted = {f"base_model.model.{name}": array.astype(mx.float32) for name, array in found.items()}
    mx.save_safetensors(str(adapter / "adapter_model.safetensors"), adapted, metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 2, "lora_alpha": 2, "modules_to_save": ["score"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).write_bytes((base / name).read_bytes())
    tensors |= {f"{query}.weight": tensors[f"{query}.weight"] + b @ a, "score.weight": score}
    merged = classifier("qwen3", tmp_path / "merged")
    mx.save_safetensors(str(merged / "model.safetensors"), tensors, metadata={"format": "pt"})
    expected = load(merged).predict(PAIRS)
    assert differ(load(adapter).predict(PAIRS), expected) <= TOLERANCE
    convert(adapter, tmp_path / "converted")
    assert differ(load(tmp_path / "converted").predict(PAIRS), expected) <= TOLERANCE


@pytest.mark.parametrize("where", ["beside", "alone, saved", "alone, bare"])
def test_live_an_adapter_with_its_classifier(where: str, tmp_path: Path) -> None:
    """Of which the base model has none, or another."""
    peft = pytest.importorskip("peft", reason="PyTorch oracles are not installed")
    import torch
    import transformers

    folder, base = tmp_path / "a", tmp_path / ("a" if where == "beside" else "base")
    classifier("qwen3", base)
    if where != "beside":
        tensors = {name: x for name, x in read(base).items() if not name.startswith("score")}
        mx.save_safetensors(str(base / "model.safetensors"), tensors, metadata={"format": "pt"})
        edit(base, architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=2, init_lora_weights=False, task_type="SEQ_CLS", target_modules=["q_proj", "down_proj"]
    )
    adapted = peft.get_peft_model(model, settings)
    adapted.base_model.model.score.modules_to_save.default.weight.data += 0.5
    adapted.save_pretrained(folder)
    if where != "beside":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((base / name).read_bytes())
    if where == "alone, saved":
        classifier("qwen3, chat", tmp_path / "other")
        for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
            (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
        forward = {"text": {"method": "forward", "method_output_name": "logits"}}
        damage(folder, "sentence_bert_config.json", {"modality_config": forward})
        damage(folder, "config_sentence_transformers.json", {"default_prompt_name": None})
    found = load(folder).predict(PLAIN, activation="Identity")
    rows = load(folder).tokenizer(PLAIN)[0].tolist()
    with torch.no_grad():
        expected = np.array([float(adapted(torch.tensor([row])).logits[0, 0]) for row in rows])
    assert differ(found, expected) <= TOLERANCE
    assert differ(load(classifier("qwen3", tmp_path / "b")).predict(PLAIN, activation="Identity"), expected) > 0.01
    convert(folder, tmp_path / "c")
    assert differ(load(tmp_path / "c").predict(PLAIN, activation="Identity"), expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (None, r"has no tensor score\.weight; is it a reranker"),
        (mx.ones((1, 31)), r"score\.weight' of .* F32 \(1, 31\), where .* floats \(1, 32\)"),
        (mx.ones((2, 32)), "names 1 labels, but the classifier has 2"),
        (mx.full((1, 32), float("nan")), r"score\.weight' of .* holds NaN or infinite numbers"),
    ],
)
def test_classifiers_that_do_not_fit(score: mx.array | None, message: str, tmp_path: Path) -> None:
    folder = classifier("qwen3", tmp_path)
    tensors = {name: x for name, x in read(folder).items() if name != "score.weight"}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | ({} if score is None else {"score.weight": score}))
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize("name", ["qwen3", "qwen3, labels", "gemma"])
def test_a_bias_of_the_classifier_is_passed_over(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As transformers does, which makes the classifier of a decoder without one, and says that it is not used."""
    folder = classifier(name, tmp_path / "a")
    expected = load(folder).predict(PLAIN, activation="Identity")
    tensors = read(folder)
    tensors["score.bias"] = mx.full((len(tensors["score.weight"]),), 3.0)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    with caplog.at_level("INFO", "mlx_embed"):
        assert np.array_equal(load(folder).predict(PLAIN, activation="Identity"), expected)
    assert "has score.bias, which transformers does not read either: passed over." in caplog.text
    convert(folder, tmp_path / "b")
    assert np.array_equal(load(tmp_path / "b").predict(PLAIN, activation="Identity"), expected)
    torch = pytest.importorskip("torch", reason='PyTorch oracles are not installed: pip install ".[oracles]"')
    found = oracle(folder).predict(PLAIN, activation_fn=torch.nn.Identity())
    assert differ(found, expected) <= TOLERANCE


@pytest.mark.parametrize("base", ["llama", "mistral"])
def test_a_decoder_whose_own_code_has_another_classifier(base: str, tmp_path: Path) -> None:
    folder = classifier(base, tmp_path, model_type="llama_bidirec", attention_bias=base == "llama")
    with pytest.raises(UnsupportedModelError, match="model_type 'llama_bidirec' with a classifier are not supported"):
        load(folder)
