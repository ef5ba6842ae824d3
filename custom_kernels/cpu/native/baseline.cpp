// Compiled for what every processor of the architecture has: SSE2 on x86-64, NEON on aarch64.
#define LANES 4
#if defined(__aarch64__)
#define TILE_ROWS 8
#define TILE_VECTORS 3
#define NAME "NEON"
#else
#define TILE_ROWS 6
#define TILE_VECTORS 2
#define NAME "baseline"
#endif
#define TABLE mlx_embed_baseline
#include "kernels.inl"
