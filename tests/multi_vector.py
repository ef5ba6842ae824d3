"""Folders of models of a vector a token for tests, in the three layouts there are, with random projections."""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.checkpoints import FAMILIES, damage, decoder, edit, encoder, read

EXPANSION = {"strategy": "fixed", "attend": False, "length": 12}
DENSE = {"in_features": 32, "out_features": 16, "bias": False}
PYLATE = {
    "model_type": "ColBERT",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 12,
    "document_length": 20,
    "attend_to_expansion_tokens": False,
    "do_query_expansion": True,
    "skiplist_words": list(string.punctuation),
    "similarity_fn_name": "MaxSim",
    "prompts": {},
}
# The layout; what the encoder's settings, the mask and config_sentence_transformers.json say; the Dense modules.
CASES: dict[str, dict[str, Any]] = {
    "sentence-transformers": {"expansion": EXPANSION, "skiplist_words": [".", ",", "wing"]},
    "attended": {"expansion": {**EXPANSION, "attend": True}},
    "at least so long": {"expansion": {**EXPANSION, "strategy": "min", "length": 8}, "settings": {"query_length": 10}},
    "another token": {"expansion": {**EXPANSION, "token": "wing"}},
    "no expansion": {"settings": {"query_length": 7, "document_length": 9}},
    "queries skip too": {"expansion": EXPANSION, "skiplist_words": ["the"], "skiplist_tasks": ["query", "document"]},
    "some tokens kept": {"keep_only_token_ids": [5, 11, 12]},
    "prompts": {"expansion": EXPANSION, "sentence": {"prompts": {"query": "a query: ", "document": "[D] a text "}}},
    "mean": {"expansion": EXPANSION, "sentence": {"similarity_fn_name": "meanmaxsim"}},
    "two dense": {
        "dense": [
            {**DENSE, "out_features": 24, "bias": True, "activation_function": "torch.nn.modules.activation.GELU"},
            {**DENSE, "in_features": 24, "use_residual": True},
        ]
    },
    "clustered": {"pooling": {"pool_factor": 2.0, "num_protected_tokens": 1, "normalize_embeddings": True}},
    **{
        name: {"model_type": name, "expansion": EXPANSION}
        for name in ("distilbert", "modernbert", "mpnet", "roberta", "nomic_bert")
    },
    # Some of the tokens that are added see no others than such.
    "modernbert, narrow": {"model_type": "modernbert", "expansion": EXPANSION, "window": 4},
    "qwen3": {"model_type": "qwen3", "expansion": EXPANSION},
    "mistral, attended": {"model_type": "mistral", "expansion": {**EXPANSION, "attend": True}},
    "llama, attended in front": {"model_type": "llama", "expansion": {**EXPANSION, "attend": True}, "side": "left"},
    "gemma3_text, no expansion": {"model_type": "gemma3_text", "settings": {"query_length": 7}},
    "pylate": {"layout": "pylate", "sentence": PYLATE},
    "pylate, attended": {"layout": "pylate", "sentence": {**PYLATE, "attend_to_expansion_tokens": True}},
    "pylate, no expansion": {"layout": "pylate", "sentence": {**PYLATE, "do_query_expansion": False}},
    "pylate, of before": {
        "layout": "pylate",
        "sentence": {key: value for key, value in PYLATE.items() if key not in ("model_type", "skiplist_words")},
    },
    "pylate, mistral": {"layout": "pylate", "sentence": PYLATE, "model_type": "mistral"},
    "stanford": {"layout": "stanford", "metadata": {"query_maxlen": 12, "doc_maxlen": 20}},
    "stanford, attended": {
        "layout": "stanford",
        "metadata": {"query_maxlen": 12, "doc_maxlen": 20, "attend_to_mask_tokens": True, "mask_punctuation": False},
    },
    "stanford, nothing said": {"layout": "stanford"},
}
TEXTS = [
    "the wing, the flow. of heat",
    "",
    "a query of code!",
    "heat the heat",
    "heat of the flow: " * 20,
    "[Q] wing",
]
METHODS = ("encode", "encode_query", "encode_document")


