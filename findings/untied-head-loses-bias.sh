#!/usr/bin/env bash
# Version:   transformers 4.57.6, which saves, and 5.24.0, which loads, with torch 2.13.0.
# Guess:     a masked language model that version 4 has saved is the same model in version 5, also where its output
#            weights are its own ("tie_word_embeddings": false), as in a SPLADE that was trained so.
# Behaviour: of BERT, RoBERTa, XLM-RoBERTa and MPNet the bias of the output layer is zeros after loading. Version 4 keeps
#            one bias under two names, of which it writes `lm_head.bias` (BERT: `cls.predictions.bias`); version 5 takes
#            the two for one only where the weights are tied too, finds no `decoder.bias`, and makes it anew. The logits
#            lack a number for each token, as large as it is; a line of the load report says MISSING, and nothing fails.
#            With tied weights all is as it was.
# Why:       a sparse model's weights are these logits: terms that the bias holds down come up. Whoever only reads
#            "1 key is missing" looks for a broken download.
# Seen:
#   roberta, tied: missing [], logits differ by 0.00
#   roberta, untied: missing ['lm_head.decoder.bias'], logits differ by 2.49
#   xlm-roberta, untied: missing ['lm_head.decoder.bias'], logits differ by 2.49
#   mpnet, untied: missing ['lm_head.decoder.bias'], logits differ by 3.42
#   bert, untied: missing ['cls.predictions.decoder.bias'], logits differ by 2.74
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/four"
"$work/four/bin/pip" install --quiet transformers==4.57.6 torch==2.13.0 numpy==2.4.6
python3 -m venv "$work/five"
"$work/five/bin/pip" install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6

cat > "$work/save.py" <<'PY'
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForMaskedLM

CASES = [("roberta", True)] + [(kind, False) for kind in ("roberta", "xlm-roberta", "mpnet", "bert")]
sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
sizes |= {"intermediate_size": 32, "max_position_embeddings": 40, "initializer_range": 0.5}
ids = torch.tensor([[0, 7, 8, 9, 2]])
for kind, tied in CASES:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, tie_word_embeddings=tied, **sizes)
    model = AutoModelForMaskedLM.from_config(config).eval()
    folder = Path(sys.argv[1]) / f"{kind}-{'tied' if tied else 'untied'}"
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(torch.randn(50))
        model.save_pretrained(folder)
        torch.save(model(ids).logits, folder / "logits.pt")
PY

cat > "$work/load.py" <<'PY'
import sys
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM

ids = torch.tensor([[0, 7, 8, 9, 2]])
as_said = True
for kind in ("roberta-tied", "roberta-untied", "xlm-roberta-untied", "mpnet-untied", "bert-untied"):
    folder = Path(sys.argv[1]) / kind
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    with torch.no_grad():
        distance = (model.eval()(ids).logits - torch.load(folder / "logits.pt")).abs().max().item()
        bias = model.get_output_embeddings().bias.abs().max().item()
    name, how = kind.rsplit("-", 1)
    print(f"{name}, {how}: missing {sorted(info['missing_keys'])}, logits differ by {distance:.2f}")
    as_said &= distance < 1e-4 if how == "tied" else distance > 1 and bias == 0
sys.exit(not as_said)
PY

"$work/four/bin/python" "$work/save.py" "$work" 2> /dev/null
"$work/five/bin/python" "$work/load.py" "$work" 2> /dev/null
