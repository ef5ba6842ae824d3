"""Static models' folders for tests: of sentence-transformers' layout and of model2vec's, with random tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

WIDTH = 24
TOKENS = ["[PAD]", "[UNK]", "the", "wing", "flow", "of", "heat", "boundary", "lay", "##er", *"qux", "##u", "##x"]
# The layout, what is of its own in it, and the modules behind the table.
CASES: dict[str, dict[str, Any]] = {
    "sentence-transformers": {},
    "sentence-transformers, float16": {"dtype": "float16"},
    "sentence-transformers, cut at 5 tokens": {"truncation": 5},
    "sentence-transformers, normalized": {"normalize": True},
    "sentence-transformers, dense": {"dense": True, "prompts": {"query": "the wing "}, "default": "query"},
    "model2vec": {"model2vec": True},
    "model2vec, float16, normalized": {"model2vec": True, "dtype": "float16", "normalize": True},
    "model2vec, int8": {"model2vec": True, "dtype": "int8"},
    "model2vec, float64": {"model2vec": True, "dtype": "float64"},
    "model2vec, cut at 5 tokens": {"model2vec": True, "max_length": 5},
    "model2vec, not cut": {"model2vec": True, "max_length": None},
    "model2vec, mapped": {"model2vec": True, "mapped": True, "normalize": True},
    "model2vec, mapped int8": {"model2vec": True, "mapped": True, "dtype": "int8"},
    "model2vec, unigram": {"model2vec": True, "unigram": True},
    "model2vec, without modules.json": {"model2vec": True, "bare": True, "normalize": True},
}
TEXTS = [
    "the wing flow of heat",
    "",
    "the 一 wing 丁 qux",
    "一",
    "   ",
    " " * 60 + "the wing",
    "heat of the flow " * 9,
    "boundary layer",
    "the wing flow " * 300,
]


def tokenizer(unigram: bool) -> Tokenizer:
    """One of words and their parts, or one of pieces; neither pads nor cuts."""
    if unigram:
        pieces = [("<unk>", 0.0), *((f"▁{word}", -2.0) for word in ("the", "wing", "flow", "of", "heat"))]
        made = Tokenizer(models.Unigram([*pieces, ("▁", -4.0), ("q", -5.0)], 0, False))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        return made
    made = Tokenizer(models.WordPiece({token: number for number, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[PAD]", "[UNK]"])
    return made


def save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A safetensors file; by hand, for MLX writes no float64."""
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "int8": "I8", "int64": "I64", "int32": "I32"}
    header, data = {}, b""
    for name, array in tensors.items():
        begin, data = len(data), data + array.tobytes()
        header[name] = {
            "dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, len(data)]
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def make(folder: Path, name: str) -> Path:
    """The folder of one of CASES."""
    case, rng = CASES[name], np.random.default_rng(11)
    model2vec, dtype = case.get("model2vec", False), case.get("dtype", "float32")
    made = tokenizer(case.get("unigram", False))
    if "truncation" in case:
        made.enable_truncation(case["truncation"])
    vocabulary = made.get_vocab_size()
    table = rng.normal(size=(40 if case.get("mapped") else vocabulary, WIDTH)).astype(np.float32)
    table = np.clip(table * 50, -127, 127).astype(np.int8) if dtype == "int8" else table.astype(dtype)
    tensors = {"embeddings" if model2vec else "embedding.weight": table}
    if case.get("mapped"):
        tensors["mapping"] = rng.integers(0, len(table), vocabulary).astype(np.int32)
        tensors["weights"] = rng.uniform(0.1, 2, vocabulary)
    place = folder if model2vec else folder / "0_StaticEmbedding"
    place.mkdir(parents=True, exist_ok=True)
    made.save(str(place / "tokenizer.json"))
    save(place / "model.safetensors", tensors)
    kinds = [("StaticEmbedding", "." if model2vec else place.name)]
    if case.get("dense"):
        kinds.append(("Dense", "1_Dense"))
        (folder / "1_Dense").mkdir()
        config = {"in_features": WIDTH, "out_features": 7, "bias": True}
        (folder / "1_Dense" / "config.json").write_text(
            json.dumps({**config, "activation_function": "torch.nn.modules.activation.Tanh"})
        )
        weight = rng.normal(size=(7, WIDTH)).astype(np.float32)
        save(folder / "1_Dense" / "model.safetensors", {"linear.weight": weight, "linear.bias": weight[:, 0].copy()})
    if case.get("normalize"):
        kinds.append(("Normalize", f"{len(kinds)}_Normalize"))
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    if not case.get("bare"):
        (folder / "modules.json").write_text(json.dumps(listed))
    if model2vec:
        own = {key: case[key] for key in ("max_length", "normalize") if key in case}
        (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", **own}))
    else:
        prompts = {"prompts": case.get("prompts", {}), "default_prompt_name": case.get("default")}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder
