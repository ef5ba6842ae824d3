#!/usr/bin/env bash
# Cross-compiles the CPU kernels for aarch64 and runs their checks under qemu-user.
# Needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user).
set -euo pipefail
cd "$(dirname "$0")/.."

compiler=${CXX:-aarch64-linux-gnu-g++}
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
if ! command -v "$compiler" > /dev/null || [ -z "$emulator" ]; then
    echo "needs $compiler and qemu-aarch64; on Debian: apt-get install g++-aarch64-linux-gnu qemu-user" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
objects=()
python3 custom_kernels/cpu/sources.py aarch64 > "$work/sources"
while read -r source flags; do
    objects+=("$work/${source%.cpp}.o")
    # shellcheck disable=SC2086 # a list of flags
    "$compiler" -O3 -Wall -Wno-maybe-uninitialized $flags -c "custom_kernels/cpu/native/$source" -o "${objects[-1]}"
done < "$work/sources"
# qemu-user aborts in a forked child that starts threads, so that check is left out.
"$compiler" -DNO_FORK -std=c++17 -O3 -static -pthread -Wall scripts/check_native.cpp "${objects[@]}" -o "$work/check"
# The most that it emulates: products of bfloat16 and of bytes are there too.
"$emulator" -cpu max "$work/check"
echo "every check passed on aarch64"
