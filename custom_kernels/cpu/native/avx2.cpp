// Compiled for AVX2 and FMA.
#if defined(__x86_64__)
#define LANES 8
#define TILE_ROWS 6
#define TILE_VECTORS 2
#define TABLE mlx_embed_avx2
#define NAME "AVX2"
#include "kernels.inl"
#endif
