// The place of each of `total` tokens in its own sequence: out[t] = t - cu_seqlens[i], where sequence i has token t.
extern "C" __global__ void position_ids(const int* cu_seqlens, int* out, int total, int n) {
  const int token = blockIdx.x * blockDim.x + threadIdx.x;
  if (token >= total) {
    return;
  }
  int low = 0, high = n;  // cu_seqlens[low] <= token < cu_seqlens[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (cu_seqlens[middle] <= token ? low : high) = middle;
  }
  out[token] = token - cu_seqlens[low];
}
