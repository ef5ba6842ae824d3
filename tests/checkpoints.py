"""Checkpoint folders for tests to load and to damage: copies of tests/data, completed, renamed, with other modules."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.conftest import DATA

FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

# Keys of FLAGS, so that each mode is tried on its own.
POOLING = list(FLAGS)


def pooling(*modes: str, include_prompt: bool = True) -> tuple[str, dict[str, Any]]:
    named = modes[0] if len(modes) == 1 else list(modes)
    return "Pooling", {"embedding_dimension": 32, "pooling_mode": named, "include_prompt": include_prompt}


def dense(inputs: int, outputs: int, activation: str = "activation.Tanh", **more: Any) -> tuple[str, dict[str, Any]]:
    named = f"torch.nn.modules.{activation}"
    return "Dense", {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": named} | more


NORMALIZE: tuple[str, dict[str, Any]] = ("Normalize", {})
STACKS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    **{mode: [pooling(mode)] for mode in POOLING},
    **{f"{mode} without prompt": [pooling(mode, include_prompt=False)] for mode in POOLING},
    "three side by side": [pooling("cls", "mean", "weightedmean"), NORMALIZE],
    "dense": [pooling("mean"), dense(32, 24), NORMALIZE],
    "dense after normalize": [pooling("mean"), NORMALIZE, dense(32, 24, "linear.Identity", bias=False)],
    "two dense": [pooling("mean"), dense(32, 48, "linear.Identity", bias=False), dense(48, 20), NORMALIZE],
    "residual": [pooling("cls"), dense(32, 32, "activation.GELU", use_residual=True), ("LayerNorm", {"dimension": 32})],
    "projected residual": [pooling("max"), dense(32, 16, "activation.ReLU", use_residual=True), ("Dropout", {})],
    "sigmoid, silu": [
        pooling("mean", "lasttoken"),
        dense(64, 24, "activation.Sigmoid"),
        ("LayerNorm", {"dimension": 24}),
        dense(24, 40, "activation.SiLU"),
    ],
}


def weights(kind: str, config: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    if kind == "LayerNorm":
        shapes = {"norm.weight": (config["dimension"],), "norm.bias": (config["dimension"],)}
    elif kind == "Dense":
        matrix = (config["out_features"], config["in_features"])
        shapes = {"linear.weight": matrix, "linear.bias": matrix[:1], "residual.weight": matrix}
        if not config["bias"]:
            del shapes["linear.bias"]
        if not config.get("use_residual") or matrix[0] == matrix[1]:
            del shapes["residual.weight"]
    else:
        shapes = {}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def with_modules(folder: Path, stack: list[tuple[str, dict[str, Any]]], *, layout: int = 6, base: str = "bert") -> Path:
    """An encoder with other modules, in sentence-transformers' layout of today (6) or of before version 5 (4)."""
    rng = np.random.default_rng(7)
    transformer = encoder(base, folder if layout == 6 else folder / "0_Transformer")
    for path in transformer.glob("?_*"):
        shutil.rmtree(path)
    package = "sentence_transformers.base.modules" if layout == 6 else "sentence_transformers.models"
    listed = [{"idx": 0, "name": "0", "path": transformer.relative_to(folder).name, "type": f"{package}.Transformer"}]
    if layout == 4:
        tokenizer = json.loads((transformer / "tokenizer_config.json").read_text()) | {"model_max_length": 512}
        (transformer / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        for name in ("modules.json", "config_sentence_transformers.json"):
            (transformer / name).unlink(missing_ok=True)
        (transformer / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": true}')
    for index, (kind, config) in enumerate(stack, start=1):
        place = folder / f"{index}_{kind}"
        place.mkdir()
        old = package if layout == 4 else "sentence_transformers.sentence_transformer.modules"
        base = package if kind in ("Dense", "Normalize") else old
        listed.append({"idx": index, "name": str(index), "path": place.name, "type": f"{base}.{kind}"})
        if layout == 4 and kind == "Pooling":
            modes = config["pooling_mode"] if isinstance(config["pooling_mode"], list) else [config["pooling_mode"]]
            flags = {flag: mode in modes for mode, flag in FLAGS.items()}
            config = {"word_embedding_dimension": 32, "include_prompt": config["include_prompt"]} | flags
        if kind == "Dropout":
            config = {"dropout": 0.2}
        if config:
            (place / "config.json").write_text(json.dumps(config))
        tensors = weights(kind, config, rng)
        if tensors:
            mx.save_safetensors(str(place / "model.safetensors"), {k: mx.array(v) for k, v in tensors.items()})
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


IDENTITY = {"activation": "linear.Identity", "bias": False}
# As the families' best known embedders have it: special tokens around a text, the side of padding, and modules.
FAMILIES: dict[str, tuple[str, str, list[tuple[str, dict[str, Any]]]]] = {
    "qwen3": ("A [SEP]", "left", [pooling("lasttoken"), NORMALIZE]),
    "qwen2": ("A [SEP]", "left", [pooling("lasttoken"), NORMALIZE]),
    "gemma": ("[CLS] A", "left", [pooling("lasttoken"), NORMALIZE]),
    "llama": ("[CLS] A", "left", [pooling("mean"), NORMALIZE]),
    "mistral": ("[CLS] A [SEP]", "left", [pooling("lasttoken"), NORMALIZE]),
    "gemma3_text": (
        "[CLS] A [SEP]",
        "right",
        [pooling("mean"), dense(32, 64, **IDENTITY), dense(64, 32, **IDENTITY), NORMALIZE],
    ),
}
PROMPTS = {"query": "Instruct: find the wing\nQuery:", "document": "title: none | text: "}


def encoder(name: str, folder: Path) -> Path:
    """A copy of an encoder of tests/data, with a tokenizer; RoBERTa's and MPNet's have <pad> as 1."""
    if name in ("bert", "mpnet"):
        return Path(shutil.copytree(DATA / f"tiny-{name}", folder, dirs_exist_ok=True))
    shutil.copytree(DATA / "encoders" / name, folder, dirs_exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / ("tiny-mpnet" if name == "roberta" else "tiny-bert") / file, folder)
    return folder


def decoder(name: str, folder: Path) -> Path:
    """A copy of tests/data/decoders/<name>, with what an embedder has beside it."""
    shutil.copytree(DATA / "decoders" / name, folder, dirs_exist_ok=True)
    specials, side, stack = FAMILIES[name]
    tokenizer = json.loads((DATA / "tiny-bert/tokenizer.json").read_text())
    template = [
        {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in specials.split()
    ]
    tokenizer["post_processor"]["single"] = template
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((DATA / "tiny-bert/tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": side}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    rng = np.random.default_rng(7)
    for index, (kind, config) in enumerate(stack, start=1):
        place = folder / f"{index}_{kind}"
        place.mkdir()
        listed.append(
            {"idx": index, "name": str(index), "path": place.name, "type": f"sentence_transformers.models.{kind}"}
        )
        if config:
            (place / "config.json").write_text(json.dumps(config))
        if tensors := weights(kind, config, rng):
            mx.save_safetensors(str(place / "model.safetensors"), {k: mx.array(v) for k, v in tensors.items()})
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def read(folder: Path) -> dict[str, mx.array]:
    """The tensors of a folder, in memory, so that their file can be written over."""
    return {name: mx.array(np.array(array)) for name, array in mx.load(str(folder / "model.safetensors")).items()}


def rename(folder: Path, *patterns: tuple[str, str], join: tuple[str, tuple[str, ...]] | None = None) -> Path:
    """Rename the tensors; `join` stacks those whose names differ in a part, under the first name given."""
    tensors = {}
    for name, array in read(folder).items():
        for old, new in patterns:
            name = re.sub(old, new, name)
        tensors[name] = array
    if join is not None:
        whole, parts = join
        for name in [name for name in tensors if parts[0] in name]:
            stacked = [tensors.pop(name.replace(parts[0], part)) for part in parts]
            tensors[name.replace(parts[0], whole)] = mx.concatenate(stacked)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def damage(folder: Path, place: str, change: dict[str, Any]) -> None:
    path = folder / place
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


# Each model's base prefix, the class of its head, and the head's layers.
RERANKERS = {
    "bert": ("bert.", "Bert", ("bert.pooler.dense", "classifier")),
    "roberta": ("roberta.", "Roberta", ("classifier.dense", "classifier.out_proj")),
    "xlm-roberta": ("roberta.", "XLMRoberta", ("classifier.dense", "classifier.out_proj")),
    "camembert": ("roberta.", "Camembert", ("classifier.dense", "classifier.out_proj")),
    "mpnet": ("mpnet.", "MPNet", ("classifier.dense", "classifier.out_proj")),
    "distilbert": ("distilbert.", "DistilBert", ("pre_classifier", "classifier")),
    "modernbert": ("model.", "ModernBert", ("head.dense", "classifier")),
    "nomic_bert": ("nomic_bert.", "NomicBert", ("nomic_bert.pooler.dense", "classifier")),
    "gte": ("gte.", "Gte", ("gte.pooler.dense", "classifier")),
    "eurobert": ("model.", "EuroBert", ("dense", "classifier")),
    "electra": ("electra.", "Electra", ("classifier.dense", "classifier.out_proj")),
    "albert": ("albert.", "Albert", ("albert.pooler", "classifier")),
    "deberta-v2": ("deberta.", "DebertaV2", ("pooler.dense", "classifier")),
}


def reranker(name: str, labels: int, folder: Path, **config: Any) -> Path:
    """A tiny encoder of tests/data with a random head."""
    prefix, kind, (first, last) = RERANKERS[name]
    encoder("roberta" if name in ("xlm-roberta", "camembert") else name, folder)
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (folder / file).unlink(missing_ok=True)
    if name in ("bert", "nomic_bert"):
        damage(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    rng = np.random.default_rng(3)
    head = {f"{first}.weight": (32, 32), f"{last}.weight": (labels, 32), f"{last}.bias": (labels,)}
    head |= {"head.norm.weight": (32,)} if name == "modernbert" else {f"{first}.bias": (32,)}
    tensors = {prefix + key: value.astype(mx.float32) for key, value in read(folder).items()}
    tensors |= {key: mx.array(rng.normal(size=shape).astype(np.float32)) for key, shape in head.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    names = {"id2label": {str(i): f"L{i}" for i in range(labels)}, "label2id": {f"L{i}": i for i in range(labels)}}
    return edit(
        folder, model_type=name, architectures=[f"{kind}ForSequenceClassification"], dtype="float32", **names, **config
    )


@dataclass(frozen=True)
class Classifier:
    """A decoder of tests/data with a classifier: what is special about it.

    Attributes:
        base: the decoder.
        pair: what its tokenizer makes of two texts.
        labels: scores a pair.
        template: a chat template; then the folder is as sentence-transformers 6 saves it.
        config: changes of config.json.
        tokenizer: changes of tokenizer_config.json.
    """

    base: str
    pair: str = "A B"
    labels: int = 1
    template: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)


ROLE = "{{ messages | selectattr('role', 'equalto', '%s') | map(attribute='content') | first }}"
ROLE_IN_PARTS = "{{ (messages | selectattr('role', 'equalto', '%s') | first).content[0].text }}"
_SYSTEM = "{% for m in messages if m.role == 'system' %}note {{ m.content }} {% endfor %}"
_TAIL = "{% if ask %} is it model{% endif %} {{ sep_token }}"
# Rerankers that generate: the decoder that they are of, their chat template, and the tokens of the answer.
GENERATIVE: dict[str, tuple[str, str | None, tuple[int, int | None]]] = {
    "qwen3": ("qwen3", None, (118, 119)),
    "qwen3, chat": ("qwen3", f"{_SYSTEM}query {ROLE % 'query'} text {ROLE % 'document'}{_TAIL}", (118, 119)),
    "qwen3, chat of parts": (
        "qwen3",
        f"query {ROLE_IN_PARTS % 'query'} text {ROLE_IN_PARTS % 'document'}{_TAIL}",
        (20, None),
    ),
    "llama, own output": ("llama", None, (7, 9)),
}


TRANSFORMER = {
    "idx": 0,
    "name": "0",
    "path": "",
    "type": "sentence_transformers.base.modules.transformer.Transformer",
}


def generative(name: str, folder: Path, *, bare: bool = False, words: tuple[str, ...] = ("yes", "no")) -> Path:
    """A tiny decoder of tests/data as a reranker that answers with a token, as sentence-transformers 6 saves it.

    `words` get the last tokens; a `bare` folder has no modules.json, as their authors' own have none.
    """
    base, template, (yes, no) = GENERATIVE.get(name, (name, None, (118, 119)))
    shutil.copytree(DATA / "decoders" / base, folder, dirs_exist_ok=True)
    tokenizer = json.loads((DATA / "tiny-bert/tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {word: 118 + i for i, word in enumerate(words)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((DATA / "tiny-bert/tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    tensors = {f"model.{key}": value.astype(mx.float32) for key, value in read(folder).items()}
    if base == "llama":
        own = np.random.default_rng(5).normal(size=(120, 32)).astype(np.float32)
        tensors["lm_head.weight"] = mx.array(own)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    kind = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama", "gemma": "Gemma"}[base]
    edit(folder, architectures=[f"{kind}ForCausalLM"], tie_word_embeddings=base != "llama", dtype="float32")
    if bare:
        return folder
    forward = {"method": "forward", "method_output_name": "logits"}
    message = {"message": {**forward, "format": "structured" if "parts" in name else "flat"}}
    own_settings = {
        "transformer_task": "text-generation",
        "modality_config": {"text": forward} | ({} if template is None else message),
        "module_output_name": "causal_logits",
        "processing_kwargs": {"chat_template": {"ask": True}} if template is not None else {},
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(own_settings))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))
    listed = [
        TRANSFORMER,
        {
            "idx": 1,
            "name": "1",
            "path": "1_LogitScore",
            "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_LogitScore").mkdir()
    score = {"true_token_id": yes, "false_token_id": no, "module_input_name": "causal_logits"}
    (folder / "1_LogitScore/config.json").write_text(json.dumps(score))
    return folder


CLASSIFIERS = {
    "qwen3": Classifier("qwen3"),
    "qwen2": Classifier("qwen2"),
    "llama": Classifier("llama", "[CLS] A [CLS] B"),
    "mistral": Classifier("mistral", "[CLS] A [CLS] B"),
    "gemma": Classifier("gemma", "[CLS] A [CLS] B"),
    "gemma3_text": Classifier("gemma3_text", "[CLS] A [CLS] B", config={"use_bidirectional_attention": False}),
    "gemma3_text, both ways": Classifier("gemma3_text", "[CLS] A [CLS] B"),
    "qwen3, labels": Classifier("qwen3", "A [SEP] B [SEP]", labels=3),
    "llama, the end is padding": Classifier(
        "llama", "A [SEP] B [SEP]", config={"pad_token_id": 3}, tokenizer={"pad_token": "[SEP]"}
    ),
    "mistral, on the left": Classifier("mistral", tokenizer={"padding_side": "left", "truncation_side": "left"}),
    "qwen3, chat": Classifier("qwen3", template=f"{_SYSTEM}query {ROLE % 'query'} text {ROLE % 'document'}{_TAIL}"),
}


def classifier(name: str, folder: Path, **config: Any) -> Path:
    """One of CLASSIFIERS."""
    found = CLASSIFIERS[name]
    shutil.copytree(DATA / "decoders" / found.base, folder, dirs_exist_ok=True)
    tokenizer = json.loads((DATA / "tiny-bert/tokenizer.json").read_text())
    tokenizer["post_processor"]["pair"] = [
        {"Sequence" if part in "AB" else "SpecialToken": {"id": part, "type_id": 0}} for part in found.pair.split()
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((DATA / "tiny-bert/tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | found.tokenizer))
    score = np.random.default_rng(3).normal(size=(found.labels, 32)).astype(np.float32)
    tensors = {f"model.{key}": value.astype(mx.float32) for key, value in read(folder).items()}
    tensors["score.weight"] = mx.array(score)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    kind = {"qwen3": "Qwen3", "qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral", "gemma": "Gemma"}
    labels = [f"L{i}" for i in range(found.labels)]
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    architecture = f"{kind.get(found.base, 'Gemma3Text')}ForSequenceClassification"
    edit(folder, architectures=[architecture], dtype="float32", pad_token_id=0, **names)
    edit(folder, **found.config, **config)
    if found.template is not None:
        (folder / "chat_template.jinja").write_text(found.template)
        forward = {"method": "forward", "method_output_name": "logits"}
        own_settings = {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": forward, "message": {**forward, "format": "flat"}},
            "module_output_name": "scores",
            "processing_kwargs": {"chat_template": {"ask": True}},
        }
        (folder / "sentence_bert_config.json").write_text(json.dumps(own_settings))
        own = {"model_type": "CrossEncoder", "prompts": {"q": "the note of "}, "default_prompt_name": "q"}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(own))
        (folder / "modules.json").write_text(json.dumps([TRANSFORMER]))
    return folder
