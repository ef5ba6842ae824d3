// out[row, i] = act(x[row, i]) of x [rows, WIDTH]; or, of x [rows, 2 * WIDTH], act(a) * b, where a is the first half of
// the row (GATE 1) or the second (GATE 2) and b the other one. A thread takes VEC elements, 16 bytes if it can.
// Compiled in: T, WIDTH, VEC (a divisor of WIDTH), GATE, ACTIVATION (0 erf GELU, 1 tanh GELU, 2 ReLU, 3 SiLU).
#include "shared/activations.cuh"
#include "shared/vectors.cuh"

constexpr int IN = GATE ? 2 * WIDTH : WIDTH;

__device__ float activate_one(float x) {
  // Of 16-bit values the quick form, with which they are bound by memory alone.
  return sizeof(T) == 2 ? short_activation<ACTIVATION>(x) : activation<ACTIVATION>(x);
}

extern "C" __global__ void activate(const T* x, T* out, int rows) {
  const long long place = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * VEC;
  const long long row = place / WIDTH;
  const int column = static_cast<int>(place % WIDTH);
  if (row >= rows) {
    return;
  }
  const T* from = x + row * IN + column;
  const Vector<T> active = load(from + (GATE == 2 ? WIDTH : 0));
  Vector<T> other;
  if constexpr (GATE != 0) other = load(from + (GATE == 1 ? WIDTH : 0));
  Vector<T> result;
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    float y = activate_one(static_cast<float>(active.at[i]));
    if constexpr (GATE != 0) y *= static_cast<float>(other.at[i]);
    result.at[i] = static_cast<T>(y);
  }
  *reinterpret_cast<Vector<T>*>(out + place) = result;
}
