"""The side of `bench_gpu.py` in which this package and its peers take turns, each in a process of its own.

All compute in one --dtype, from strings or from ids on the host to vectors on the host. Each racer is given its best:
texts sorted by length, the best of some batch sizes, and for torch.compile batches whose shapes are few. There is no
flash attention in float32.
"""

import argparse
import importlib
import importlib.util
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu_texts
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, PASSES = 5, 5
COUNT, LENGTH = 1024, 128
LONGEST = 256
TEXTS = "Cranfield's texts"
Figures = dict[str, float]
Run = Callable[[], np.ndarray]
# Of each case a way to run it, or several, of which the fastest is taken.
Cases = dict[str, list[Run]]

# The interface of the package flash-attn, whose kernels PyTorch carries itself: transformers asks for the package.
STAND_IN = """
import torch
from torch.nn.attention.varlen import varlen_attn


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                           deterministic=False, return_attn_probs=False, block_table=None):
    assert not causal and not dropout_p and softmax_scale in (None, q.shape[-1] ** -0.5)
    window = {} if tuple(window_size) == (-1, -1) else {"window_size": tuple(window_size)}
    return varlen_attn(q, k, v, cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k), **window)


def flash_attn_func(q, k, v, *args, **kwargs):
    n, length = q.shape[:2]
    starts = torch.arange(0, (n + 1) * length, length, dtype=torch.int32, device=q.device)
    rows = (x.flatten(0, 1) for x in (q, k, v))
    return flash_attn_varlen_func(*rows, starts, starts, length, length, *args, **kwargs).unflatten(0, (n, length))


def flash_attn_with_kvcache(*args, **kwargs):
    raise NotImplementedError
"""


