// Copies `count` integers from pinned host memory, whose address is `high` and `low` put together.
extern "C" __global__ void from_host(int* out, int low, int high, int count) {
  const int* from = reinterpret_cast<const int*>(static_cast<unsigned long long>(static_cast<unsigned>(high)) << 32 |
                                                 static_cast<unsigned>(low));
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) {
    out[i] = __ldcv(from + i);  // never from a cache: the host has written there since the last launch
  }
}
