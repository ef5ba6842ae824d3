#!/usr/bin/env python3
"""Damage checkpoints, embed odd strings and make odd calls: each ends in a sound result or in one clear error.

    python scripts/fuzz.py [--loads 10000] [--texts 10000] [--calls 1500] [--seed N] [--case KIND:N]

Cases run in children that may use so much memory and time. It prints the seed, and each failure with what repeats it:
a crash, a hang, an exception that is not promised, vectors that are not finite, or damaged weights that load although
some of their bytes belong to no tensor. Exits with 1 where there is one.
"""

import argparse
import contextlib
import math
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DATA = ROOT / "tests" / "data"
KINDS = ("loads", "texts", "calls")
CHUNK = {"loads": 500, "texts": 2000, "calls": 1000}
SECONDS = 60  # without a sign of life
MEMORY = 8 * 2**30
EXAMPLE = "The wing stalls, 机翼失速; L'aile décroche."


class UnsoundError(Exception):
    """A result that is wrong although nothing was raised."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=10_000)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--case", help="run one case again, here and now: loads:17")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child or options.case:
        kind, _, span = (options.child or options.case).partition(":")
        first, _, end = span.partition("-")
        return child(options.seed, kind, int(first), int(end or int(first) + 1), verbose=not options.child)
    print(f"seed {options.seed}", flush=True)
    failures = 0
    for kind in KINDS:
        start, counts = time.monotonic(), dict.fromkeys(("refused", "sound", "failed"), 0)
        for case, outcome in cases(options.seed, kind, getattr(options, kind)):
            counts[outcome if outcome in counts else "failed"] += 1
            if outcome not in counts:
                print(
                    f"{kind}:{case} {outcome}\n  python scripts/fuzz.py --seed {options.seed} --case {kind}:{case}",
                    flush=True,
                )
        failures += counts["failed"]
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        print(f"{getattr(options, kind)} {kind}: {told}, in {time.monotonic() - start:.0f} s", flush=True)
    return 1 if failures else 0


def cases(seed: int, kind: str, count: int) -> Iterator[tuple[int, str]]:
    """Each case and how it went: "sound", "refused", or what is wrong."""
    first = 0
    while first < count:
        end = min(count, first + CHUNK[kind])
        for case, outcome in in_child(seed, kind, first, end):
            yield case, outcome
            first = case + 1


def in_child(seed: int, kind: str, first: int, end: int) -> Iterator[tuple[int, str]]:
    """The cases of one child, up to the one that ends it."""
    command = [sys.executable, __file__, "--seed", str(seed), "--child", f"{kind}:{first}-{end}"]
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
        assert process.stdout is not None
        lines = read_lines(process.stdout.fileno())
        case = first
        for line in lines:
            if line is None:
                process.kill()
                yield case, f"hung for {SECONDS} s"
                return
            number, _, outcome = line.partition(" ")
            yield int(number), outcome
            case = int(number) + 1
        status = process.wait()
        if case < end or status:
            said.seek(0)
            yield min(case, end - 1), f"ended the process with {status}: {said.read()[-800:].decode(errors='replace')}"


def read_lines(descriptor: int) -> Iterator[str | None]:
    """Lines as they come; None, and an end, where none comes for too long."""
    left = b""
    while True:
        if not select.select([descriptor], [], [], SECONDS)[0]:
            yield None
            return
        read = os.read(descriptor, 65536)
        if not read:
            return
        *whole, left = (left + read).split(b"\n")
        for line in whole:
            yield line.decode()


def child(seed: int, kind: str, first: int, end: int, *, verbose: bool) -> int:
    """Run cases, and print a line for each."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed
    from mlx_embed.engine.device import accelerator

    if accelerator() != "cuda":  # which reserves more addresses than that
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    run: Callable[[random.Random, Path], str] = {"loads": load, "texts": embed, "calls": call}[kind]
    with tempfile.TemporaryDirectory() as work:
        for case in range(first, end):
            what: list[str] = []
            try:
                outcome = run(random.Random(f"{seed} {kind} {case}"), Path(work), what.append)  # type: ignore[call-arg]
            except BaseException as error:
                if verbose:
                    traceback.print_exc()
                shown = traceback.extract_tb(error.__traceback__)[-1]
                outcome = f"{type(error).__name__}: {error!s:.300} ({Path(shown.filename).name}:{shown.lineno})"
            if outcome not in ("sound", "refused"):
                outcome = f"{'; '.join(what)}: {outcome}".replace("\n", " ")
            print(case, outcome, file=out)
            if verbose:
                print(*what, file=sys.stderr)
    return 0


