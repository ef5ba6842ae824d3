// A warp turns one head of one token: elements i and i + HALF are a pair. With norms, the head of a query or key is
// divided by the root of its mean square first, and multiplied with its weights. A value's head passes.
// Compiled in: T, N (of the norms' weights), HEADS, KV_HEADS, HALF, NORM.
constexpr int STEPS = (HALF + 31) / 32;
constexpr int ALL = HEADS + 2 * KV_HEADS;

extern "C" __global__ void rope(const T* qkv, const int* positions, const float* cosines, const float* sines,
                                const N* query_norm, const N* key_norm, T* out, int total, float eps, float offset) {
  const long long place = static_cast<long long>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const long long token = place / ALL;
  if (token >= total) {
    return;
  }
  const int head = static_cast<int>(place % ALL);
  const int lane = threadIdx.x % 32;
  const T* from = qkv + place * (2 * HALF);
  T* to = out + place * (2 * HALF);
  if (head >= HEADS + KV_HEADS) {
    for (int i = lane; i < 2 * HALF; i += 32) to[i] = from[i];
    return;
  }

  float first[STEPS], second[STEPS];
  float square = 0.0f;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int i = s * 32 + lane;
    first[s] = i < HALF ? static_cast<float>(from[i]) : 0.0f;
    second[s] = i < HALF ? static_cast<float>(from[i + HALF]) : 0.0f;
    square += first[s] * first[s] + second[s] * second[s];
  }
  float scale = 1.0f;
  if constexpr (NORM) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffff, square, step);
    scale = rsqrtf(square / (2 * HALF) + eps);
  }
  const N* weight = head < HEADS ? query_norm : key_norm;
  const long long angle = static_cast<long long>(positions[token]) * HALF;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int i = s * 32 + lane;
    if (i < HALF) {
      float x = first[s];
      float y = second[s];
      if constexpr (NORM) {
        x *= scale * (offset + static_cast<float>(weight[i]));
        y *= scale * (offset + static_cast<float>(weight[i + HALF]));
      }
      const float c = cosines[angle + i];
      const float d = sines[angle + i];
      to[i] = static_cast<T>(x * c - y * d);
      to[i + HALF] = static_cast<T>(y * c + x * d);
    }
  }
}
