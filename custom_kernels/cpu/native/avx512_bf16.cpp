// Compiled for AVX-512 and its bfloat16 products.
#include "kernels.h"
#if defined(__AVX512BF16__)
#define LANES 16
#define TILE_ROWS 14
#define TILE_VECTORS 2
#define NARROW 16
#define TABLE mlx_embed_avx512_bf16
#define NAME "AVX512_BF16"
#include "narrow.inl"
#elif defined(__x86_64__)
extern "C" const Narrow mlx_embed_avx512_bf16 = {};
#endif
