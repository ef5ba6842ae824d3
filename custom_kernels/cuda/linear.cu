// out [total, N] = act(x w^T + b). A block takes a run of tiles of ROWS x COLUMNS results, all columns of its rows
// before the next rows. While the tensor cores multiply for one tile, the threads finish and store the tile before.
// Compiled in: as `products.cu` says; ACTIVATION (-1 none, 0 erf GELU, 1 tanh GELU, 2 ReLU, 3 SiLU), HAS_BIAS.
#include "shared/activations.cuh"
#include "shared/halves.cuh"
#include "shared/products.cuh"

constexpr int PIECES = COLUMNS / 32;
constexpr int REGISTERS = GROUPS == 3 ? 160 : 240;  // of a thread that multiplies
constexpr int FEW_REGISTERS = GROUPS == 3 ? 32 : 24;

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear(const T* x, const T* w, const T* bias, T* out, int total) {
  extern __shared__ unsigned char memory[];
  const unsigned rows = (shared_address(memory) + 1023) / 1024 * 1024;
  Ring ring(rows + GROUPS * DEPTHS * BLOCK_BYTES);
  if (threadIdx.x == 0) ring.initialise();
  __syncthreads();

  const int tiles = (total + ROWS - 1) / ROWS * SPANS;
  const int begin = static_cast<int>(static_cast<long long>(blockIdx.x) * tiles / gridDim.x);
  const int end = static_cast<int>(static_cast<long long>(blockIdx.x + 1) * tiles / gridDim.x);
  const int group = threadIdx.x / 128;

  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FEW_REGISTERS));
    if (threadIdx.x % 128 == 0) {
      for (int tile = begin; tile < end; ++tile) {
        for (int depth = 0; depth < DEPTHS; ++depth) fetch(ring, w, tile % SPANS * COLUMNS, depth);
      }
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const unsigned own = rows + group * DEPTHS * BLOCK_BYTES;

  // 32 columns of a tile, 8 of them this thread's.
  const auto store = [&](const float (&sum)[SUMS], const Eight(&offsets)[PIECES], int tile, int piece) {
    const int column = tile % SPANS * COLUMNS + piece * 32 + lane % 4 * 8;
    const int row = tile / SPANS * ROWS + group * GROUP_ROWS + warp * 16 + lane / 4;
    float value[2][8];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float y = sum[piece * 16 + i % 8 / 2 * 4 + i / 8 * 2 + i % 2] +
                      (HAS_BIAS ? static_cast<float>(offsets[piece].at[i % 8]) : 0.0f);
      value[i / 8][i % 8] = ACTIVATION < 0 ? y : short_activation<ACTIVATION>(y);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* const v = value[half];
      const uint4 result =
          make_uint4(rounded(v[0], v[1]), rounded(v[2], v[3]), rounded(v[4], v[5]), rounded(v[6], v[7]));
      if (row + half * 8 < total) {
        *reinterpret_cast<uint4*>(out + static_cast<long long>(row + half * 8) * N + column) = result;
      }
    }
  };

  float sum[SUMS], before[SUMS];
  Eight offsets[PIECES], offsets_before[PIECES];
  int loaded = -1;
  for (int tile = begin; tile < end; ++tile) {
    if (tile / SPANS != loaded) {
      if (loaded >= 0) group_sync(group);
      loaded = tile / SPANS;
      load_rows(x, own, loaded * ROWS + group * GROUP_ROWS, total);
      wait_for_rows(group);
    }
    if constexpr (HAS_BIAS) {
#pragma unroll
      for (int piece = 0; piece < PIECES; ++piece) {
        offsets[piece] = *reinterpret_cast<const Eight*>(bias + tile % SPANS * COLUMNS + piece * 32 + lane % 4 * 8);
      }
    }
    pin(sum);
    unsigned last = 0;
#pragma unroll
    for (int depth = 0; depth < DEPTHS; ++depth) {
      multiply_place(sum, own + depth * BLOCK_BYTES, ring, depth > 0);
      if (tile > begin) {
#pragma unroll
        for (int piece = depth * PIECES / DEPTHS; piece < (depth + 1) * PIECES / DEPTHS; ++piece) {
          store(before, offsets_before, tile - 1, piece);
        }
      }
      go_on(ring, last, depth == 0, lane);
    }
    finish(last, lane);
    pin(sum);
    // Two names for two halves of the registers would save these copies, and double the code, which MLX hashes whole at
    // every launch.
#pragma unroll
    for (int i = 0; i < SUMS; ++i) before[i] = sum[i];
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece) offsets_before[piece] = offsets[piece];
  }
  if (begin < end) {
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece) store(before, offsets_before, end - 1, piece);
  }
}
