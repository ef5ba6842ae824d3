"""EmbeddingModel.encode: order, independence of the batch, any text, bad input, threads."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cpu
from mlx_embed import EmbeddingModel, convert
from mlx_embed import texts as texts_module
from mlx_embed.batching import Batch
from tests.checkpoints import edit
from tests.conftest import DATA, ROOT

# What a vector may move by when the rest of its batch changes, in float32.
TOLERANCE = 1e-5

RAGGED = ["the wing " * n for n in (1, 40, 3, 0, 17, 2, 90, 5, 5, 28)]
STRANGE = [
    "",
    " ",
    "\n\t\u00a0",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff text \ud83d",
    "\U0001f600\u200d\U0001f680",
    "\ufffe\uffff",
    "a" * 1_000_000,
    "\u202e\u0301\u0301",
    "[CLS] [SEP] [PAD]",
]


def test_shapes_and_types(tiny: EmbeddingModel) -> None:
    vectors = tiny.encode(["first text", "second text"])
    assert vectors.shape == (2, tiny.dimension) == (2, 32)
    assert vectors.dtype == np.float32
    assert tiny.encode("one").shape == (32,)
    assert tiny.encode([]).shape == (0, 32)
    assert tiny.encode(iter(())).shape == (0, 32)
    assert tiny.encode(("a", "b")).shape == (2, 32)
    assert tiny.encode(np.array(["a", "b"])).shape == (2, 32)
    assert np.array_equal(tiny.encode("one"), tiny.encode(["one"])[0])


@pytest.mark.parametrize("batch_tokens", [1, 64, 200, None])
def test_batched_equals_single_in_order(tiny: EmbeddingModel, batch_tokens: int | None) -> None:
    batched = tiny.encode(RAGGED, batch_tokens=batch_tokens)
    single = np.stack([tiny.encode(text) for text in RAGGED])
    assert np.abs(batched - single).max() <= TOLERANCE
    shuffled = np.random.default_rng().permutation(len(RAGGED))
    again = tiny.encode([RAGGED[i] for i in shuffled], batch_tokens=batch_tokens)
    assert np.abs(again - batched[shuffled]).max() <= TOLERANCE


def test_vectors_do_not_depend_on_the_batch_on_real_weights(minilm: EmbeddingModel) -> None:
    texts = ["a query", "some longer text about boundary layers and heat transfer", "x", "word " * 60]
    batched = minilm.encode(texts)
    assert np.abs(batched - np.stack([minilm.encode(text) for text in texts])).max() <= TOLERANCE


def test_compiled_equals_plain(tiny: EmbeddingModel) -> None:
    compiled = EmbeddingModel.from_pretrained(tiny.checkpoint.folder, device="cpu", engine="graph")
    assert np.abs(compiled.encode(RAGGED) - tiny.encode(RAGGED)).max() <= TOLERANCE


def test_generators_are_read_in_windows(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one first, and each tokenized before the next one is read."""
    monkeypatch.setattr(texts_module, "FIRST_WINDOW", 3)
    monkeypatch.setattr(texts_module, "WINDOW", 4)
    events: list[str | int] = []
    tokenize = tiny_bert.tokenizer.encode

    def tokenized(window: list[str], *rest: Any, **named: Any) -> Any:
        events.append(len(window))
        return tokenize(window, *rest, **named)

    def read() -> Iterator[str]:
        for text in texts:
            events.append("read")
            yield text

    texts = [*RAGGED, *RAGGED[4:]]
    monkeypatch.setattr(tiny_bert.tokenizer, "encode", tokenized)
    found, info = tiny_bert.encode(read(), return_info=True)
    assert events == [event for size in (3, 4, 4, 4, 1) for event in (*["read"] * size, size)]
    monkeypatch.undo()
    assert np.abs(found - tiny_bert.encode(texts)).max() <= TOLERANCE
    assert info.token_counts.tolist() == tiny_bert.token_counts(texts).tolist()


@pytest.mark.parametrize(("engine", "windows"), [("auto", 1), ("graph", 2)])
def test_a_long_generator_streams(monkeypatch: pytest.MonkeyPatch, engine: str, windows: int) -> None:
    """Of 16,000 texts, the native path reads one window beyond those done; MLX's, another while that one runs."""
    streamed = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine=engine)
    read = done = 0
    ahead = []

    def texts() -> Iterator[str]:
        nonlocal read
        for number in range(16_000):
            read += 1
            ahead.append(read - done)
            yield f"text {number % 97}"

    batches = streamed.engine.batches

    def counted(*arguments: Any) -> Iterator[Batch]:
        nonlocal done
        for batch in batches(*arguments):
            done += len(batch.texts)
            yield batch

    monkeypatch.setattr(streamed.engine, "batches", counted)
    assert len(streamed.encode(texts())) == 16_000 == read == done
    assert texts_module.WINDOW <= max(ahead) <= windows * texts_module.WINDOW


