// Compiled for AVX-512 and its products of bytes.
#include "kernels.h"
#if defined(__AVX512VNNI__)
#define LANES 16
#define TILE_ROWS 14
#define TILE_VECTORS 2
#define NARROW 8
#define GROUP 1
#define TABLE mlx_embed_avx512_vnni
#define NAME "AVX512_VNNI"
#include "narrow.inl"
#elif defined(__x86_64__)
extern "C" const Product mlx_embed_avx512_vnni = {};
#endif
