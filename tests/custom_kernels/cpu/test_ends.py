"""What a process leaves behind: threads that are still computing when it exits, and locks in a child of a fork."""

import subprocess
import sys

import pytest

from custom_kernels import cpu
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")

START = """
import os, sys, threading, time
import numpy as np
from custom_kernels import cpu
from custom_kernels.cpu import memory
weight = np.random.default_rng(0).standard_normal((384, 384)).astype(np.float32)
x = np.ones((600, 384), np.float32)
layer = cpu.Linear(weight, weight[0])
expected = cpu.linear(x, layer)
"""


def run(code: str, start: str = START) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_daemon_threads_that_compute_at_exit() -> None:
    """Weights used to be freed under them: a segmentation fault in most runs."""
    code = """
def work():
    while True:
        cpu.linear(x, layer)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    for _ in range(6):
        result = run(code)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exit_handler_that_computes(when: str) -> None:
    """`atexit` calls in reverse order: what was registered before the first weights were laid out comes last."""
    register = "import atexit\natexit.register(lambda: print(np.array_equal(cpu.linear(x, layer), expected)))\n"
    result = run("", START.replace("layer = ", register + "layer = ") if when == "before" else START + register)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\n", "")


def test_arrays_that_outlive_the_modules() -> None:
    """Their memory is given back by code whose module is gone."""
    result = run("memory.kept, np.kept = memory.empty((512, 300)), memory.empty((999, 99))")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_child_forked_while_other_threads_allocate() -> None:
    """The allocator's lock used to be copied locked now and then, and the child waited for it without end."""
    code = """
sys.setswitchinterval(1e-6)
stop = threading.Event()
def work():
    while not stop.is_set():
        memory.empty((300, 300))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
hung = wrong = 0
for _ in range(150):
    child = os.fork()
    if not child:
        os._exit(not np.array_equal(cpu.linear(x, layer), expected))
    end = time.monotonic() + 10
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done or time.monotonic() > end:
            break
        time.sleep(0.0005)
    if not done:
        hung += 1
        os.kill(child, 9)
        os.waitpid(child, 0)
        break
    wrong += status != 0
stop.set()
print(hung, wrong)
"""
    result = run(code)
    assert (result.stdout, result.stderr) == ("0 0\n", "")
