#!/usr/bin/env bash
# Compiles every source that MLX generates for the Metal kernels by Apple's compiler, in each version of the language
# that MLX may choose: by the version of macOS. Needs a Mac with Xcode and its Metal toolchain, and no GPU. What the
# compiler warns of is printed, and fails nothing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m tests.metal.launches "$folder"
include=$("$python" -c 'import mlx; print(list(mlx.__path__)[0] + "/include")')
compile() {
  if ! xcrun -sdk macosx metal "-std=$1" -fno-fast-math -I"$include" -c "$2" -o "$2.$1.air" 2>"$2.$1.log"; then
    echo "$2 is not taken as $1:"
    cat "$2.$1.log"
    return 1
  fi
  cat "$2.$1.log"
}
export -f compile
export include
sources=("$folder"/*.metal)
versions=(metal3.1 metal3.2 metal4.0)
# Of macOS 27, which not every Xcode knows.
echo >"$folder/nothing"
if xcrun -sdk macosx metal -std=metal4.1 -x metal -c "$folder/nothing" -o /dev/null 2>/dev/null; then
  versions+=(metal4.1)
fi
for version in "${versions[@]}"; do
  printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P 4 bash -c "compile $version"' "$1"' _
  echo "$version: ${#sources[@]} sources compiled."
done
