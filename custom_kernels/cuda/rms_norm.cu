// out = x / sqrt(mean(x^2) + eps) * (offset + weight) + residual, a row at a time: LANES threads (a whole number of
// warps) a row, ROWS rows a block. Each lane keeps its STEPS vectors of VEC elements in registers.
// Compiled in: T, W (of the weight), WIDTH, VEC, LANES, ROWS (1 unless LANES is one warp), HAS_RESIDUAL, HALF (T is
// float16, whose sums stay within its range).
#include "shared/rows.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    rms_norm(const T* x, const W* weight, const T* residual, T* out, int total, float eps, float offset) {
  const int lane = threadIdx.x % LANES;
  const long long row = static_cast<long long>(blockIdx.x) * ROWS + threadIdx.x / LANES;
  if (row >= total) {
    return;  // whole warps leave together, and with several warps a row ROWS is 1: no barrier is missed
  }
  Vector<T> values[STEPS], added[STEPS];
  Vector<W> weights[STEPS];
  load(values, x + row * WIDTH, lane);
  if constexpr (HAS_RESIDUAL) load(added, residual + row * WIDTH, lane);
  load(weights, weight, lane);

  float square = 0.0f;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    if ((s * LANES + lane) * VEC < WIDTH) {
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        const float value = static_cast<float>(values[s].at[i]);
        square += value * value;
      }
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffff, square, step);
  if constexpr (WARPS > 1) {
    __shared__ float partial[WARPS];
    if (lane % 32 == 0) partial[lane / 32] = square;
    __syncthreads();
    square = 0.0f;
    for (int w = 0; w < WARPS; ++w) square += partial[w];
  }
  const float scale = rsqrtf(square / WIDTH + eps);

  T* out_row = out + row * WIDTH;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int column = (s * LANES + lane) * VEC;
    if (column < WIDTH) {
      Vector<T> result;
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        float y = static_cast<float>(values[s].at[i]) * scale * (offset + static_cast<float>(weights[s].at[i]));
        if constexpr (HAS_RESIDUAL) {
          y += static_cast<float>(added[s].at[i]);
          if constexpr (HALF) y = y > 65504.0f ? 65504.0f : y < -65504.0f ? -65504.0f : y;  // a NaN stays one
        }
        result.at[i] = static_cast<T>(y);
      }
      *reinterpret_cast<Vector<T>*>(out_row + column) = result;
    }
  }
}
