// The mean of each sequence's rows of hidden [T, WIDTH] in float32, but its first `skip` (all, where it has no more),
// scaled to length 1 if NORMALIZE. A block takes one sequence: CHUNKS warps side by side cover a row, VEC elements a
// lane, and GROUPS such teams take every GROUPS-th row. The order of additions is fixed.
// Compiled in: T, WIDTH, VEC, GROUPS, NORMALIZE.
#include "shared/vectors.cuh"

constexpr int CHUNKS = (WIDTH + 32 * VEC - 1) / (32 * VEC);
constexpr int THREADS = CHUNKS * GROUPS * 32;

extern "C" __global__ void __launch_bounds__(THREADS)
    mean_pool(const T* hidden, const int* cu_seqlens, float* out, int skip) {
  __shared__ float partial[GROUPS][WIDTH];
  __shared__ float squares[CHUNKS * GROUPS];

  const int begin = cu_seqlens[blockIdx.x];
  const int end = cu_seqlens[blockIdx.x + 1];
  const int first = end - begin > skip ? begin + skip : begin;
  const int team = threadIdx.x / (CHUNKS * 32);
  const int column = threadIdx.x % (CHUNKS * 32) * VEC;

  if (column < WIDTH) {
    const bool aligned = reinterpret_cast<unsigned long long>(hidden) % sizeof(Vector<T>) == 0;
    float sum[VEC] = {};
#pragma unroll 4
    for (int row = first + team; row < end; row += GROUPS) {
      const T* from = hidden + static_cast<long long>(row) * WIDTH + column;
      Vector<T> loaded;
      if (aligned) {
        loaded = *reinterpret_cast<const Vector<T>*>(from);
      } else {
        for (int i = 0; i < VEC; ++i) loaded.at[i] = from[i];
      }
#pragma unroll
      for (int i = 0; i < VEC; ++i) sum[i] += static_cast<float>(loaded.at[i]);
    }
#pragma unroll
    for (int i = 0; i < VEC; ++i) partial[team][column + i] = sum[i];
  }
  __syncthreads();

  float square = 0.0f;
  for (int c = threadIdx.x; c < WIDTH; c += THREADS) {
    float mean = 0.0f;
    for (int g = 0; g < GROUPS; ++g) mean += partial[g][c];
    mean /= max(end - first, 1);
    partial[0][c] = mean;
    square += mean * mean;
  }
  float scale = 1.0f;
  if constexpr (NORMALIZE) {
    for (int offset = 16; offset > 0; offset /= 2) square += __shfl_xor_sync(0xffffffff, square, offset);
    if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = square;
    __syncthreads();
    float whole = 0.0f;
    for (int w = 0; w < THREADS / 32; ++w) whole += squares[w];
    scale = 1.0f / fmaxf(sqrtf(whole), 1e-12f);
  }
  for (int c = threadIdx.x; c < WIDTH; c += THREADS) {
    out[static_cast<long long>(blockIdx.x) * WIDTH + c] = partial[0][c] * scale;
  }
}
