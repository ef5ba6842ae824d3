// Compiled for AVX-512 and the tiles of bytes of AMX.
#include "kernels.h"
#if defined(__AMX_INT8__)
#define LANES 16
#define TILE_ROWS 32
#define TILE_VECTORS 2
#define NARROW 8
#define GROUP 16
#define TABLE mlx_embed_amx_int8
#define NAME "AMX_INT8"
#include "narrow.inl"
#elif defined(__x86_64__)
extern "C" const Product mlx_embed_amx_int8 = {};
#endif