def make(folder: Path, name: str) -> Path:
    """The folder of one of CASES."""
    case, rng = CASES[name], np.random.default_rng(5)
    layout, model_type = case.get("layout", "own"), case.get("model_type", "bert")
    if model_type in FAMILIES:
        decoder(model_type, folder)
        damage(folder, "tokenizer_config.json", {"padding_side": case.get("side", "right")})
    else:
        encoder(model_type, folder)
    for path in (*folder.glob("?_*"), *folder.glob("*sentence*"), *folder.glob("modules.json")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if model_type == "modernbert":
        edit(folder, local_attention=case.get("window", 40))
    if model_type == "nomic_bert":
        edit(folder, rotary_scaling_factor=None)
    edit(folder, dtype="float32")
    tensors = {key: array.astype(mx.float32) for key, array in read(folder).items()}
    if layout == "stanford":
        tensors = {f"bert.{key}": array for key, array in tensors.items() if "pooler" not in key}
        tensors["linear.weight"] = mx.array(rng.normal(size=(16, 32)).astype(np.float32))
        edit(folder, architectures=["HF_ColBERT"])
        with_tokens(folder, ["[unused0]", "[unused1]"], vocabulary=True)
        if "metadata" in case:
            (folder / "artifact.metadata").write_text(json.dumps(case["metadata"]))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    if layout == "stanford":
        return folder
    place = "models" if layout == "pylate" else "base.modules.transformer"
    kinds = [("", f"sentence_transformers.{place}.Transformer")]
    for index, dense in enumerate(case.get("dense", [DENSE]), 1):
        place = folder / f"{index}_Dense"
        kind = "pylate.models.Dense.Dense" if layout == "pylate" else "sentence_transformers.base.modules.dense.Dense"
        kinds.append((place.name, kind))
        place.mkdir()
        config = {"activation_function": "torch.nn.modules.linear.Identity", **dense}
        if layout != "pylate":
            config |= {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        (place / "config.json").write_text(json.dumps(config))
        shapes = {"linear.weight": (dense["out_features"], dense["in_features"])}
        if dense["bias"]:
            shapes["linear.bias"] = (dense["out_features"],)
        if dense.get("use_residual"):
            shapes["residual.weight"] = shapes["linear.weight"]
        found = {key: mx.array(rng.normal(size=shape).astype(np.float32)) for key, shape in shapes.items()}
        mx.save_safetensors(str(place / "model.safetensors"), found, {"format": "pt"})
    settings = {"max_seq_length": 40, **case.get("settings", {})}
    sentence = {"model_type": "MultiVectorEncoder", "prompts": {}, **case.get("sentence", {})}
    if layout == "pylate":
        sentence = case["sentence"]
        settings = {"max_seq_length": 19, "do_lower_case": False}
        with_tokens(folder, ["[Q] ", "[D] "])
    else:
        settings |= {"query_expansion": case.get("expansion")}
        keys = ("skiplist_words", "skiplist_tasks", "keep_only_token_ids")
        package = "sentence_transformers.multi_vector_encoder.modules"
        modules = [("MultiVectorMask", {key: case[key] for key in keys if key in case}), ("Normalize", None)]
        modules += [("HierarchicalTokenPooling", case["pooling"])] if "pooling" in case else []
        files = {"MultiVectorMask": "multi_vector_mask", "HierarchicalTokenPooling": "token_pooling"}
        for kind, config in modules:
            place = folder / f"{len(kinds)}_{kind}"
            place.mkdir()
            if kind == "Normalize":
                kinds.append((place.name, "sentence_transformers.base.modules.normalize.Normalize"))
                config = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
            else:
                kinds.append((place.name, f"{package}.{files[kind]}.{kind}"))
            (place / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(sentence))
    return folder


def with_tokens(folder: Path, tokens: list[str], *, vocabulary: bool = False) -> None:
    """Give the tokenizer more tokens: words of its vocabulary, or such as are added to it, as PyLate does."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    known = tokenizer["model"]["vocab"]
    for token in tokens:
        number = len(known) + len([entry for entry in tokenizer["added_tokens"] if entry["content"] not in known])
        if vocabulary:
            known[token] = len(known)
        else:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
            tokenizer["added_tokens"].append({"id": number, "content": token, "normalized": True, **flags})
    path.write_text(json.dumps(tokenizer))
