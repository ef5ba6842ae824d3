// Compiled for AVX2 and AVX-VNNI's products of bytes.
#include "kernels.h"
#if defined(__AVXVNNI__)
#define LANES 8
#define TILE_ROWS 6
#define TILE_VECTORS 2
#define NARROW 8
#define GROUP 1
#define TABLE mlx_embed_avx2_vnni
#define NAME "AVX-VNNI"
#include "narrow.inl"
#elif defined(__x86_64__)
extern "C" const Product mlx_embed_avx2_vnni = {};
#endif