def test_a_window_ends_at_many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "WINDOW_CHARACTERS", 10)
    assert [len(window) for window in texts_module.windows(["x" * 4] * 7, len)] == [3, 3, 1]


def test_any_text_gives_a_finite_unit_vector(tiny: EmbeddingModel) -> None:
    vectors = tiny.encode(STRANGE)
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_lone_surrogates_are_replaced(tiny: EmbeddingModel) -> None:
    assert np.array_equal(tiny.encode("a \ud800 b"), tiny.encode("a \ufffd b"))
    assert np.array_equal(tiny.encode("\ud83d\ude00"), tiny.encode("\U0001f600")), "a pair is one character"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], r"texts\[1\] is a NoneType"),
        (["a", "b", b"c"], r"texts\[2\] is a bytes"),
        ([3], r"texts\[0\] is an int"),
        ([["a"]], r"texts\[0\] is a list"),
        (iter(["a", None]), r"texts\[1\] is a NoneType"),
        (b"abc", "got a bytes"),
        (None, "got a NoneType"),
        (7, "got an int"),
    ],
)
def test_a_text_that_is_no_string(tiny_bert: EmbeddingModel, texts: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tiny_bert.encode(texts)


def test_lists_are_checked_before_anything_runs(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_bert, "tokenizer", None)
    with pytest.raises(TypeError, match=r"texts\[3000\]"):
        tiny_bert.encode(["a"] * 3000 + [None])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truncate_dim": 0}, ValueError, "truncate_dim 0 is not within 1..32"),
        ({"truncate_dim": 33}, ValueError, "truncate_dim 33"),
        ({"batch_tokens": 0}, ValueError, "batch_tokens 0"),
        ({"prompt_name": "nope"}, ValueError, "prompt_name 'nope' is not among the model's prompts"),
        ({"prompt": 3}, TypeError, "prompt is an int"),
    ],
)
def test_bad_options(tiny_bert: EmbeddingModel, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_bert.encode(["a"], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype 'float64' is not one of"),
        ({"device": "tpu"}, "device 'tpu' is not one of"),
        ({"engine": "best"}, "engine 'best' is not one of"),
        ({"max_seq_length": 65}, "max_seq_length 65 is not within 1..64"),
        ({"max_seq_length": 0}, "max_seq_length 0"),
    ],
)
def test_bad_load_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingModel.from_pretrained(DATA / "tiny-bert", **options)


@pytest.mark.skipif(mx.metal.is_available() or mx.cuda.is_available(), reason="this machine has an accelerator")
@pytest.mark.parametrize("device", ["gpu", "metal", "cuda"])
def test_an_absent_device_is_a_clear_error(device: str) -> None:
    with pytest.raises(ValueError, match="finds no accelerator here"):
        EmbeddingModel.from_pretrained(DATA / "tiny-bert", device=device)


def test_truncation_is_reported(tiny_bert: EmbeddingModel) -> None:
    text = "the wing " * 50
    vectors, info = tiny_bert.encode([text, "note"], return_info=True)
    assert info.token_counts.tolist() == [102, 3]
    assert info.truncated.tolist() == [True, False]
    assert np.abs(vectors[0] - tiny_bert.encode("the wing " * 31)).max() <= TOLERANCE, "62 tokens and 2 special ones"
    vector, info = tiny_bert.encode("note", return_info=True)
    assert vector.shape == (32,)
    assert info.token_counts.tolist() == [3]


def test_a_shorter_maximum() -> None:
    short = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=6)
    assert short.max_seq_length == 6
    _, info = short.encode(["the wing flow heat", "the wing flow heat layer"], return_info=True)
    assert info.truncated.tolist() == [False, True]


def test_truncate_dim_renormalises(tiny_bert: EmbeddingModel) -> None:
    whole = tiny_bert.encode(RAGGED)
    part = tiny_bert.encode(RAGGED, truncate_dim=8)
    assert part.shape == (len(RAGGED), 8)
    cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    assert np.abs(part - cut).max() <= TOLERANCE


def test_normalisation_follows_the_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "modules.json").unlink()
    bare = EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    raw = bare.encode(RAGGED)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.1)
    unit = bare.encode(RAGGED, normalize_embeddings=True)
    assert np.abs(unit - raw / np.linalg.norm(raw, axis=1, keepdims=True)).max() <= TOLERANCE
    assert np.array_equal(bare.encode(RAGGED, normalize_embeddings=False), raw)


