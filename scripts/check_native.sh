#!/usr/bin/env bash
# Runs every CPU kernel under AddressSanitizer with UBSan, ThreadSanitizer, and valgrind where it is installed; those of
# AMX on a model of its tiles in C++.
# Takes about two minutes; needs python3, and g++ or the compiler named in CXX.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # build NAME FLAGS...: the driver and every kernel source with FLAGS
    local name=$1 objects=() source flags
    shift
    [ "$(uname -m)" != x86_64 ] || set -- -include tests/custom_kernels/cpu/tiles.h "$@"
    while read -r source flags; do
        objects+=("$work/${source%.cpp}.o")
        # shellcheck disable=SC2086 # a list of flags
        ${CXX:-g++} -g -w $flags "$@" -c "custom_kernels/cpu/native/$source" -o "${objects[-1]}"
    done < "$work/sources"
    ${CXX:-g++} -std=c++17 -g -pthread -w "$@" scripts/check_native.cpp "${objects[@]}" -o "$work/$name"
}

python3 custom_kernels/cpu/sources.py > "$work/sources"

echo "AddressSanitizer and UBSan"
build asan -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
"$work/asan"

echo "ThreadSanitizer"
build tsan -O1 -fsanitize=thread
"$work/tsan"

if command -v valgrind > /dev/null; then
    echo "valgrind"
    # Without a fork: the child's copy of what its parent's threads held counts as lost there. Valgrind has no AVX-512.
    build plain -O2 -DNO_FORK
    valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite \
        --show-leak-kinds=definite "$work/plain"
fi
echo "no error found"
