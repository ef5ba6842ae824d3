// Compiled for AVX-512 and its bfloat16 products.
#include "kernels.h"
#if defined(__AVX512BF16__)
#define LANES 16
#define TILE_ROWS 14
#define TILE_VECTORS 2
#define NARROW 16
#define GROUP 1
#define TABLE mlx_embed_avx512_bf16
#define ATTENTION mlx_embed_avx512_bf16_attention
#define NAME "AVX512_BF16"
#include "narrow.inl"
#elif defined(__x86_64__)
extern "C" const Product mlx_embed_avx512_bf16 = {};
extern "C" const Halves mlx_embed_avx512_bf16_attention = {};
#endif
