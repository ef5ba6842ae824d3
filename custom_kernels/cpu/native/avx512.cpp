// Compiled for AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)
#define LANES 16
#define TILE_ROWS 14
#define TILE_VECTORS 2
#define TABLE mlx_embed_avx512
#define NAME "AVX-512"
#include "kernels.inl"
#endif
