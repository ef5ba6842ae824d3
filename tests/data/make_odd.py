"""Make tests/data/odd: right values for checkpoints and calls that are out of the ordinary, one file a kind.

    python tests/data/make_odd.py [KIND ...]

Needs torch, transformers, sentence-transformers, datasets, peft and mpmath. A file's "versions" say which were used.
Folders are made of the tiny checkpoints beside this file.
"""

import contextlib
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"

HERE = Path(__file__).parent
ODD = HERE / "odd"
TEXTS = [
    "the wing flow of heat in the boundary layer",
    "note",
    "code index search the wing of a note in the layer " * 2,
]
PAIRS = [["the wing", "heat of the layer"], ["the wing", "flow speed"], ["note", "code index"]]


def versions(*names: str) -> dict[str, str]:
    return {name: version(name) for name in names}


@contextlib.contextmanager
def copied(source: str, **config: Any) -> Iterator[Path]:
    """A copy of a tiny checkpoint with a tokenizer, and keys of its config.json changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        shutil.copytree(HERE / source, folder)
        tokens = HERE / ("tiny-mpnet" if source.endswith("roberta") else "tiny-bert")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / file).is_file():
                shutil.copy(tokens / file, folder)
        change(folder / "config.json", **config)
        yield folder


def change(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object; None removes one."""
    value = (json.loads(path.read_text()) if path.is_file() else {}) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def save(name: str, meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    ODD.mkdir(exist_ok=True)
    np.savez_compressed(ODD / f"{name}.npz", meta=np.array(json.dumps(meta)), **arrays)


def sentence_transformer(folder: Path, **options: Any) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, **options)


def direction() -> None:
    """Whether tokens see what comes after them: mean-pooled vectors, text by text and in one padded batch.

    Where the two disagree, transformers contradicts itself; such a config.json is to be refused.
    """
    both, neither = {"is_causal": False}, {"is_causal": True}
    rows: list[tuple[str, dict[str, Any]]] = [
        *(("tiny-bert", keys) for keys in ({}, both, neither, {"is_decoder": True}, {"is_decoder": True, **both})),
        *(("encoders/roberta", keys) for keys in ({}, {"is_decoder": True}, {"is_decoder": True, **both}, neither)),
        *(("tiny-mpnet", keys) for keys in ({}, {"is_decoder": True}, neither)),
        *(
            (f"encoders/{name}", keys)
            for name in ("distilbert", "gte", "nomic_bert", "modernbert")
            for keys in ({"is_decoder": True}, neither)
        ),
        *(
            (f"decoders/{name}", keys)
            for name in ("qwen3", "mistral")
            for keys in ({}, both, neither, {"is_decoder": False}, {"use_bidirectional_attention": True})
        ),
        *(
            ("decoders/gemma3_text", {"use_bidirectional_attention": sees, **more})
            for sees in (True, False)
            for more in ({}, both, neither)
        ),
    ]
    meta, arrays = [], {}
    for number, (source, keys) in enumerate(rows):
        with copied(source, **keys) as folder:
            (folder / "modules.json").unlink(missing_ok=True)
            model = sentence_transformer(folder)
            model[1].pooling_mode = "mean"
            alone, together = model.encode(TEXTS, batch_size=1), model.encode(TEXTS, batch_size=8)
        agree = bool(np.abs(alone - together).max() < 1e-4)
        meta.append({"source": source, "config": keys, "consistent": agree})
        arrays[str(number)] = alone
    save(
        "direction",
        {"versions": versions("transformers", "sentence-transformers"), "texts": TEXTS, "rows": meta},
        arrays,
    )