def load(rng: random.Random, work: Path, say: Callable[[str], None]) -> str:
    """A damaged checkpoint is refused, or gives finite vectors and accounts for every byte of its weights."""
    from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel
    from tests import mutations

    name = rng.choice(sorted(mutations.makers()))
    folder = mutations.copied(base(name, work), work / "damaged")
    engine: Any = rng.choice(["auto", "auto", "auto", "reference"])
    say(f"{name}, {mutations.damage(folder, rng)}, engine {engine}")
    kind: Any = CrossEncoder if "reranker" in name else EmbeddingModel
    try:
        model = kind.from_pretrained(folder, device="cpu", engine=engine)
        found = model.predict([(EXAMPLE, "the wing")]) if kind is CrossEncoder else model.encode([EXAMPLE, ""])
    except CheckpointError as error:
        if len(str(error)) < 20:
            raise UnsoundError(f"the error says too little: {error}") from error
        return "refused"
    check_finite(found)
    if file := mutations.unaccounted(folder):
        raise UnsoundError(f"it loads, but {file} has bytes that belong to no tensor")
    return "sound"


@cache
def base(name: str, work: Path) -> Path:
    from tests import mutations

    folder = work / "sound" / str(len(list((work / "sound").glob("*"))) if (work / "sound").exists() else 0)
    folder.mkdir(parents=True)
    return mutations.makers()[name](folder)


def embed(rng: random.Random, work: Path, say: Callable[[str], None]) -> str:
    """Any strings have finite vectors of length 1, which do not depend on each other; any pairs have scores."""
    import numpy as np

    texts = [string(rng) for _ in range(rng.randrange(1, 5))]
    say(ascii(texts)[:400])
    if rng.random() < 0.2:
        scores = cross_encoder(work).predict([(text, string(rng)) for text in texts])
        check_finite(scores)
        return "sound"
    model = embedding_model(rng.choice(["tiny-bert", "tiny-mpnet"]))
    options: dict[str, Any] = {"long_text": rng.choice(["truncate", "mean_of_chunks"])}
    vectors = model.encode(texts, **options)
    check_finite(vectors)
    if vectors.shape != (len(texts), 32) or np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > 1e-5:
        raise UnsoundError(f"shape {vectors.shape}, lengths {np.linalg.norm(vectors, axis=1)}")
    which = rng.randrange(len(texts))
    difference = np.abs(model.encode(texts[which], **options) - vectors[which]).max()
    if difference > 1e-5:
        raise UnsoundError(f"texts[{which}] alone differs by {difference}")
    return "sound"


RANGES = [
    *((0, 0x80), (0x80, 0x500), (0x300, 0x370), (0x590, 0x700), (0x900, 0xE00), (0x1100, 0x1200), (0x2000, 0x2070)),
    *((0x2FF0, 0x3100), (0x4E00, 0x5000), (0xAC00, 0xAD00), (0xD800, 0xE000), (0xE000, 0xE100), (0xFB00, 0x10000)),
    *((0x10000, 0x10400), (0x1D400, 0x1D800), (0x1F300, 0x1FA00), (0xE0000, 0xE0200), (0x10FF00, 0x110000)),
]
PIECES = [
    "the wing",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[UNK]",
    "[MASK]",
    "<s>",
    "</s>",
    "##",
    " ",
    "\n",
    "\0",
    "\u200b",
    "\ufeff",
]


def string(rng: random.Random) -> str:
    """Of one script or of all, with special tokens or none, short or longer than any model takes."""
    length = rng.choice([0, 1, 2, 10, 60, 60, 400])
    ranges = rng.choice([RANGES, [rng.choice(RANGES)]])
    parts = []
    for _ in range(length):
        if rng.random() < 0.1:
            parts.append(rng.choice(PIECES))
        else:
            parts.append(chr(rng.randrange(*rng.choice(ranges))))
    return "".join(parts) * rng.choice([1, 1, 1, 1, 50])


