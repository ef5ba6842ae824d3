#!/usr/bin/env bash
# Version:   mlx-lm 0.32.2 with mlx 0.32.4 (CPU), transformers 5.24.0, torch 2.13.0 and numpy 2.4.6.
# Guess:     mlx-lm, which requires transformers 5, runs a model that transformers 5 has saved as transformers runs it.
# Behaviour: transformers 5 writes what config.json says of rotary positions under `rope_parameters`. mlx-lm's classes for
#            llama, mistral, qwen2, phi3 and olmo2 read `rope_theta` and `rope_scaling`, of version 4, and leave the new
#            name out without a word: the base is each class's own default, and no scaling is done. qwen3 reads both.
# Why:       a model that is fine-tuned, merged or only saved again with transformers 5 gets other positions, and with them
#            other vectors and scores: Llama 3's base of 500000 and its scaling are lost, Mistral's of a million is 10000.
#            Where the base is the default by chance, nothing is seen. For qwen3, which failed with an error, it was
#            reported (mlx-lm's issue 1563) and is fixed; a change for all classes (953) is not in this release.
# Seen:
#   llama, theta 10000:      cosine 1.000 as transformers 5 saves it, 1.000 with version 4's names
#   llama, theta 500000:     cosine 0.310 as transformers 5 saves it, 1.000 with version 4's names
#   llama, scaled as llama3: cosine 0.326 as transformers 5 saves it, 1.000 with version 4's names
#   llama, scaled linearly:  cosine 0.213 as transformers 5 saves it, 1.000 with version 4's names
#   mistral, theta 1000000:  cosine 0.307 as transformers 5 saves it, 1.000 with version 4's names
#   qwen2, theta 1000000:    cosine 1.000 as transformers 5 saves it, 1.000 with version 4's names
#   qwen2, theta 10000:      cosine 0.362 as transformers 5 saves it, 1.000 with version 4's names
#   phi3, theta 250000:      cosine 0.334 as transformers 5 saves it, 1.000 with version 4's names
#   olmo2, theta 500000:     cosine 0.846 as transformers 5 saves it, 1.000 with version 4's names
#   qwen3, theta 1000000:    cosine 1.000 as transformers 5 saves it, 1.000 with version 4's names
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.24.0 torch==2.13.0 numpy==2.4.6

cat > "$work/rope.py" <<'PY'
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
size |= {"num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.3, "pad_token_id": 0, "max_position_embeddings": 512}
llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
cases = {
    "llama, theta 10000": ("llama", {"rope_type": "default", "rope_theta": 10000.0}),
    "llama, theta 500000": ("llama", {"rope_type": "default", "rope_theta": 500000.0}),
    "llama, scaled as llama3": ("llama", {"rope_type": "llama3", "rope_theta": 10000.0} | llama3),
    "llama, scaled linearly": ("llama", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "mistral, theta 1000000": ("mistral", {"rope_type": "default", "rope_theta": 1000000.0}),
    "qwen2, theta 1000000": ("qwen2", {"rope_type": "default", "rope_theta": 1000000.0}),
    "qwen2, theta 10000": ("qwen2", {"rope_type": "default", "rope_theta": 10000.0}),
    "phi3, theta 250000": ("phi3", {"rope_type": "default", "rope_theta": 250000.0}),
    "olmo2, theta 500000": ("olmo2", {"rope_type": "default", "rope_theta": 500000.0}),
    "qwen3, theta 1000000": ("qwen3", {"rope_type": "default", "rope_theta": 1000000.0}),
}
right = {"llama, theta 10000", "qwen2, theta 1000000", "qwen3, theta 1000000"}
ids = torch.from_numpy(np.random.default_rng(0).integers(1, 200, (1, 100)))


def cosine(folder: Path, expected: np.ndarray) -> float:
    """Returns the mean cosine of mlx-lm's last states of the tokens with those of transformers."""
    model, _ = load_model(folder)
    got = np.array(model.model(mx.array(ids.numpy()))[0].astype(mx.float32))
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((got * expected).sum(axis=1) / lengths).mean())


for number, (name, (kind, rope)) in enumerate(cases.items()):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **size, rope_parameters=rope, tie_word_embeddings=False)
    config.sliding_window = None
    model = AutoModelForCausalLM.from_config(config).eval()
    folder = Path(sys.argv[1]) / str(number)
    model.save_pretrained(folder)
    expected = model.model(ids).last_hidden_state[0].numpy()
    saved = cosine(folder, expected)
    # The same folder, its positions said as version 4 of transformers has saved them.
    settings = json.loads((folder / "config.json").read_text())
    settings["rope_theta"] = settings["rope_parameters"].pop("rope_theta")
    scaling = settings.pop("rope_parameters")
    if scaling["rope_type"] != "default":
        settings["rope_scaling"] = scaling
    (folder / "config.json").write_text(json.dumps(settings))
    older = cosine(folder, expected)
    print(f"{name + ':':24} cosine {saved:.3f} as transformers 5 saves it, {older:.3f} with version 4's names")
    if older < 0.999 or (saved > 0.999) != (name in right):
        sys.exit(f"{name} behaves otherwise now.")
PY
"$work/venv/bin/python" "$work/rope.py" "$work"
