// LayerNorm of the sum of COUNT rows: rows of a, b and c at the same place, or (LOOKUP) at the places that ids name.
// LANES threads (a whole number of warps) normalise a row; a block takes ROWS rows. Each lane keeps its STEPS vectors
// of VEC elements in registers, so every input is read once.
// Compiled in: T, W and B (of weight and bias), WIDTH, VEC, LANES, ROWS (1 unless LANES is one warp), COUNT, LOOKUP,
// NORM, HAS_BIAS.
#include "shared/rows.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    layer_norm(const T* a, const T* b, const T* c, const int* ids_a, const int* ids_b, const int* ids_c,
               const W* weight, const B* bias, T* out, int total, float eps) {
  const int lane = threadIdx.x % LANES;
  const long long row = static_cast<long long>(blockIdx.x) * ROWS + threadIdx.x / LANES;
  if (row >= total) {
    return;  // whole warps leave together, and with several warps a row ROWS is 1: no barrier is missed
  }

  // The sums of (p, q) over the LANES threads of this row, the same in all of them.
  __shared__ float2 partial[2][WARPS];
  int round = 0;
  const auto row_sum = [&](float p, float q) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      p += __shfl_xor_sync(0xffffffff, p, offset);
      q += __shfl_xor_sync(0xffffffff, q, offset);
    }
    if constexpr (WARPS > 1) {
      if (lane % 32 == 0) partial[round][lane / 32] = make_float2(p, q);
      __syncthreads();
      p = q = 0.0f;
      for (int w = 0; w < WARPS; ++w) {
        p += partial[round][w].x;
        q += partial[round][w].y;
      }
      ++round;
    }
    return make_float2(p, q);
  };

  Vector<T> loaded[COUNT][STEPS];
  const auto place = [&](const int* ids) { return static_cast<long long>(LOOKUP ? ids[row] : row) * WIDTH; };
  load(loaded[0], a + place(ids_a), lane);
  if constexpr (COUNT > 1) load(loaded[1], b + place(ids_b), lane);
  if constexpr (COUNT > 2) load(loaded[2], c + place(ids_c), lane);
  Vector<W> weights[STEPS];
  Vector<B> offsets[STEPS];
  if constexpr (NORM) load(weights, weight, lane);
  if constexpr (HAS_BIAS) load(offsets, bias, lane);

  float value[STEPS][VEC];
  float sum = 0.0f;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    if ((s * LANES + lane) * VEC < WIDTH) {
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        value[s][i] = static_cast<float>(loaded[0][s].at[i]);
#pragma unroll
        for (int input = 1; input < COUNT; ++input) value[s][i] += static_cast<float>(loaded[input][s].at[i]);
        sum += value[s][i];
      }
    }
  }

  float scale = 1.0f;
  float shift = 0.0f;
  if constexpr (NORM) {
    const float mean = row_sum(sum, 0.0f).x / WIDTH;
    // Second pass, over the centred values. Their own mean is what rounding left in the first mean: it matters when
    // the mean is large beside the deviation, and removing it costs no further pass.
    float square = 0.0f;
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      if ((s * LANES + lane) * VEC < WIDTH) {
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          value[s][i] -= mean;
          shift += value[s][i];
          square += value[s][i] * value[s][i];
        }
      }
    }
    const float2 sums = row_sum(shift, square);
    shift = sums.x / WIDTH;
    scale = rsqrtf(fmaxf(sums.y / WIDTH - shift * shift, 0.0f) + eps);
  }

  T* out_row = out + row * WIDTH;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int column = (s * LANES + lane) * VEC;
    if (column < WIDTH) {
      Vector<T> result;
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        float y = (value[s][i] - shift) * scale;
        if constexpr (NORM) {
          y *= static_cast<float>(weights[s].at[i]);
          if constexpr (HAS_BIAS) y += static_cast<float>(offsets[s].at[i]);
        }
        result.at[i] = static_cast<T>(y);
      }
      *reinterpret_cast<Vector<T>*>(out_row + column) = result;
    }
  }
}