def call(rng: random.Random, work: Path, say: Callable[[str], None]) -> str:
    """An odd argument is an error of type or value with a sentence, or gives what is promised."""
    import numpy as np

    from mlx_embed import CheckpointError, EmbeddingModel, convert

    odd: list[Any] = [
        *(
            None,
            True,
            False,
            0,
            -1,
            1,
            3,
            8,
            10**6,
            10**30,
            0.5,
            2.0,
            math.nan,
            math.inf,
            "3",
            "",
            "x",
            b"x",
            object(),
            ...,
        ),
        *(
            [],
            [1],
            {},
            (),
            np.int64(4),
            np.int32(0),
            np.uint8(8),
            np.float32(3),
            np.array(5),
            np.array([1, 2]),
            np.bool_(1),
        ),
        *(
            np.zeros((2, 32), np.float32),
            np.ones((2, 3)),
            [["a"]],
            Path("x"),
            iter([]),
            int,
            "float16",
            "query",
            "\ud800",
        ),
    ]
    texts: list[Any] = [
        *("the wing", ["the wing", ""], [], ("a", "b"), (text for text in ("a", "b")), {"a": 1}, {"a"}),
        *(np.array(["a", "b"]), np.array("a"), ["a", 1], ["a", None], [b"a"], [["a"]], *odd),
    ]
    names = (
        *("prompt_name", "prompt", "normalize_embeddings", "truncate_dim", "output_dtype", "ranges", "batch_tokens"),
        *(
            "calibration_embeddings",
            "long_text",
            "chunk_overlap",
            "batch_size",
            "show_progress_bar",
            "return_info",
            "odd",
        ),
    )
    loading = ("dtype", "device", "engine", "max_seq_length", "revision", "cache_dir", "local_files_only", "odd")
    model, reranker = embedding_model("tiny-bert"), cross_encoder(work)
    given = rng.choice(texts)
    options = {name: rng.choice(odd) for name in rng.sample(names, rng.choice([0, 1, 1, 1, 2]))}
    tiny = DATA / "tiny-bert"
    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: model.encode(given, **options),
        "encode_query": lambda: model.encode_query(given, **options),
        "similarity": lambda: model.similarity(given, rng.choice([*odd, np.zeros((3, 32), np.float32)])),
        "token_counts": lambda: model.token_counts(given),
        "predict": lambda: reranker.predict(given, **{k: options[k] for k in options if k in ("batch_tokens", "odd")}),
        "rank": lambda: reranker.rank(rng.choice(["a", *odd]), given, rng.choice(odd)),
        "from_pretrained": lambda: EmbeddingModel.from_pretrained(
            tiny, **{"device": "cpu", **{name: rng.choice(odd) for name in rng.sample(loading, rng.choice([1, 1, 2]))}}
        ).encode("a"),
        "convert": lambda: convert(
            tiny, work / "converted", **{rng.choice(["dtype", "quantize", "group_size", "odd"]): rng.choice(odd)}
        ),
    }
    weights = {"convert": 0.2, "from_pretrained": 1.0}
    name = rng.choices(list(calls), [weights.get(name, 2.0) for name in calls])[0]
    say(f"{name} of {given!r:.80} with {options!r:.200}")
    try:
        with contextlib.redirect_stderr(open(os.devnull, "w")):  # bars
            found = calls[name]()
    except (TypeError, ValueError, FileExistsError, CheckpointError) as error:
        if isinstance(error, UnicodeError) or len(str(error)) < 15:
            raise
        return "refused"
    if name != "similarity":  # of NaN it is NaN
        check_finite(found[0] if isinstance(found, tuple) else found)
    return "sound"


@cache
def embedding_model(name: str) -> Any:
    from mlx_embed import EmbeddingModel

    return EmbeddingModel.from_pretrained(DATA / name, device="cpu")


@cache
def cross_encoder(work: Path) -> Any:
    from mlx_embed import CrossEncoder
    from tests.checkpoints import reranker

    return CrossEncoder.from_pretrained(reranker("bert", 1, work / "reranker"), device="cpu")


def check_finite(found: Any) -> None:
    """Raise UnsoundError where an array is not."""
    import numpy as np

    if isinstance(found, np.ndarray) and found.dtype.kind == "f" and not np.isfinite(found).all():
        raise UnsoundError("it gives numbers that are not finite")


if __name__ == "__main__":
    sys.exit(main())