def bare() -> None:
    """Folders without modules.json: the pooling mode and the greatest length that sentence-transformers chooses."""
    rows = []
    for source, keys in (
        ("decoders/qwen3", {"architectures": ["Qwen3ForCausalLM"]}),
        ("decoders/qwen3", {"architectures": ["Qwen3ForCausalLM"], "is_causal": False}),
        ("decoders/qwen3", {"architectures": ["Qwen3ForCausalLM"], "is_causal": True}),
        ("decoders/qwen3", {"architectures": ["Qwen3Model"]}),
        ("decoders/qwen3", {"architectures": None}),
        ("decoders/qwen3", {"architectures": ["Qwen3Model", "Qwen3ForCausalLM"]}),
        ("decoders/mistral", {"architectures": ["MistralForCausalLM"]}),
        ("decoders/gemma3_text", {"architectures": ["Gemma3ForCausalLM"]}),
        ("tiny-bert", {"architectures": ["BertForMaskedLM"]}),
        ("tiny-bert", {"architectures": ["BertLMHeadModel"]}),
        ("tiny-bert", {"architectures": ["BertForCausalLM"]}),
    ):
        with copied(source, **keys) as folder:
            for name in ("modules.json", "config_sentence_transformers.json"):
                (folder / name).unlink(missing_ok=True)
            model = sentence_transformer(folder)
        row = {
            "source": source,
            "config": keys,
            "pooling": model[1].pooling_mode,
            "max_seq_length": model.max_seq_length,
        }
        rows.append(row | {"modules": [type(module).__name__ for module in model]})
    # What lies beside config.json is read or not, whether or not there is a modules.json.
    for file, content in (
        ("sentence_bert_config.json", {"max_seq_length": 6}),
        ("config_sentence_transformers.json", {"prompts": {"query": "note "}, "default_prompt_name": "query"}),
        ("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}),
    ):
        with copied("tiny-bert") as folder:
            (folder / "modules.json").unlink()
            (folder / file).write_text(json.dumps(content))
            model = sentence_transformer(folder)
        row = {"source": "tiny-bert", "beside": {file: content}, "pooling": model[1].pooling_mode}
        rows.append(
            row
            | {"max_seq_length": model.max_seq_length, "prompts": model.prompts, "default": model.default_prompt_name}
        )
    ODD.mkdir(exist_ok=True)
    (ODD / "bare.json").write_text(json.dumps({"versions": versions("sentence-transformers"), "rows": rows}, indent=1))


def transformer_settings() -> None:
    """Keys of sentence_bert_config.json: vectors of three calls."""
    rows: list[dict[str, Any]] = [
        {},
        {"processing_kwargs": {"text": {"max_length": 8, "truncation": True}}},
        {"processing_kwargs": {"text": {"max_length": 8}}},
        {"processing_kwargs": {"common": {"max_length": 8}}},
        {"processing_kwargs": {"common": {"max_length": 8}, "text": {"max_length": 5}}},
        {"processing_kwargs": {"text": {"truncation": False}}},
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
        {"processing_kwargs": {"text": {"truncation_side": "left", "max_length": 6}}},
        {"query_length": 6},
        {"document_length": 7},
        {"query_length": 6, "document_length": 7, "max_seq_length": 5},
        {"query_length": 6, "processing_kwargs": {"text": {"max_length": 8}}},
        {"tokenizer_args": {"model_max_length": 6}},
        {"processor_kwargs": {"model_max_length": 6}},
        {"tokenizer_args": {"model_max_length": 6}, "max_seq_length": 9},
        {"tokenizer_args": {"truncation_side": "left", "model_max_length": 6}},
        {"tokenizer_args": {"do_lower_case": False}},
        {"config_args": {"hidden_act": "relu"}},
        {"config_kwargs": {"num_hidden_layers": 1}},
        {"model_args": {"attn_implementation": "eager"}},
        {"max_seq_length": 9, "do_lower_case": True},
        {"unpad_inputs": False},
        {"transformer_task": "feature-extraction"},
        {
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
        {
            "modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}},
            "module_output_name": "sentence_embedding",
        },
        {"query_expansion": {"strategy": "fixed", "length": 8}},
    ]
    texts = [*TEXTS, "The WING of heat"]
    meta, arrays = [], {}
    for number, keys in enumerate(rows):
        row: dict[str, Any] = {"keys": keys}
        with copied("tiny-bert") as folder:
            path = folder / "sentence_bert_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | keys))
            try:
                model = sentence_transformer(folder)
                calls = (model.encode, model.encode_query, model.encode_document)
                arrays[str(number)] = np.stack([call(texts, batch_size=1) for call in calls])
                row["max_seq_length"] = model.max_seq_length
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:200]
        meta.append(row)
    save("transformer_settings", {"versions": versions("sentence-transformers"), "texts": texts, "rows": meta}, arrays)


def adapters() -> None:
    """LoRA adapters beside tiny-bert: the config and the tensors' shapes as peft saves them, and the vectors."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from safetensors.numpy import load_file, save_file

    rows: dict[str, dict[str, Any]] = {
        "plain": {"target_modules": ["query", "value"], "lora_alpha": 8},
        "rslora": {"target_modules": ["query", "value"], "lora_alpha": 8, "use_rslora": True},
        "patterns": {
            "target_modules": ["query", "dense"],
            "lora_alpha": 8,
            "rank_pattern": {"layer.0.attention.self.query": 1, "output.dense": 3},
            "alpha_pattern": {"layer.1.attention.self.query": 5, r"encoder.layer.\d+.intermediate.dense": 16},
        },
        "all_linear": {"target_modules": "all-linear", "r": 1},
        "expression": {"target_modules": r".*layer\.1\..*(key|dense)"},
        "some_layers": {"target_modules": ["key"], "layers_to_transform": [1]},
        "saved_modules": {"target_modules": ["query"], "modules_to_save": ["intermediate.dense", "LayerNorm"]},
        "embeddings": {"target_modules": ["word_embeddings", "query"]},
        "lora_only_bias": {"target_modules": ["query"], "bias": "lora_only"},
        "all_biases": {"target_modules": ["query"], "bias": "all"},
        "bias_of_b": {"target_modules": ["query"], "lora_bias": True},
        "dora": {"target_modules": ["query"], "use_dora": True},
        "tokens": {"target_modules": ["query"], "trainable_token_indices": [5, 6]},
    }
    found = {}
    for name, options in rows.items():
        with copied("tiny-bert") as folder:
            config = LoraConfig(task_type="FEATURE_EXTRACTION", init_lora_weights=False, **({"r": 2} | options))
            encoder = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
            get_peft_model(encoder, config).save_pretrained(folder)
            settings = json.loads((folder / "adapter_config.json").read_text())
            path = folder / "adapter_model.safetensors"
            shapes = {key: value.shape for key, value in sorted(load_file(path).items())}
            save_file({key: noise(key, shape) for key, shape in shapes.items()}, path, {"format": "pt"})
            vectors = sentence_transformer(folder).encode(TEXTS)
        settings["base_model_name_or_path"] = "base"
        if isinstance(settings["target_modules"], list):
            settings["target_modules"].sort()
        settings = {key: value for key, value in settings.items() if value not in (None, {}, [])}
        found[name] = {"config": settings, "shapes": shapes, "vectors": vectors.round(6).tolist()}
    table = {"versions": versions("peft", "transformers"), "texts": TEXTS, "adapters": found}
    (ODD / "adapters.json").write_text(json.dumps(table))


def noise(name: str, shape: tuple[int, ...]) -> Any:
    """The tensor of an adapter: what a test makes anew from its name and shape. About 1 for a norm's weight."""
    values = np.random.default_rng(crc32(name.encode())).normal(0, 0.2, shape).astype(np.float32)
    return values + np.float32(1) if name.endswith(("LayerNorm.weight", "lora_magnitude_vector")) else values


def reranker_prompts() -> None:
    """A reranker on tiny-bert's encoder with prompts: scores by default, and with prompt_name and prompt."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    head = {"pooler.dense": (32, 32), "classifier": (1, 32)}
    tensors = {f"{name}.weight": torch.randn(shape) * 0.3 for name, shape in head.items()}
    tensors |= {f"{name}.bias": torch.randn(shape[:1]) * 0.3 for name, shape in head.items()}
    tensors = {("" if name.startswith("classifier") else "bert.") + name: value for name, value in tensors.items()}
    with (
        copied("tiny-bert", num_labels=1, architectures=["BertForSequenceClassification"]) as source,
        tempfile.TemporaryDirectory() as saved,
    ):
        encoder = {f"bert.{k}": v.float() for k, v in load_file(source / "model.safetensors").items()}
        plain = Path(saved) / "plain"
        plain.mkdir()
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / file, plain)
        change(plain / "config.json", dtype="float32")
        save_file({**encoder, **tensors}, plain / "model.safetensors", {"format": "pt"})
        assert isinstance(transformers.AutoConfig.from_pretrained(plain), transformers.BertConfig)
        prompts = {"q": "note ", "other": "code index "}
        model = CrossEncoder(
            str(plain), device="cpu", prompts=prompts, default_prompt_name="q", activation_fn=torch.nn.Identity()
        )
        with contextlib.redirect_stderr(io.StringIO()):
            model.save_pretrained(saved + "/whole", create_model_card=False)
        files = {
            path.relative_to(Path(saved) / "whole").as_posix(): json.loads(path.read_text())
            for path in Path(saved, "whole").rglob("*.json")
            if "tokenizer" not in path.name
        }
        loaded = CrossEncoder(saved + "/whole", device="cpu")
        arrays: dict[str, Any] = {
            "default": loaded.predict(PAIRS),
            "name": loaded.predict(PAIRS, prompt_name="other"),
            "prompt": loaded.predict(PAIRS, prompt="the "),
            "empty": loaded.predict(PAIRS, prompt=""),
            "sigmoid": loaded.predict(PAIRS, activation_fn=torch.nn.Sigmoid()),
        }
        ranked = loaded.rank("the wing", [pair[1] for pair in PAIRS], prompt_name="other")
    arrays |= {f"tensor/{name}": value.numpy() for name, value in tensors.items()}
    save(
        "reranker_prompts",
        {"versions": versions("sentence-transformers"), "pairs": PAIRS, "files": files, "rank": ranked},
        arrays,
    )


def truncated() -> None:
    """tiny-bert, which normalises, cut to 8 dimensions."""
    with copied("tiny-bert") as folder:
        model = sentence_transformer(folder)
    arrays = {
        "plain": model.encode(TEXTS, truncate_dim=8),
        "normalized": model.encode(TEXTS, truncate_dim=8, normalize_embeddings=True),
    }
    with copied("tiny-bert") as folder:
        change(folder / "config_sentence_transformers.json", truncate_dim=8)
        arrays["from_config"] = sentence_transformer(folder).encode(TEXTS)
    save("truncated", {"versions": versions("sentence-transformers"), "texts": TEXTS}, arrays)


def activations() -> None:
    """Every hidden_act of transformers, on float32 numbers, in float64."""
    import torch
    from transformers.activations import ACT2CLS, ACT2FN

    x = np.concatenate([np.linspace(-12, 12, 97), [-1e-6, 1e-6, -30, 30]]).astype(np.float32)
    arrays = {"x": x}
    for name in ACT2CLS:
        if name not in ("prelu", "xielu"):  # they have parameters
            with torch.no_grad():
                arrays[name] = ACT2FN[name](torch.from_numpy(x).double()).numpy()
    save("activations", {"versions": versions("transformers")}, arrays)


def scores() -> None:
    """Sigmoid, softmax and log-softmax of float32 numbers, rounded once."""
    import mpmath

    mpmath.mp.prec = 300
    generator = np.random.default_rng(0)
    x = np.concatenate(
        [
            np.linspace(-110, 110, 221),
            np.linspace(-20, 20, 81),
            generator.normal(0, 10, 64),
            [15, 16, 16.5, 17, 17.5, 88.7, 89, -87.5, -88, -103, -104, 1e-8, 0],
        ]
    ).astype(np.float32)
    sigmoid = np.array([np.float64(1 / (1 + mpmath.exp(-mpmath.mpf(float(v))))) for v in x]).astype(np.float32)
    rows = np.concatenate(
        [
            generator.normal(0, 5, (24, 4)),
            generator.normal(0, 60, (24, 4)),
            [[0, 0, 0, 0], [90, -90, 0, 1], [1e4, -1e4, 1e4, 0]],
        ]
    ).astype(np.float32)
    softmax, logarithms = [], []
    for row in rows:
        powers = [mpmath.exp(mpmath.mpf(float(v)) - mpmath.mpf(float(max(row)))) for v in row]
        softmax.append([np.float64(power / sum(powers)) for power in powers])
        logarithms.append([np.float64(mpmath.log(power / sum(powers))) for power in powers])
    arrays = {"x": x, "sigmoid": sigmoid, "rows": rows}
    arrays |= {"softmax": np.float32(softmax), "log_softmax": np.float32(logarithms)}
    save("scores", {"versions": versions("mpmath")}, arrays)


def evaluators() -> None:
    """What sentence-transformers' own code makes of tiny-bert."""
    from datasets import Dataset, fingerprint
    from sentence_transformers.sentence_transformer import evaluation
    from sentence_transformers.util import mine_hard_negatives, paraphrase_mining

    queries = {"q1": "the wing", "q2": "heat of the layer", "q3": "code"}
    corpus = {
        "d1": "flow speed of the wing",
        "d2": "boundary layer",
        "d3": "note index code",
        "d4": "search a note",
        "d5": "heat flow",
    }
    relevant = {"q1": {"d1"}, "q2": {"d2", "d5"}, "q3": {"d3"}}
    first, second = ["the wing", "heat", "note code"], ["flow speed", "heat of the layer", "index"]
    samples = [
        {"query": "the wing", "positive": ["flow of the wing"], "negative": ["note", "code index"]},
        {"query": "heat", "positive": ["heat flow"], "negative": ["search a note", "speed"]},
    ]
    asked = {
        "queries": queries,
        "corpus": corpus,
        "relevant": {k: sorted(v) for k, v in relevant.items()},
        "first": first,
        "second": second,
        "labels": [0.2, 0.9, 0.5],
        "negatives": ["note", "speed", "wing"],
        "samples": samples,
    }
    found: dict[str, Any] = {}
    with copied("tiny-bert") as folder:
        model = sentence_transformer(folder)
    small = {
        "accuracy_at_k": [1, 3],
        "precision_recall_at_k": [1, 3],
        "mrr_at_k": [3],
        "ndcg_at_k": [3],
        "map_at_k": [3],
    }
    makers: dict[str, Callable[[], Any]] = {
        "InformationRetrieval": lambda: evaluation.InformationRetrievalEvaluator(
            queries, corpus, relevant, show_progress_bar=False, write_csv=False, **small
        ),
        "EmbeddingSimilarity": lambda: evaluation.EmbeddingSimilarityEvaluator(
            first, second, asked["labels"], write_csv=False
        ),
        "Triplet": lambda: evaluation.TripletEvaluator(first, second, asked["negatives"], write_csv=False),
        "Reranking": lambda: evaluation.RerankingEvaluator(samples, at_k=2, write_csv=False, show_progress_bar=False),
    }
    for name, make in makers.items():
        result = make()(model)
        found[name] = {key: float(value) for key, value in result.items()}
    texts = [*queries.values(), *corpus.values()]
    found["paraphrase_mining"] = [[float(s), int(i), int(j)] for s, i, j in paraphrase_mining(model, texts)]
    # Its hash of a function cannot be taken of one that knows pyarrow, and is of use to a cache alone.
    fingerprint.Hasher.hash = classmethod(lambda cls, value: f"{id(value):x}")
    pairs = Dataset.from_dict({"query": first, "answer": second})
    with contextlib.redirect_stderr(io.StringIO()):
        mined = mine_hard_negatives(pairs, model, num_negatives=1, verbose=False)
    found["mine_hard_negatives"] = mined.to_dict()
    (ODD / "evaluators.json").write_text(
        json.dumps({"versions": versions("sentence-transformers"), "asked": asked, "found": found}, indent=1)
    )


KINDS = (
    direction,
    bare,
    transformer_settings,
    adapters,
    reranker_prompts,
    truncated,
    activations,
    scores,
    evaluators,
)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for kind in KINDS:
        if not sys.argv[1:] or kind.__name__ in sys.argv[1:]:
            kind()


if __name__ == "__main__":
    main()
