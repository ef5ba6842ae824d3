// Which kernels this processor gets.
#pragma once
#include "kernels.h"

struct Chosen {
  const Kernels* kernels;
  const Product* narrow[KINDS];  // of other kinds than FLOAT32; null where there are none
  const Halves* halves;          // where there are products of bfloat16
};

// The best there is, or less: `most` is "", or "baseline", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16",
// "neon_dot" for what is without blocks.
Chosen choose(const char* most);
