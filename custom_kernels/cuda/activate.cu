// out[row, i] = act(x[row, i]) of x [rows, WIDTH]; or, of x [rows, 2 * WIDTH], act(a) * b, where a is the first half of
// the row (GATE 1) or the second (GATE 2) and b the other one. A thread takes VEC elements, 16 bytes if it can.
// Compiled in: T, WIDTH, VEC (a divisor of WIDTH), GATE, ACTIVATION (0 erf GELU, 1 tanh GELU, 2 ReLU, 3 SiLU).
constexpr int IN = GATE ? 2 * WIDTH : WIDTH;
struct alignas(sizeof(T) * VEC) Vector {
  T at[VEC];
};

__device__ float activate_one(float x) {
  if constexpr (ACTIVATION == 0 && sizeof(T) == 2) {
    // Abramowitz and Stegun 7.1.26: erfc within 1.5e-7, with which a 16-bit result is bound by memory alone.
    const float z = fabsf(x) * 0.70710678f;
    const float t = __fdividef(1.0f, 1.0f + 0.3275911f * z);
    const float p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const float half_tail = 0.5f * p * __expf(-z * z);
    return x * (x < 0.0f ? half_tail : 1.0f - half_tail);
  }
  return activation<ACTIVATION>(x);
}

__device__ Vector read(const T* from) {
  if (reinterpret_cast<unsigned long long>(from) % sizeof(Vector) == 0) {
    return *reinterpret_cast<const Vector*>(from);
  }
  Vector out;
  for (int i = 0; i < VEC; ++i) out.at[i] = from[i];
  return out;
}

extern "C" __global__ void activate(const T* x, T* out, int rows) {
  const long long place = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * VEC;
  const long long row = place / WIDTH;
  const int column = static_cast<int>(place % WIDTH);
  if (row >= rows) {
    return;
  }
  const T* from = x + row * IN + column;
  const Vector active = read(from + (GATE == 2 ? WIDTH : 0));
  Vector other;
  if constexpr (GATE != 0) other = read(from + (GATE == 1 ? WIDTH : 0));
  Vector result;
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    float y = activate_one(static_cast<float>(active.at[i]));
    if constexpr (GATE != 0) y *= static_cast<float>(other.at[i]);
    result.at[i] = static_cast<T>(y);
  }
  *reinterpret_cast<Vector*>(out + place) = result;
}
