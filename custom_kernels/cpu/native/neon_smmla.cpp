// Compiled for NEON and its blocks of bytes (SMMLA, of I8MM).
#include "kernels.h"
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define LANES 4
#define TILE_ROWS 8
#define TILE_VECTORS 3
#define NARROW 8
#define GROUP 2
#define TABLE mlx_embed_neon_smmla
#define NAME "NEON SMMLA"
#include "narrow.inl"
#elif defined(__aarch64__)
extern "C" const Product mlx_embed_neon_smmla = {};
#endif
