"""A folder of BGE-M3's layout for tests, and what its authors' package makes of texts, by transformers."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.checkpoints import damage, edit, encoder, read

TEXTS = ["the wing, the flow of heat", "", "a query of code!", "heat the heat", "heat of the flow: " * 20, "wing"]


def make(folder: Path, width: int = 32) -> Path:
    """A RoBERTa with random layers, tokens' vectors being of this width."""
    encoder("roberta", folder)
    edit(folder, dtype="float32")
    damage(folder, "tokenizer_config.json", {"eos_token": "</s>"})
    tensors = {name: array.astype(mx.float32) for name, array in read(folder).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    rng = np.random.default_rng(9)
    for name, outputs in (("sparse_linear", 1), ("colbert_linear", width)):
        layer = {"weight": rng.normal(size=(outputs, 32)) * 0.3, "bias": rng.normal(size=outputs) * 0.1}
        arrays = {key: mx.array(value.astype(np.float32)) for key, value in layer.items()}
        mx.save_safetensors(str(folder / f"{name}.safetensors"), arrays, {"format": "pt"})
    return folder


def oracle(folder: Path) -> dict[str, Any]:
    """As FlagEmbedding 1.4's BGEM3FlagModel computes them: vectors, weights by id, and tokens' vectors, one by one."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    layers = {name: load_file(folder / f"{name}_linear.safetensors") for name in ("sparse", "colbert")}
    unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    dense, sparse, multi = [], [], []
    for text in TEXTS:
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        dense.append(torch.nn.functional.normalize(hidden[0], dim=-1).numpy())
        weights = torch.relu(hidden @ layers["sparse"]["weight"].T + layers["sparse"]["bias"])[:, 0].tolist()
        row = np.zeros(120, dtype=np.float32)
        for number, weight in zip(inputs["input_ids"][0].tolist(), weights, strict=True):
            if number not in unused:
                row[number] = max(row[number], weight)
        sparse.append(row)
        vectors = hidden[1:] @ layers["colbert"]["weight"].T + layers["colbert"]["bias"]
        multi.append(torch.nn.functional.normalize(vectors, dim=-1).numpy())
    return {"dense": np.stack(dense), "sparse": np.stack(sparse), "multi": multi}
