// Compiled for NEON and its blocks of bfloat16 (BFMMLA).
#include "kernels.h"
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define LANES 4
#define TILE_ROWS 8
#define TILE_VECTORS 3
#define NARROW 16
#define GROUP 2
#define TABLE mlx_embed_neon_bfmmla
#define NAME "NEON BFMMLA"
#include "narrow.inl"
#elif defined(__aarch64__)
extern "C" const Product mlx_embed_neon_bfmmla = {};
#endif
