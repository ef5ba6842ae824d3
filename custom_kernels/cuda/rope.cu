// LANES threads turn one head of one token: elements i and i + HALF are a pair. With norms, the head of a query or key
// is divided by the root of its mean square first, and multiplied with its weights. A value's head passes. Compiled in:
// T, N (of the norms' weights), HEADS, KV_HEADS, HALF, VEC (elements that a thread reads at once, which divide HALF),
// LANES (a power of 2, of one warp), NORM.
#include "shared/vectors.cuh"

constexpr int STEPS = (HALF + VEC * LANES - 1) / (VEC * LANES);
constexpr int ALL = HEADS + 2 * KV_HEADS;

extern "C" __global__ void rope(const T* qkv, const int* positions, const float* cosines, const float* sines,
                                const N* query_norm, const N* key_norm, T* out, int total, float eps, float offset) {
  const long long place = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
  const long long token = place / ALL;
  // Whole warps go on together to where their threads exchange sums.
  const bool here = token < total;
  const int head = static_cast<int>(place % ALL);
  const int lane = threadIdx.x % LANES;
  const T* from = qkv + place * (2 * HALF);
  T* to = out + place * (2 * HALF);

  Vector<T> first[STEPS], second[STEPS];
  float square = 0.0f;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int column = (s * LANES + lane) * VEC;
    if (here && column < HALF) {
      first[s] = load(from + column);
      second[s] = load(from + column + HALF);
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        const float x = static_cast<float>(first[s].at[i]);
        const float y = static_cast<float>(second[s].at[i]);
        square += x * x + y * y;
      }
    }
  }
  float scale = 1.0f;
  if constexpr (NORM) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffff, square, step);
    scale = rsqrtf(square / (2 * HALF) + eps);
  }
  if (!here) {
    return;
  }

  const bool turns = head < HEADS + KV_HEADS;
  const N* weight = head < HEADS ? query_norm : key_norm;
  const long long angle = turns ? static_cast<long long>(positions[token]) * HALF : 0;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int column = (s * LANES + lane) * VEC;
    if (column < HALF) {
      if (turns) {
        const Vector<float> cosine = load(cosines + angle + column);
        const Vector<float> sine = load(sines + angle + column);
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          float x = static_cast<float>(first[s].at[i]);
          float y = static_cast<float>(second[s].at[i]);
          if constexpr (NORM) {
            x *= scale * (offset + static_cast<float>(weight[column + i]));
            y *= scale * (offset + static_cast<float>(weight[column + i + HALF]));
          }
          first[s].at[i] = static_cast<T>(x * cosine.at[i] - y * sine.at[i]);
          second[s].at[i] = static_cast<T>(y * cosine.at[i] + x * sine.at[i]);
        }
      }
      // An output starts where MLX allocates it, and each half after a whole number of vectors.
      *reinterpret_cast<Vector<T>*>(to + column) = first[s];
      *reinterpret_cast<Vector<T>*>(to + column + HALF) = second[s];
    }
  }
}
