#!/usr/bin/env bash
# Version:   mlx-lm 0.32.2 with mlx 0.32.4 (CPU), transformers 5.24.0, torch 2.13.0 and numpy 2.4.6.
# Guess:     of the two lists of factors that a Phi-3 of long context has for its positions, mlx-lm takes short_factor for
#            texts within the original length, as the docstring of its SuScaledRoPE says and as transformers does.
# Behaviour: short_factor is read and left out: every text gets the long list. Up to the original length the states are
#            others than transformers'; from the next token on they are the same.
# Why:       it is the short texts that are wrong, and few are longer than Phi-3.5's 4096 tokens. Where both lists are
#            equal, nothing is seen. phimoe and minicpm3 use the same positions. mlx-lm's pull request 660, of December
#            2025, was about this; release 0.32.2 still does it, and its docstring says otherwise.
# Seen (the mean cosine of the tokens' last states with transformers', with an original length of 64 tokens):
#   both lists of factors: 16 tokens 0.812, 32 tokens 0.648, 64 tokens 0.423, 65 tokens 1.000, 128 tokens 1.000, 256 tokens 1.000
#   the long list twice:   16 tokens 1.000, 32 tokens 1.000, 64 tokens 1.000, 65 tokens 1.000, 128 tokens 1.000, 256 tokens 1.000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.24.0 torch==2.13.0 numpy==2.4.6

cat > "$work/positions.py" <<'PY'
import json
import logging
import sys
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import torch
from mlx_lm.utils import load_model
from transformers import AutoConfig, AutoModelForCausalLM

logging.disable()
warnings.simplefilter("ignore")
torch.set_grad_enabled(False)
size = {"vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
size |= {"num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0, "sliding_window": None}
size |= {"max_position_embeddings": 512, "original_max_position_embeddings": 64}
# As in Phi-3.5 mini: hardly anything up to the old length, and much more for slow turns behind it.
near, far = np.linspace(1, 1.5, 8).tolist(), np.geomspace(1, 60, 8).tolist()
lists = {"both lists of factors": (near, far), "the long list twice": (far, far)}
for number, (name, (short, long)) in enumerate(lists.items()):
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long}
    torch.manual_seed(0)
    config = AutoConfig.for_model("phi3", **size, rope_parameters=rope | {"original_max_position_embeddings": 64})
    model = AutoModelForCausalLM.from_config(config).eval()
    folder = Path(sys.argv[1]) / str(number)
    model.save_pretrained(folder)
    # The positions under the names of version 4 of transformers, which are those that mlx-lm's class reads.
    settings = json.loads((folder / "config.json").read_text())
    del settings["rope_parameters"]
    settings |= {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    settings["rope_scaling"] = {"type": "longrope", "short_factor": short, "long_factor": long}
    (folder / "config.json").write_text(json.dumps(settings))
    other, _ = load_model(folder)
    cosines = {}
    for length in (16, 32, 64, 65, 128, 256):
        ids = torch.from_numpy(np.random.default_rng(0).integers(1, 200, (1, length)))
        expected = model.model(ids).last_hidden_state[0].numpy()
        got = np.array(other.model(mx.array(ids.numpy()))[0].astype(mx.float32))
        lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
        cosines[length] = float(((got * expected).sum(axis=1) / lengths).mean())
    print(f"{name + ':':22} " + ", ".join(f"{length} tokens {cosine:.3f}" for length, cosine in cosines.items()))
    if min(cosines[65], cosines[256]) < 0.999 or (cosines[64] > 0.999) != (name == "the long list twice"):
        sys.exit("The two lists count otherwise now.")
PY
"$work/venv/bin/python" "$work/positions.py" "$work"
