#!/usr/bin/env bash
# Version:   transformers 5.24.0 with torch 2.13.0.
# Guess:     a folder of jina-embeddings-v2 (model_type "bert", position_embedding_type "alibi", feed-forward with a gate,
#            code in auto_map) needs trust_remote_code=True, and without it AutoModel refuses.
# Behaviour: AutoModel knows "bert" itself and makes a BertModel of it. Word embeddings and attention come from the file;
#            feed-forward is drawn at random, and so is a table of positions, which the model hasn't. Two loads of one
#            folder give different vectors. config.position_embedding_type still says "alibi", which nothing reads. The
#            call succeeds, with a warning: the report of the loading lists what is missing and unexpected.
# Why:       an index filled by one process cannot be searched by the next, where the same text has another vector. Within
#            a process all looks well, and a program that lowers the logger, says nothing.
# Seen:
#   class BertModel, position_embedding_type alibi
#   27 tensors are not in the file, 20 of the file's 64 are not read
#   one load, twice: vectors differ by 0.00; two loads: by 1.90, a cosine of 0.78
#   of the warning:
#   encoder.layer.{0, 1, 2, 3}.intermediate.dense.weight | MISSING    |
#   encoder.layer.{0, 1, 2, 3}.mlp.gated_layers.weight   | UNEXPECTED |
#   encoder.layer.{0, 1, 2, 3}.mlp.layernorm.weight      | UNEXPECTED |
#   encoder.layer.{0, 1, 2, 3}.mlp.wo.weight             | UNEXPECTED |
#   encoder.layer.{0, 1, 2, 3}.output.LayerNorm.weight   | MISSING    |
#   encoder.layer.{0, 1, 2, 3}.output.dense.weight       | MISSING    |
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=warning

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 safetensors==0.8.0

cat > "$work/load.py" <<'PY'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel

folder = Path(sys.argv[1])
folder.mkdir()
width, inner, layers = 512, 2048, 4  # those of the small model
config = {
    "model_type": "bert", "architectures": ["JinaBertModel"], "position_embedding_type": "alibi",
    "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    "feed_forward_type": "geglu", "vocab_size": 50, "hidden_size": width, "intermediate_size": inner,
    "num_hidden_layers": layers, "num_attention_heads": 8, "max_position_embeddings": 64, "type_vocab_size": 2,
}
(folder / "config.json").write_text(json.dumps(config))


def linear(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(rows, columns) / columns**0.5, f"{name}.bias": torch.zeros(rows)}


def norm(name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


torch.manual_seed(0)
weights = {f"embeddings.{name}_embeddings.weight": torch.randn(rows, width) for name, rows in (("word", 50), ("token_type", 2))}
weights |= norm("embeddings.LayerNorm")
for layer in (f"encoder.layer.{i}" for i in range(layers)):
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        weights |= linear(f"{layer}.attention.{name}", width, width)
    weights |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.mlp.layernorm")
    weights |= linear(f"{layer}.mlp.gated_layers", 2 * inner, width) | linear(f"{layer}.mlp.wo", width, inner)
    del weights[f"{layer}.mlp.gated_layers.bias"]  # it has none
save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def vector(model: torch.nn.Module) -> torch.Tensor:
    return model(torch.tensor([[2, 5, 6, 7, 3]])).last_hidden_state.mean(dim=1)


first, second = (AutoModel.from_pretrained(folder).eval() for _ in range(2))
print(f"class {type(first).__name__}, position_embedding_type {first.config.position_embedding_type}")
drawn = [name for name, tensor in first.state_dict().items() if name not in weights and tensor.is_floating_point()]
unread = [name for name in weights if name not in first.state_dict()]
print(f"{len(drawn)} tensors are not in the file, {len(unread)} of the file's {len(weights)} are not read")
again = float((vector(first) - vector(first)).abs().max())
other = float((vector(first) - vector(second)).abs().max())
cosine = float(torch.cosine_similarity(vector(first), vector(second)))
print(f"one load, twice: vectors differ by {again:.2f}; two loads: by {other:.2f}, a cosine of {cosine:.2f}")
if again > 1e-6 or cosine > 0.95:
    sys.exit("Two loads now give the same vector.")
PY
"$work/venv/bin/python" "$work/load.py" "$work/folder" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
echo "of the warning:"
grep -E "^encoder.*weight.*(MISSING|UNEXPECTED)" "$work/said" | sort -u
grep -q "intermediate.dense.weight.*MISSING" "$work/said" || { echo "The report no longer names what is missing." >&2; exit 1; }
