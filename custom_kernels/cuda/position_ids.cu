// The place of each of `total` tokens in its own sequence: out[t] = t - cu_seqlens[i], where sequence i has token t.
#include "shared/sequences.cuh"

extern "C" __global__ void position_ids(const int* cu_seqlens, int* out, int total, int n) {
  const int token = blockIdx.x * blockDim.x + threadIdx.x;
  if (token >= total) {
    return;
  }
  out[token] = token - cu_seqlens[sequence_of(cu_seqlens, n, token)];
}
