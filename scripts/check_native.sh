#!/usr/bin/env bash
# Runs every CPU kernel under AddressSanitizer with UBSan, ThreadSanitizer, and valgrind where it is installed.
# Takes about two minutes; needs g++ or the compiler named in CXX.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cpu=custom_kernels/cpu

build() { # build NAME FLAGS...: the driver and every kernel source with FLAGS
    local name=$1 objects=()
    shift
    for source in avx512 avx2 baseline threads ops; do
        local isa=()
        if [ "$(uname -m)" = x86_64 ]; then
            case $source in
            avx512) isa=(-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma) ;;
            avx2) isa=(-mavx2 -mfma) ;;
            esac
        fi
        ${CXX:-g++} -std=c++17 -g -pthread -w -fno-math-errno -fno-trapping-math "$@" "${isa[@]}" -c $cpu/$source.cpp -o "$work/$source.o"
        objects+=("$work/$source.o")
    done
    ${CXX:-g++} -std=c++17 -g -pthread -w "$@" scripts/check_native.cpp "${objects[@]}" -o "$work/$name"
}

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
