// Copies `count` floats to pinned host memory, whose address is `high` and `low` put together. `done` is an output for
// MLX to wait for.
extern "C" __global__ void to_host(const float* x, int* done, int low, int high, int count) {
  float* to = reinterpret_cast<float*>(static_cast<unsigned long long>(static_cast<unsigned>(high)) << 32 |
                                       static_cast<unsigned>(low));
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) {
    to[i] = x[i];
  }
  if (i == 0) {
    *done = 1;
  }
}
