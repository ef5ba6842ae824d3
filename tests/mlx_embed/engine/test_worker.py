"""The thread of MLX's work where a process ends, or is forked."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest

from mlx_embed.engine.worker import worker
from tests.conftest import DATA, ROOT

START = f"""
import atexit, os, sys, threading, time, warnings
# Python 3.12 warns of a fork in a process that has threads, which is what is tested here.
warnings.simplefilter("ignore", DeprecationWarning)
import mlx_embed, mlx.core as mx
from mlx_embed import EmbeddingModel
from mlx_embed.engine.worker import worker
folder = {str(DATA / "tiny-bert")!r}
"""
# What is let go is filled with other bytes.
BAD = {**os.environ, "MALLOC_PERTURB_": "165"}
LOAD = "model = EmbeddingModel.from_pretrained(folder, device='cpu', engine={engine!r})\n"


def run(code: str, start: str = START) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", start + code], cwd=ROOT, env=BAD, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("texts", [1, 700])
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_daemon_threads_that_encode_at_exit(engine: str, texts: int) -> None:
    """MLX used to abort the process, and the native kernels to crash it."""
    code = f"""
model.encode("the wing")
def work():
    while True:
        model.encode(["the wing of an aeroplane"] * {texts})
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    for _ in range(3):
        result = run(LOAD.format(engine=engine) + code)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_an_exit_handler_that_encodes(engine: str) -> None:
    handler = "atexit.register(lambda: print(model.encode(['the wing', 'stalls']).shape))\n"
    result = run(handler + LOAD.format(engine=engine))
    assert (result.returncode, result.stdout, result.stderr) == (0, "(2, 32)\n", "")


def test_an_exit_handler_that_comes_too_late() -> None:
    """It was registered before the package was imported; it must not wait for a thread that has stopped."""
    start = f"""
import atexit
def late():
    try:
        model.encode("the wing")
    except RuntimeError as error:
        print(error)
atexit.register(late)
{START}"""
    result = run(LOAD.format(engine="reference"), start)
    assert result.returncode == 0
    assert result.stdout == "The process is ending, and MLX has been stopped; use models before that.\n"


def test_ids_are_made_while_the_process_ends() -> None:
    """A daemon thread may still be at it when Python lets its objects go. The handler is older than what does that."""
    start = f"""
import atexit
def late():
    print(tokenizer(texts).ids.flat.tolist() == wanted)
atexit.register(late)
{START}"""
    code = """
from mlx_embed.tokenizer import nano
nano.known = lambda library: False  # which would make them instead, where it is installed
tokenizer, texts = model.tokenizer, ["the wing of an aeroplane"] * 700
wanted = tokenizer(texts).ids.flat.tolist()
for thread in threading.enumerate():
    if thread.name == 'mlx-embed-tokenizer':
        thread.join()
assert tokenizer(texts).ids.flat.tolist() == wanted
"""
    result = run(LOAD.format(engine="auto") + code, start)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("loaded", [False, True])
def test_a_child_forked_while_the_lock_is_held(loaded: bool) -> None:
    """Else it would wait for a thread that it does not have."""
    code = f"""
if {loaded}:
    model = EmbeddingModel.from_pretrained(folder, device="cpu", engine="reference")
held, leave = threading.Event(), threading.Event()
def hold():
    with worker._lock:
        held.set()
        leave.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    try:
        worker.run(lambda: None, mx.Device(mx.cpu))
        print("works", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
for _ in range(2000):
    if os.waitpid(child, os.WNOHANG)[0]:
        break
    time.sleep(0.005)
else:
    print("hung")
    os.kill(child, 9)
leave.set()
"""
    result = run(code)
    assert result.stderr == ""
    started, imported = (f"This process was forked after mlx_embed had {what}" for what in ("started", "been imported"))
    assert result.stdout.startswith(imported if mx.cuda.is_available() else started if loaded else "works")


def test_a_child_forked_from_a_process_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX starts CUDA when it is imported, and CUDA's own error says nothing of the fork."""
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(worker, "_imported_by", os.getpid() + 1)
    with pytest.raises(RuntimeError, match="forked after mlx_embed had been imported, and CUDA does not survive"):
        worker.run(lambda: None, mx.Device(mx.cpu))


def test_what_would_end_the_thread_is_raised_where_it_is_waited_for() -> None:
    def ending() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        worker.submit(ending).result(5)
    assert worker.run(lambda: 1) == 1
