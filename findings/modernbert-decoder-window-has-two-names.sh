#!/usr/bin/env bash
# Version:   transformers 5.24.0 with torch 2.13.0.
# Guess:     `local_attention` in the configuration of a ModernBERT decoder (Ettin) is how far its local layers see, in a
#            folder that transformers has saved too, as it is of ModernBERT's encoder.
# Behaviour: saving writes a second name for it, `sliding_window`, which is half of it, and that one alone counts when the
#            folder is read again: another `local_attention` in config.json is read, and changes nothing. The encoder's
#            config.json has no such key, and there it counts.
# Why:       who sets another window in config.json, or reads it there for another engine, has another one than
#            transformers computes with; without the second key the same number is obeyed.
# Seen:
#   encoder: keys local_attention 32, sliding_window None; with 4 it reads 4, and hidden states change: True
#   decoder: keys local_attention 32, sliding_window 16; with 4 it reads 4, and hidden states change: False
#   decoder without sliding_window: with 4 it reads 4, and hidden states change: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0

cat > "$work/window.py" <<'PY'
import json
import sys
from pathlib import Path

import torch
from transformers import (
    ModernBertConfig, ModernBertDecoderConfig, ModernBertDecoderModel, ModernBertModel, PreTrainedModel,
)

SHAPE = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.5, "local_attention": 32,
}
ids = torch.arange(1, 41)[None]


@torch.no_grad()
def states(model: PreTrainedModel) -> torch.Tensor:
    return model.eval()(ids).last_hidden_state


def read_again(of: type[PreTrainedModel], folder: Path, before: torch.Tensor) -> tuple[int, bool]:
    model = of.from_pretrained(folder)
    return model.config.local_attention, not torch.allclose(states(model), before, atol=1e-3)


found = []
for name, config, of in (
    ("encoder", ModernBertConfig, ModernBertModel), ("decoder", ModernBertDecoderConfig, ModernBertDecoderModel),
):
    torch.manual_seed(0)
    model = of(config(**SHAPE))
    before, folder = states(model), Path(sys.argv[1]) / name
    model.save_pretrained(folder)
    keys = json.loads((folder / "config.json").read_text())
    saved = keys.get("local_attention"), keys.get("sliding_window")
    (folder / "config.json").write_text(json.dumps(keys | {"local_attention": 4}))
    window, changed = read_again(of, folder, before)
    print(f"  {name}: keys local_attention {saved[0]}, sliding_window {saved[1]}; with 4 it reads {window}, "
          f"and hidden states change: {changed}")
    found.append((*saved, window, changed))
del keys["sliding_window"]
(folder / "config.json").write_text(json.dumps(keys | {"local_attention": 4}))
found.append(read_again(of, folder, before))
print(f"  decoder without sliding_window: with 4 it reads {found[-1][0]}, and hidden states change: {found[-1][1]}")
sys.exit(found != [(32, None, 4, True), (32, 16, 4, False), (4, True)])
PY
"$work/venv/bin/python" "$work/window.py" "$work"
