#!/usr/bin/env bash
# Version:   mlx-lm 0.32.2.
# Guess:     importing a library for its model code changes nothing of the process but its modules.
# Behaviour: importing any part of mlx_lm sets the limit of open files to 2048, and the hard limit to 4096, whatever they
#            were. Lowering the hard limit cannot be undone without privileges, and child processes inherit it.
# Why:       an embedding server that borrows a decoder from mlx_lm, and had raised its limit to hold many
#            connections and index shards, is cut down by an import that may come hours after the start, with the first
#            request for such a model. The failure, "too many open files", then comes somewhere else.
# Seen:
#   before the import: 8192 10000
#   after it:          2048 4096
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" mlx-lm==0.32.2

hard=$(ulimit -Hn)
if [[ $hard != unlimited ]] && ((hard <= 4096)); then echo "Needs a hard limit of more than 4096 open files." >&2; exit 1; fi
cat > "$work/limit.py" <<'PY'
import resource
import sys

low, high = 8192, 10000
_, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
if allowed != resource.RLIM_INFINITY:
    low, high = min(low, allowed), min(high, allowed)
resource.setrlimit(resource.RLIMIT_NOFILE, (low, high))
print("before the import:", *resource.getrlimit(resource.RLIMIT_NOFILE))
import mlx_lm.models.qwen3  # noqa: E402, F401

after = resource.getrlimit(resource.RLIMIT_NOFILE)
print("after it:         ", *after)
if after != (2048, 4096):
    sys.exit("The import no longer sets the limits of open files to 2048 and 4096.")
PY
"$work/venv/bin/python" "$work/limit.py"
