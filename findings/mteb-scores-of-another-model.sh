#!/usr/bin/env bash
# Version:   mteb 2.26.24 with sentence-transformers 6.2.0.
# Guess:     mteb.evaluate(model, task) gives the scores of that model.
# Behaviour: scores are kept in ~/.cache/mteb by the model's name, and every model out of a local folder has the name
#            no_model_name/available. The first one is measured; each later one, of another folder, trained further or
#            cut to fewer dimensions, gets the scores of the first, in any later process too, and computes nothing. Only
#            a log line of level INFO says so. cache=None or overwrite_strategy="always" measure.
# Why:       comparing checkpoints and settings of one's own model is what one runs a benchmark for: training seems to
#            change nothing, and cutting to 8 dimensions costs nothing.
# Seen:
#   one              kept -0.135, measured -0.135
#   two              kept -0.135, measured 0.003
#   two, 8 numbers   kept -0.135, measured 0.098
#   two, trained     kept -0.135, measured -0.068
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 MTEB_CACHE="$work/cache"

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 mteb==2.26.24 \
  tokenizers==0.23.3 datasets==5.2.0 numpy==2.4.6

cat > "$work/kept.py" <<'PY'
import sys
import warnings

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskSTS
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

warnings.simplefilter("ignore")
random = np.random.default_rng(0)
words = [f"w{number}" for number in range(40)]
split = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
left, right = ([" ".join(random.choice(words, 3)) for _ in range(60)] for _ in range(2))
pairs = {"sentence1": left, "sentence2": right, "score": random.uniform(0, 5, 60).tolist()}


class Pairs(AbsTaskSTS):
    min_score, max_score = 0, 5
    metadata = TaskMetadata(
        name="Pairs", description="Pairs of texts", dataset={"path": "own/pairs", "revision": "1"}, type="STS",
        category="t2t", modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"],
        main_score="cosine_spearman",
    )

    def load_data(self, **settings: object) -> None:
        self.dataset = DatasetDict(test=Dataset.from_dict(pairs))
        self.data_loaded = True


def score(model: SentenceTransformer, **settings: object) -> float:
    return float(mteb.evaluate(model, Pairs(), show_progress_bar=False, **settings).task_results[0].get_score())


for name in ("one", "two"):
    table = random.standard_normal((len(words), 32)).astype(np.float32)
    SentenceTransformer(modules=[StaticEmbedding(split, embedding_weights=table)]).save(f"{sys.argv[1]}/{name}")
compared = {
    "one": SentenceTransformer(f"{sys.argv[1]}/one", device="cpu"),
    "two": SentenceTransformer(f"{sys.argv[1]}/two", device="cpu"),
    "two, 8 numbers": SentenceTransformer(f"{sys.argv[1]}/two", device="cpu", truncate_dim=8),
    "two, trained": SentenceTransformer(f"{sys.argv[1]}/two", device="cpu"),
}
compared["two, trained"][0].embedding.weight.data += 1.5 * random.standard_normal((len(words), 32)).astype(np.float32)
kept = {name: score(model) for name, model in compared.items()}
measured = {name: score(model, cache=None) for name, model in compared.items()}
for name in compared:
    print(f"{name:16} kept {kept[name]:.3f}, measured {measured[name]:.3f}")
first = measured["one"]
if any(abs(value - first) > 0.001 for value in kept.values()):
    sys.exit("Each model is now measured, or kept, by itself.")
if any(abs(measured[name] - first) < 0.02 for name in list(compared)[1:]):
    sys.exit("The models no longer differ.")
PY
"$work/venv/bin/python" "$work/kept.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
if grep -i "cache\|already exist" "$work/said" >&2; then echo "mteb now says so." >&2; exit 1; fi
