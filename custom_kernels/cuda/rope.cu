// A thread turns one pair of one token: elements i and i + HALF of a head, a query's or key's. A value's pair passes.
// Compiled in: T, HEADS, HALF.
extern "C" __global__ void rope(const T* qkv, const int* positions, const float* cosines, const float* sines, T* out,
                                int total) {
  const long long pair = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long token = pair / (3 * HEADS * HALF);
  if (token >= total) {
    return;
  }
  const int place = static_cast<int>(pair % (3 * HEADS * HALF));
  const int head = place / HALF;
  const int i = place % HALF;
  const long long at = token * (6 * HEADS * HALF) + head * (2 * HALF) + i;

  T first = qkv[at];
  T second = qkv[at + HALF];
  if (head < 2 * HEADS) {
    const long long angle = static_cast<long long>(positions[token]) * HALF + i;
    const float x = static_cast<float>(first);
    const float y = static_cast<float>(second);
    first = static_cast<T>(x * cosines[angle] - y * sines[angle]);
    second = static_cast<T>(y * cosines[angle] + x * sines[angle]);
  }
  out[at] = first;
  out[at + HALF] = second;
}
