// A thread keeps the greatest of one column over the tokens of one sequence; a block has THREADS columns of one.
// Compiled in: T, THREADS.
#include "shared/greatest.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_max(const T* products, const int* cu_seqlens, float* out, int columns, int across) {
  const int column = blockIdx.x % across * THREADS + threadIdx.x;
  const int sequence = blockIdx.x / across;
  if (column >= columns) return;
  float greatest = __int_as_float(0xff800000);
  const int end = cu_seqlens[sequence + 1];
#pragma unroll 4
  for (int token = cu_seqlens[sequence]; token < end; ++token) {
    greatest = greatest_of(greatest, static_cast<float>(products[static_cast<long long>(token) * columns + column]));
  }
  out[static_cast<long long>(sequence) * columns + column] = greatest;
}