def side(work: Path, options: argparse.Namespace) -> Figures:
    """Milliseconds of each racer at each case, and the lowest cosine of its vectors to the first racer's."""
    racers = {}
    for name in options.racers:
        given = ["--racer", name, "--work", str(work), "--documents", str(options.documents), "--dtype", options.dtype]
        for key in ("model", "cranfield"):
            if getattr(options, key):
                given += [f"--{key}", str(getattr(options, key))]
        log = (work / f"{name}.log").open("w")
        racers[name] = subprocess.Popen(
            [sys.executable, __file__, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    ready: dict[str, dict[str, str]] = {}
    start = time.perf_counter()
    for name, racer in racers.items():
        assert racer.stdout is not None
        patience = max(options.patience - (time.perf_counter() - start), 0)
        line = racer.stdout.readline() if select.select([racer.stdout], [], [], patience)[0] else ""
        if line:
            ready[name] = json.loads(line)
        else:
            racer.kill()
            why = (work / f"{name}.log").read_text()[-1500:]
            print(f"{name} was not ready after {time.perf_counter() - start:.0f} s:\n{why}", file=sys.stderr)
    figures: Figures = {}
    for case in dict.fromkeys(case for cases in ready.values() for case in cases):
        seconds: dict[str, list[float]] = {name: [] for name, cases in ready.items() if case in cases}
        for _ in range(ROUNDS):
            for name, found in seconds.items():
                racer = racers[name]
                assert racer.stdin is not None
                assert racer.stdout is not None
                racer.stdin.write(case + "\n")
                racer.stdin.flush()
                found.append(float(racer.stdout.readline()))
        first = np.load(ready[next(iter(seconds))][case])
        for name, found in seconds.items():
            figures[f"{case}: {name}, ms"] = statistics.median(found) * 1e3
            vectors = np.load(ready[name][case])
            figures[f"{case}: {name}, lowest cosine"] = float((vectors * first).sum(axis=1).min())
    for racer in racers.values():
        racer.kill()
    return figures


def race(options: argparse.Namespace, cases: Cases, answers: Any) -> None:
    """Say what there is and where its vectors are; then for each case that is asked for the median of some passes."""
    places = {}
    for case, runs in cases.items():
        for run in runs:
            vectors = np.asarray(run(), dtype=np.float32)
        places[case] = str(options.work / f"{options.racer}, {case}.npy")
        np.save(places[case], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        let_go()
    print(json.dumps(places), file=answers, flush=True)
    for line in sys.stdin:
        case = line.rstrip("\n")
        if len(cases[case]) > 1:
            cases[case] = [min(cases[case], key=lambda run: passes(run, 2))]
        print(passes(cases[case][0], 1 if case == TEXTS else PASSES), file=answers, flush=True)
        let_go()


def passes(run: Run, count: int) -> float:
    """Seconds, the median of so many passes after one that does not count."""
    seconds = []
    for _ in range(1 + count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def let_go() -> None:
    """What the libraries keep of the GPU's memory, which the other racers share."""
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    if "mlx.core" in sys.modules:
        sys.modules["mlx.core"].clear_cache()


def models(options: argparse.Namespace) -> Iterator[tuple[str, Path, np.ndarray]]:
    """Of the cases that begin with ids: a name, a checkpoint, and ids."""
    ids = np.random.default_rng(1).integers(1000, 30000, size=(COUNT, LENGTH)).astype(np.int32)
    for name, folder in (("MiniLM", options.model or options.work / "MiniLM-L6"), ("BERT-base", None)):
        yield f"{name}, {COUNT} x {LENGTH} ids", folder or options.work / "BERT-base", ids


def ours(options: argparse.Namespace) -> Cases:
    from custom_kernels.cuda.ahead import under_way
    from mlx_embed import EmbeddingModel
    from mlx_embed.batching import Batch

    cases: Cases = {}
    for name, folder, ids in models(options):
        model = EmbeddingModel.from_pretrained(folder, dtype=options.dtype)
        engine, head = model.engine, model.head()
        (batch,) = engine.batches(list(ids), ids.size)

        def run(engine: Any = engine, head: Any = head, batch: Batch = batch) -> np.ndarray:
            (rows,) = (rows for _, rows in engine.run([batch], head))
            return np.asarray(rows)

        run()
        under_way(60)
        cases[name] = [run]
        cases.setdefault(TEXTS, [partial(model.encode, texts(options))])
    return cases


def texts(options: argparse.Namespace) -> list[str]:
    return gpu_texts.cranfield(options.cranfield, options.documents)


def torch_ids(options: argparse.Namespace, compiled: dict[str, Any] | None, only: str = "") -> Cases:
    import torch
    from transformers import AutoModel

    cases: Cases = {}
    for name, folder, ids in models(options):
        if not name.startswith(only):
            continue
        attention = "sdpa" if compiled is None else unmasked()
        dtype = getattr(torch, options.dtype)
        model: Any = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention).cuda().eval()
        if compiled is not None:
            model = torch.compile(model, dynamic=False, **compiled)
        tokens = torch.from_numpy(ids.astype(np.int64))

        @torch.inference_mode()
        def run(model: Any = model, tokens: Any = tokens) -> np.ndarray:
            hidden = model(input_ids=tokens.cuda()).last_hidden_state
            unit: np.ndarray = torch.nn.functional.normalize(hidden.float().mean(dim=1)).cpu().numpy()
            return unit

        cases[name] = [run]
    return cases


def unmasked() -> str:
    """The name of transformers' sdpa attention for texts that nothing pads, for torch.compile.

    Compiled, transformers 5.17 makes a mask for the texts without one, and attention becomes products in float32.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **others: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, None, **others)

    AttentionInterface.register("sdpa_unmasked", attend)
    AttentionMaskInterface.register("sdpa_unmasked", lambda *given, **named: None)
    return "sdpa_unmasked"


def sentence_transformers(options: argparse.Namespace, attention: str) -> Cases:
    import torch
    from sentence_transformers import SentenceTransformer

    how = {"dtype": getattr(torch, options.dtype), "attn_implementation": attention}
    model = SentenceTransformer(str(options.model), device="cuda", model_kwargs=how)
    model.max_seq_length = LONGEST
    corpus = texts(options)
    return {TEXTS: [partial(model.encode, corpus, batch_size=size) for size in (128, 512, 2048)]}


def eager(options: argparse.Namespace) -> Cases:
    return sentence_transformers(options, "sdpa") | torch_ids(options, None)


def flash_attention(work: Path) -> str:
    """The name of flash attention, of which transformers finds the stand-in for its package."""
    folder = Path(tempfile.mkdtemp(dir=work))
    package, about = folder / "flash_attn", folder / "flash_attn-2.8.3.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text(STAND_IN)
    (package / "bert_padding.py").write_text("pad_input = unpad_input = None\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    (about / "top_level.txt").write_text("flash_attn\n")
    (about / "RECORD").write_text("flash_attn/__init__.py,,\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return "flash_attention_2"


def unpadded(options: argparse.Namespace) -> Cases:
    """sentence-transformers with flash attention, for which it does not pad."""
    return sentence_transformers(options, flash_attention(options.work))


def by_batches(
    options: argparse.Namespace, size: int, multiple: int, whole: bool, embed: Callable[[dict[str, Any]], Any]
) -> Run:
    """Texts sorted by length, in batches of `size`, padded to a multiple, and with `whole` to as many rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    corpus = texts(options)
    order = sorted(range(len(corpus)), key=lambda i: -len(corpus[i]))

    def run() -> np.ndarray:
        parts = []
        for start in range(0, len(order), size):
            rows = [corpus[i] for i in order[start : start + size]]
            count = len(rows)
            rows += rows[:1] * (size - count if whole else 0)
            padding = {"padding": True, "pad_to_multiple_of": multiple, "return_tensors": "np"}
            parts.append((embed(dict(tokenizer(rows, truncation=True, max_length=LONGEST, **padding))), count))
        vectors = np.concatenate([np.asarray(part)[:count] for part, count in parts])
        out = np.empty_like(vectors)
        out[order] = vectors
        return out

    return run


def compiled(options: argparse.Namespace, **how: Any) -> Cases:
    import torch
    from transformers import AutoModel

    torch._dynamo.config.recompile_limit = 64
    dtype = getattr(torch, options.dtype)
    model = AutoModel.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa").cuda().eval()
    model = torch.compile(model, dynamic=False, **how)

    @torch.inference_mode()
    def embed(inputs: dict[str, Any]) -> Any:
        inputs = {name: torch.from_numpy(array).cuda() for name, array in inputs.items()}
        hidden = model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][:, :, None]
        return torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()

    return {TEXTS: [by_batches(options, 512, 64, True, embed)]} | torch_ids(options, how)


def mlx_embeddings(options: argparse.Namespace) -> Cases:
    """Its model's code, without the package itself, which imports mlx-vlm; its `generate` pads as this does."""
    import mlx.core as mx

    found = importlib.util.find_spec("mlx_embeddings")
    assert found is not None
    assert found.origin is not None
    package = ModuleType("mlx_embeddings_models")
    package.__path__ = [str(Path(found.origin).parent / "models")]
    sys.modules[package.__name__] = package
    bert = importlib.import_module(f"{package.__name__}.bert")

    def load(folder: Path) -> Any:
        model = bert.Model(bert.ModelArgs.from_dict(json.loads((folder / "config.json").read_text())))
        weights = model.sanitize(mx.load(str(folder / "model.safetensors")))
        model.load_weights(list(weights.items()), strict=False)
        model.set_dtype(getattr(mx, options.dtype))
        mx.eval(model.parameters())
        model.eval()
        return model

    cases: Cases = {}
    for name, folder, ids in models(options):
        model = load(folder)

        def embed(inputs: dict[str, Any], model: Any = model) -> mx.array:
            out: mx.array = model(**{key: mx.array(value) for key, value in inputs.items()}).text_embeds
            mx.async_eval(out)
            return out

        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}

        def run(embed: Any = embed, inputs: Any = inputs) -> np.ndarray:
            return np.array(embed(inputs))

        cases[name] = [run]
        if TEXTS not in cases:
            cases[TEXTS] = [by_batches(options, size, 1, False, embed) for size in (128, 512)]
    return cases


RACERS: dict[str, Callable[[argparse.Namespace], Cases]] = {
    "mlx-embed": ours,
    "PyTorch": eager,
    "PyTorch, unpadded": unpadded,
    "torch.compile": compiled,
    # Each shape of each product takes half a minute to tune, so only those of one model and of ids.
    "torch.compile max-autotune": partial(torch_ids, compiled={"mode": "max-autotune"}, only="MiniLM"),
    "mlx-embeddings": mlx_embeddings,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--racer", choices=RACERS, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cranfield", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    # What libraries print is not for whoever reads the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    race(options, RACERS[options.racer](options), answers)


if __name__ == "__main__":
    main()
