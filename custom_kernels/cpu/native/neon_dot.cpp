// Compiled for NEON and its products of bytes (SDOT).
#include "kernels.h"
#if defined(__ARM_FEATURE_DOTPROD)
#define LANES 4
#define TILE_ROWS 12
#define TILE_VECTORS 2
#define NARROW 8
#define GROUP 1
#define TABLE mlx_embed_neon_dot
#define NAME "NEON SDOT"
#include "narrow.inl"
#elif defined(__aarch64__)
extern "C" const Product mlx_embed_neon_dot = {};
#endif
