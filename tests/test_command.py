"""The program `mlx-embed` before the package is imported."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# In the place of the package: Ctrl-C comes while it is imported, or once it runs.
PACKAGE = {
    "import": "import signal, time\nsignal.raise_signal(signal.SIGINT)\nprint('imported', flush=True)\n",
    "run": "",
}
CLI = {
    "import": "def main():\n    return 3\n",
    "run": "import signal\n"
    "def main():\n"
    "    try:\n"
    "        signal.raise_signal(signal.SIGINT)\n"
    "    except KeyboardInterrupt:\n"
    "        return 130\n"
    "    return 3\n",
}


@pytest.mark.parametrize(
    ("when", "ignored", "status", "output"),
    [
        ("import", False, -signal.SIGINT, ""),
        ("import", True, 3, "imported\n"),  # as in the background of a script
        ("run", False, 130, ""),
        ("run", True, 3, ""),
    ],
)
def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path, when: str, ignored: bool, status: int, output: str) -> None:
    (tmp_path / "mlx_embed").mkdir()
    (tmp_path / "mlx_embed" / "__init__.py").write_text(PACKAGE[when])
    (tmp_path / "mlx_embed" / "cli.py").write_text(CLI[when])
    program = "import signal, sys\n"
    program += "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if ignored else ""
    program += "from mlx_embed_command import main\nsys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, output, "")


def test_an_install_has_it() -> None:
    tomllib = pytest.importorskip("tomllib")
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, function = told["project"]["scripts"]["mlx-embed"].split(":")
    assert [module] == told["tool"]["setuptools"]["py-modules"]
    assert callable(getattr(import_module(module), function))
