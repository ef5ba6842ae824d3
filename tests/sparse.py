"""Sparse models' folders for tests: encoders of tests/data with the random head of a masked language model."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.checkpoints import edit, encoder, read

# Each model's prefix and class, and the tensors of its head: "H" is the hidden size, "V" the vocabulary.
_ROBERTA = {
    "lm_head.dense": "HH", "lm_head.layer_norm": "H", "lm_head.bias": "V",
}  # fmt: skip
HEADS: dict[str, tuple[str, str, dict[str, str]]] = {
    "bert": (
        "bert.",
        "BertForMaskedLM",
        {
            "cls.predictions.transform.dense": "HH",
            "cls.predictions.transform.LayerNorm": "H",
            "cls.predictions.bias": "V",
            "cls.predictions.decoder": "VH",
        },
    ),
    "distilbert": (
        "distilbert.",
        "DistilBertForMaskedLM",
        {"vocab_transform": "HH", "vocab_layer_norm": "H", "vocab_projector.bias": "V", "vocab_projector": "VH"},
    ),
    "gte": (
        "gte.",
        "GteForMaskedLM",
        {"lm_head.dense": "HH", "lm_head.layer_norm": "H", "lm_head.decoder.bias": "V", "lm_head.decoder": "VH"},
    ),
    "modernbert": (
        "model.",
        "ModernBertForMaskedLM",
        {"head.dense.weight": "HH", "head.norm.weight": "H", "decoder.bias": "V", "decoder": "VH"},
    ),
    "mpnet": ("mpnet.", "MPNetForMaskedLM", {**_ROBERTA, "lm_head.decoder": "VH"}),
    "roberta": ("roberta.", "RobertaForMaskedLM", {**_ROBERTA, "lm_head.decoder": "VH"}),
    "xlm-roberta": ("roberta.", "XLMRobertaForMaskedLM", {**_ROBERTA, "lm_head.decoder": "VH"}),
}
CASES: dict[str, dict[str, Any]] = {
    **{model_type: {"model_type": model_type} for model_type in HEADS},
    "sum": {"pooling": "sum"},
    "two logarithms": {"activation": "log1p_relu"},
    "sum of two logarithms": {"pooling": "sum", "activation": "log1p_relu"},
    "a decoder of its own": {"tied": False},
    "bare": {"bare": True},
    "another activation": {"config": {"hidden_act": "quick_gelu"}},
    "at most 9": {"sentence": {"max_active_dims": 9}},
    "prompts": {"sentence": {"prompts": {"query": "the ", "document": "wing "}, "default_prompt_name": "query"}},
    "the old layout": {"old": True},
    "queries looked up": {"router": True, "activation": "log1p_relu"},
}
TEXTS = ["the wing flow of heat", "", "a query of code", "heat the heat", "heat of the flow " * 20, "wing"]
METHODS = ("encode", "encode_query", "encode_document")


def make(folder: Path, name: str) -> Path:
    """The folder of one of CASES."""
    case, rng = CASES[name], np.random.default_rng(3)
    model_type = case.get("model_type", "bert")
    router = case.get("router", False)
    place = folder / "document_0_Transformer" if router else folder
    place.mkdir(parents=True, exist_ok=True)
    encoder("roberta" if model_type == "xlm-roberta" else model_type, place)
    for path in (*place.glob("?_*"), *place.glob("*sentence*"), *place.glob("modules.json")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    prefix, architecture, head = HEADS[model_type]
    tensors = {f"{prefix}{key}": array.astype(mx.float32) for key, array in read(place).items() if "pooler" not in key}
    vocabulary, hidden = 120, 32
    for key, shape in head.items():
        sizes = [{"H": hidden, "V": vocabulary}[letter] for letter in shape]
        if shape == "VH" and case.get("tied", True):
            continue
        array = rng.normal(size=sizes) * (0.3 if len(sizes) == 2 else 1)
        parts = [key] if key.endswith(("weight", "bias")) else [f"{key}.weight"] + [f"{key}.bias"] * (shape != "VH")
        for part in parts:
            values = array if part.endswith("weight") else rng.normal(size=sizes[0])
            tensors[part] = mx.array(values.astype(np.float32))
    if not case.get("tied", True):
        tensors["cls.predictions.decoder.bias"] = mx.array(rng.normal(size=vocabulary).astype(np.float32))
    mx.save_safetensors(str(place / "model.safetensors"), tensors, {"format": "pt"})
    edit(
        place,
        model_type=model_type,
        architectures=[architecture],
        dtype="float32",
        tie_word_embeddings=case.get("tied", True),
        **case.get("config", {}),
    )
    if case.get("bare"):
        return folder
    sparse = "sentence_transformers.sparse_encoder.modules"
    base = "sentence_transformers.base.modules.transformer.Transformer"
    base = f"{sparse}.MLMTransformer" if case.get("old") else base
    splade = folder / ("document_1_SpladePooling" if router else "1_SpladePooling")
    splade.mkdir()
    pooling = {"pooling_strategy": case.get("pooling", "max"), "activation_function": case.get("activation", "relu")}
    (splade / "config.json").write_text(json.dumps(pooling))
    task = {"max_seq_length": 40} if case.get("old") else {"transformer_task": "fill-mask"}
    (place / "sentence_bert_config.json").write_text(json.dumps(task))
    kinds = [("", base), (splade.name, f"{sparse}.splade_pooling.SpladePooling")]
    if router:
        table = folder / "query_0_SparseStaticEmbedding"
        table.mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(place / file, table)
        # sentence-transformers counts the tokens, of which this tokenizer leaves one number out.
        tokenizer = json.loads((table / "tokenizer.json").read_text())
        ordered = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
        tokenizer["model"]["vocab"] = {token: number for number, token in enumerate(ordered)}
        (table / "tokenizer.json").write_text(json.dumps(tokenizer))
        weight = rng.uniform(0, 3, vocabulary - 2).astype(np.float32)
        mx.save_safetensors(str(table / "model.safetensors"), {"weight": mx.array(weight)}, {"format": "pt"})
        (table / "config.json").write_text('{"frozen": true}')
        static = f"{sparse}.sparse_static_embedding.SparseStaticEmbedding"
        types = {table.name: static, place.name: base, splade.name: kinds[1][1]}
        structure = {"query": [table.name], "document": [place.name, splade.name]}
        parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
        (folder / "router_config.json").write_text(
            json.dumps({"types": types, "structure": structure, "parameters": parameters})
        )
        kinds = [("", "sentence_transformers.base.modules.router.Router")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(listed))
    sentence = {"model_type": "SparseEncoder", "prompts": {}, **case.get("sentence", {})}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(sentence))
    return folder