def test_prompts(checkpoint: Path) -> None:
    (checkpoint / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "heat: ", "passage": "flow: ", "other": "code: "}, "default_prompt_name": "other"}'
    )
    prompted = EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    plain = prompted.encode(["heat: wing", "flow: wing", "code: wing", "wing"], prompt="")
    for found, expected in (
        (prompted.encode_query("wing"), plain[0]),
        (prompted.encode_document("wing"), plain[1]),
        (prompted.encode("wing"), plain[2]),
        (prompted.encode("wing", prompt_name="passage"), plain[1]),
        (prompted.encode("wing", prompt="heat: "), plain[0]),
        (prompted.encode_query("wing", prompt="flow: "), plain[1]),
        (prompted.encode_query("wing", prompt_name="other"), plain[2]),
    ):
        assert np.abs(found - expected).max() <= TOLERANCE


def test_similarity(tiny_bert: EmbeddingModel) -> None:
    vectors = tiny_bert.encode(RAGGED)
    assert np.allclose(tiny_bert.similarity(vectors, vectors[:3]), vectors @ vectors[:3].T, atol=1e-6)
    assert tiny_bert.similarity(vectors[0], vectors).shape == (1, len(RAGGED))
    assert np.allclose(tiny_bert.similarity(5 * vectors, vectors).max(axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="of one length"):
        tiny_bert.similarity(vectors, vectors[:, :5])


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_every_similarity_ranks_a_vector_nearest_to_itself(checkpoint: Path, name: str) -> None:
    (checkpoint / "config_sentence_transformers.json").write_text(f'{{"similarity_fn_name": "{name}"}}')
    loaded = EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    vectors = loaded.encode(["the wing", "a query of code", "heat"])
    scores = loaded.similarity(vectors, vectors)
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]
    assert loaded.similarity(vectors[:0], vectors).shape == (0, 3)


def test_progress_bar(tiny_bert: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bert.encode(RAGGED, show_progress_bar=True)
    assert f"{len(RAGGED)}/{len(RAGGED)}" in capsys.readouterr().err
    tiny_bert.encode(RAGGED)
    assert capsys.readouterr().err == ""


def test_any_thread_may_encode(tiny: EmbeddingModel) -> None:
    expected = tiny.encode(RAGGED)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: tiny.encode(RAGGED), range(8)))
    assert all(np.array_equal(found, expected) for found in results)
    before = threading.active_count()
    for _ in range(3):
        thread = threading.Thread(target=tiny.encode, args=(RAGGED,))
        thread.start()
        thread.join()
    assert threading.active_count() <= before  # the one that compares tokenizers may have ended meanwhile


