#!/usr/bin/env bash
# The kernels' tests on the oldest MLX that pyproject.toml allows, in a virtual environment of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
oldest=$(sed -n 's/^ *"mlx>=\([0-9.]*\)",$/\1/p' pyproject.toml)
[ -n "$oldest" ] || { echo "pyproject.toml has no line \"mlx>=...\"." >&2; exit 1; }
"${PYTHON:-python3}" -m venv --clear .venv-oldest
python=.venv-oldest/bin/python
ziglang=$(sed -n 's/.*"\(ziglang==[0-9.]*\);.*/\1/p' pyproject.toml)
"$python" -m pip install --quiet --disable-pip-version-check "mlx[cpu]==$oldest" -e ".[cpu]" pytest hypothesis "$ziglang"
"$python" -c "from importlib.metadata import version; assert version('mlx') == '$oldest', version('mlx')"
exec "$python" -m pytest tests/metal tests/custom_kernels/metal tests/custom_kernels/choice \
  tests/mlx_embed/architectures/test_metal_launches.py "$@"
