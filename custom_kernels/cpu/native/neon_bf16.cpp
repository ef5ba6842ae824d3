// Compiled for NEON and its bfloat16 products (BFDOT).
#include "kernels.h"
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define LANES 4
#define TILE_ROWS 12
#define TILE_VECTORS 2
#define NARROW 16
#define GROUP 1
#define TABLE mlx_embed_neon_bf16
#define ATTENTION mlx_embed_neon_bf16_attention
#define NAME "NEON BF16"
#include "narrow.inl"
#elif defined(__aarch64__)
extern "C" const Product mlx_embed_neon_bf16 = {};
extern "C" const Halves mlx_embed_neon_bf16_attention = {};
#endif