def test_an_error_does_not_spoil_the_model(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny_bert.encode(RAGGED)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_bert, "of_task", lambda *_: (tiny_bert.engine, lambda *_: lambda *_: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            tiny_bert.encode(RAGGED)
    assert np.array_equal(tiny_bert.encode(RAGGED), expected)


def in_a_forked_child(work: Callable[[], object]) -> object:
    """What `work` returns, or the error that it raises, in a child made by fork."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        try:
            queue.put(work())
        except RuntimeError as error:
            queue.put(error)

    process = context.Process(target=child)
    process.start()
    try:
        return queue.get(timeout=30)
    finally:
        process.kill()
        process.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_a_clear_error_from_mlx() -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="reference")
    model.encode("started")
    error = in_a_forked_child(lambda: model.encode("a"))
    assert "forked" in str(error)


@pytest.mark.skipif(not hasattr(os, "fork") or not cpu.available(), reason="needs fork and the native kernels")
@pytest.mark.parametrize("tokenizer_threads", ["", "true"])
def test_a_forked_child_may_use_a_native_model(
    tiny_bert: EmbeddingModel, tokenizer_threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", tokenizer_threads)
    expected = tiny_bert.encode(RAGGED)
    assert np.array_equal(in_a_forked_child(lambda: tiny_bert.encode(RAGGED)), expected)


@pytest.mark.skipif(not hasattr(os, "fork") or not cpu.available(), reason="needs fork and the native kernels")
def test_a_method_of_a_native_model_goes_to_a_forked_pool() -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    other = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="reference")
    other.encode("started")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        model.max_seq_length, model.prompts["own"] = 5, "a "  # after the fork: they travel
        found = pool.map_async(partial(model.encode, prompt_name="own"), [RAGGED[:5], RAGGED[5:]]).get(30)
        assert np.array_equal(np.concatenate(found), model.encode(RAGGED, prompt_name="own"))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_stops_within_a_batch() -> None:
    script = (
        "import signal\n"
        "from mlx_embed import EmbeddingModel\n"
        # Where the tests run in the background SIGINT is ignored, which processes inherit.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"model = EmbeddingModel.from_pretrained({str(DATA / 'tiny-bert')!r}, device='cpu')\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    model.encode('the wing flow' for _ in iter(int, 1))\n"
        "except KeyboardInterrupt:\n"
        "    print(len(model.encode(['still', 'usable'])))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=30)[0] == "2\n"
            assert process.returncode == 0
        finally:
            process.kill()  # else leaving the block waits for a process that has not stopped


def test_the_process_ends_cleanly() -> None:
    """MLX aborts at exit in some runs where a thread that used it has ended: run a few."""
    script = (
        "from mlx_embed import EmbeddingModel\n"
        f"EmbeddingModel.from_pretrained({str(DATA / 'tiny-bert')!r}, device='cpu').encode(['a', 'b'])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(5):
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
        assert run.returncode == 0, run.stderr


def test_repr(tiny_bert: EmbeddingModel) -> None:
    assert "dimension=32, max_seq_length=64, dtype=float32, device='cpu: " in repr(tiny_bert)


def test_arguments_of_sentence_transformers(tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny_bert.encode(RAGGED)
    sizes = []
    batches = tiny_bert.engine.batches

    def counted(*arguments: Any) -> Iterator[Batch]:
        for batch in batches(*arguments):
            sizes.append(len(batch.texts))
            yield batch

    monkeypatch.setattr(tiny_bert.engine, "batches", counted)
    found = tiny_bert.encode(
        RAGGED,
        batch_size=3,
        convert_to_numpy=True,
        convert_to_tensor=False,
        show_progress_bar=False,
        normalize_embeddings=True,
        prompt_name=None,
    )
    assert np.abs(found - expected).max() <= TOLERANCE
    assert sum(sizes) == len(RAGGED)
    assert max(sizes) == 3
    for options in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
        with pytest.raises(ValueError, match="encode returns numpy arrays"):
            tiny_bert.encode(RAGGED, **options)
    with pytest.raises(ValueError, match="batch_size 0"):
        tiny_bert.encode(RAGGED, batch_size=0)


def test_begin_takes_texts_and_no_text(tiny_bert: EmbeddingModel) -> None:
    """A string would be taken for its letters."""
    with pytest.raises(TypeError, match=r"got a str: pass \[text\]"):
        tiny_bert.begin("wing")
    with pytest.raises(ValueError, match="task 'passage' is not one of query, document"):
        tiny_bert.begin(["wing"], "passage")  # type: ignore[arg-type]
    texts = ["the wing", "heat"]
    wait = tiny_bert.begin(text for text in texts)  # type: ignore[arg-type]
    for _ in range(2):
        assert np.array_equal(wait(), tiny_bert.encode(texts))


def test_what_was_begun_is_waited_for_by_several_threads(tiny_bert: EmbeddingModel) -> None:
    texts = RAGGED * 20
    wait = tiny_bert.begin(texts)
    with ThreadPoolExecutor(4) as threads:
        found = [thread.result() for thread in [threads.submit(wait) for _ in range(4)]]
    assert all(np.array_equal(rows, tiny_bert.encode(texts)) for rows in found)


@pytest.mark.parametrize("stated", ["SparseEncoder", "MultiVectorEncoder", "ColBERT", "CrossEncoder", "HF_ColBERT"])
def test_a_folder_of_another_kind_of_model_is_said_to_be_one(stated: str, checkpoint: Path, tmp_path: Path) -> None:
    """Its vectors are averages of tokens that mean nothing alone."""
    kind = {"ColBERT": "MultiVectorEncoder", "HF_ColBERT": "MultiVectorEncoder"}.get(stated, stated)
    if stated == "HF_ColBERT":
        (checkpoint / "modules.json").unlink()
        edit(checkpoint, architectures=[stated])
    else:
        (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"model_type": stated}))
    with pytest.warns(UserWarning, match=rf"was saved as a {stated}\. Its tokens .*: {kind}\.from_pretrained"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    if stated == "CrossEncoder":  # of which the encoder is converted too
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            convert(checkpoint, tmp_path / "converted")


@pytest.mark.parametrize("stated", ["SentenceTransformer", None])
def test_an_embedding_model_is_not_said_to_be_another(stated: str | None, checkpoint: Path) -> None:
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"model_type": stated}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")
        # Without modules.json it counts for nothing.
        (checkpoint / "modules.json").unlink()
        (checkpoint / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")
