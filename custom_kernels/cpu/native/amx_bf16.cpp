// Compiled for AVX-512 and the tiles of bfloat16 of AMX.
#include "kernels.h"
#if defined(__AMX_BF16__)
#define LANES 16
#define TILE_ROWS 32
#define TILE_VECTORS 2
#define NARROW 16
#define GROUP 16
#define TABLE mlx_embed_amx_bf16
#define NAME "AMX_BF16"
#include "narrow.inl"
#elif defined(__x86_64__)
extern "C" const Product mlx_embed_amx_bf16 = {};
#endif
