// A row of WIDTH elements in the registers of LANES threads, ROWS rows a block: STEPS vectors of VEC elements a thread.
#include "shared/vectors.cuh"

constexpr int STEPS = (WIDTH + VEC * LANES - 1) / (VEC * LANES);
constexpr int WARPS = LANES / 32;
constexpr int THREADS = LANES * ROWS;

// As vectors where the address of the row allows it, which is looked at once.
template <typename X>
__device__ void load(Vector<X> (&to)[STEPS], const X* row, int lane) {
  const bool aligned = reinterpret_cast<unsigned long long>(row) % sizeof(Vector<X>) == 0;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int column = (s * LANES + lane) * VEC;
    if (column < WIDTH) {
      if (aligned) {
        to[s] = *reinterpret_cast<const Vector<X>*>(row + column);
      } else {
        for (int i = 0; i < VEC; ++i) to[s].at[i] = row[column + i];
      }
    }
  }
}
