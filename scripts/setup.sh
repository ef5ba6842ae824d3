# Sourced by scripts/compare and scripts/test: makes .venv with the right MLX build and this package in it, and sets
# $python and $model. Safe to run again: it installs only what has changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# The build of MLX for this machine, as an extra of this package; empty on macOS, where plain mlx has Metal.
mlx_extra() {
  case "$(uname -s)-$(uname -m)" in
    Darwin-arm64) return ;;
    Darwin-*) fail "MLX needs a Mac with Apple silicon; this one has $(uname -m)." ;;
    Linux-*) ;;
    *) fail "MLX runs on macOS and Linux; this is $(uname -s)." ;;
  esac
  local cuda
  cuda=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' | head -n 1) || cuda=
  if [ "${cuda:-0}" -ge 13 ]; then echo cuda13
  elif [ "${cuda:-0}" -ge 12 ]; then echo cuda12
  else echo cpu
  fi
}

host_python=$(find_python) || fail "Python 3.10 or later is needed; none was found (set PYTHON to its path)."
extra=$(mlx_extra)
python=.venv/bin/python
wanted=$({ "$host_python" -V; echo "$extra"; pwd; cat pyproject.toml setup.py custom_kernels/cpu/{sources.py,native/*}; } | cksum)

if [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ]; then
  echo "Environment: .venv is up to date." >&2
else
  echo "Environment: installing mlx-embed with ${extra:-Metal} into .venv, with $("$host_python" -V)." >&2
  if [ ! -x "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
    "$host_python" -m venv --clear .venv ||
      fail "A virtual environment could not be made; on Debian and Ubuntu, install python3-venv."
  fi
  "$python" -m pip install --quiet --disable-pip-version-check --editable ".[${extra:+$extra,}dev]" ||
    fail "The packages could not be installed: see pip's message above (a package index must be reachable)."
  "$python" -c 'import mlx.core' ||
    fail "MLX was installed but does not load here: see the message above (its Linux wheels need glibc 2.35)."
  echo "$wanted" >.venv/installed
fi
model=$("$python" scripts/default_model.py) || exit 1
