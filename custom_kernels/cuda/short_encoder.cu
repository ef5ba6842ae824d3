// LAYERS post-norm encoder layers (BERT's) on a short batch in one launch: x [total, H] -> out [total, H]. With few
// tokens a layer is bound by launches and by reading its weights, so the blocks of one grid do its seven steps one
// after the other, with barriers between them. All blocks must be on the GPU at once: there are no more of them than
// multiprocessors.
// A step's work is shared out by columns, heads or rows. In a product, a block takes 8 columns and its WARPS warps
// split the depth; what they read is 16 bytes a thread, straight from memory.
// `bias` [HEADS, 2 * reach + 1] is by distance, as in attention.cu.
// Compiled in: T, B (of the attention's bias), H (a multiple of 32), HEADS, INNER (a multiple of 32), TOKENS (no batch
// has more), ACTIVATION (0 erf GELU, 1 tanh GELU, 2 ReLU, 3 SiLU), HAS_BIAS, BFLOAT, LAYERS; and, 12 pointers a layer,
// the macros WEIGHTS (the parameters) and FILL (table[i] = parameter i, for all).
#include "shared/activations.cuh"
#include "shared/halves.cuh"
#include "shared/sequences.cuh"

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * 32;
constexpr int D = H / HEADS;
constexpr int ROWS = TOKENS < 128 ? TOKENS : 128;  // that a block has at a time
constexpr int TILES = ROWS / 16;
constexpr int KEYS = (TOKENS + 31) / 32;  // a lane
constexpr int DIMS = (D + 31) / 32;       // a lane

struct alignas(16) Eight {
  unsigned at[4];
};

__device__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffff, x, offset);
  return x;
}

__device__ unsigned long long now() {  // nanoseconds
  unsigned long long time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

// All blocks wait for all others. `state` is {blocks that have come, barriers passed}, and as it was afterwards.
__device__ void barrier(unsigned* state) {
  __syncthreads();
  if (threadIdx.x == 0) {
    volatile unsigned* passed = state + 1;
    const unsigned before = *passed;
    __threadfence();
    if (atomicAdd(state, 1) == gridDim.x - 1) {
      atomicExch(state, 0);
      __threadfence();
      atomicAdd(state + 1, 1);
    } else {
      const unsigned long long start = now();
      while (*passed == before) {
        // Two such grids of two streams could each keep the other's last blocks out: an error is better than no end.
        if (now() - start > 10000000000ull) __trap();
      }
    }
    __threadfence();
  }
  __syncthreads();
}

__shared__ float partial[WARPS][ROWS][8];

// store(row, column, sum) for each element of a [total, K] times the transpose of w [N, K].
template <int K, int N, typename Store>
__device__ void product(const T* a, const T* w, int total, Store store) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4;
  const int items = N / 8 * ((total + ROWS - 1) / ROWS);
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const int tile = item % (N / 8), first = item / (N / 8) * ROWS;
    const int rows = min(total - first, ROWS);
    const T* const from = a + static_cast<long long>(first) * K;
    float sum[TILES][4] = {};
    // A thread's 8 neighbours in depth serve as the 2 x 4 places that two multiplications want of it: the order of the
    // depth does not matter as long as a and w agree.
#pragma unroll
    for (int step = 0; step < (K / 32 + WARPS - 1) / WARPS; ++step) {
      const int k = (step * WARPS + warp) * 32 + lane % 4 * 8;
      if (k < K) {
        const Eight b = *reinterpret_cast<const Eight*>(w + static_cast<long long>(tile * 8 + group) * K + k);
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
          const int row = m * 16 + group;
          Eight low = {}, high = {};
          if (row < rows) low = *reinterpret_cast<const Eight*>(from + row * K + k);
          if (row + 8 < rows) high = *reinterpret_cast<const Eight*>(from + (row + 8) * K + k);
          multiply(sum[m], low.at[0], high.at[0], low.at[1], high.at[1], b.at[0], b.at[1]);
          multiply(sum[m], low.at[2], high.at[2], low.at[3], high.at[3], b.at[2], b.at[3]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < TILES; ++m) {
      for (int i = 0; i < 4; ++i) partial[warp][m * 16 + group + i / 2 * 8][lane % 4 * 2 + i % 2] = sum[m][i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows * 8; i += THREADS) {
      float whole = 0.0f;
#pragma unroll 2
      for (int other = 0; other < WARPS; ++other) whole += partial[other][i / 8][i % 8];
      store(first + i / 8, tile * 8 + i % 8, whole);
    }
    __syncthreads();
  }
}

// A warp takes one query of one head; a lane scores KEYS keys and sums DIMS dimensions.
__device__ void attend(const T* qkv, const int* cu_seqlens, const B* bias, T* out, int total, int n, int reach,
                       float scale) {
  const int lane = threadIdx.x % 32;
  for (int item = blockIdx.x * WARPS + threadIdx.x / 32; item < total * HEADS; item += gridDim.x * WARPS) {
    const int token = item / HEADS, head = item % HEADS;
    const int sequence = sequence_of(cu_seqlens, n, token);
    const int begin = cu_seqlens[sequence], length = cu_seqlens[sequence + 1] - begin;
    const T* keys = qkv + static_cast<long long>(begin) * 3 * H + H + head * D;
    const T* query = qkv + static_cast<long long>(token) * 3 * H + head * D;

    float score[KEYS];
    float largest = -1e30f;
#pragma unroll
    for (int j = 0; j < KEYS; ++j) {
      const int key = lane + j * 32;
      score[j] = -1e30f;
      if (key < length) {
        float dot = 0.0f;
#pragma unroll
        for (int d = 0; d < D; d += 8) {
          const Eight q = *reinterpret_cast<const Eight*>(query + d);
          const Eight k = *reinterpret_cast<const Eight*>(keys + static_cast<long long>(key) * 3 * H + d);
          const T* left = reinterpret_cast<const T*>(&q);
          const T* right = reinterpret_cast<const T*>(&k);
#pragma unroll
          for (int i = 0; i < 8; ++i) dot += static_cast<float>(left[i]) * static_cast<float>(right[i]);
        }
        score[j] = dot * scale;
        if constexpr (HAS_BIAS) {
          score[j] += static_cast<float>(bias[head * (2 * reach + 1) + reach + key - (token - begin)]);
        }
      }
      largest = fmaxf(largest, score[j]);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, offset));
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < KEYS; ++j) {
      score[j] = lane + j * 32 < length ? __expf(score[j] - largest) : 0.0f;
      sum += score[j];
    }
    sum = warp_sum(sum);

    float mixed[DIMS] = {};
#pragma unroll
    for (int j = 0; j < KEYS; ++j) {
      const int there = min(length - j * 32, 32);  // the same in all lanes, as all of them must come to each shuffle
#pragma unroll 4
      for (int k = 0; k < there; ++k) {
        const float weight = __shfl_sync(0xffffffff, score[j], k);
#pragma unroll
        for (int i = 0; i < DIMS; ++i) {
          const int d = lane + i * 32;
          if (d < D) mixed[i] += weight * static_cast<float>(keys[static_cast<long long>(j * 32 + k) * 3 * H + H + d]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < DIMS; ++i) {
      const int d = lane + i * 32;
      if (d < D) out[static_cast<long long>(token) * H + head * D + d] = static_cast<T>(mixed[i] / sum);
    }
  }
}

// LayerNorm of float32 rows: a warp takes one.
__device__ __noinline__ void normalise(const float* x, const T* weight, const T* bias, T* out, int total, float eps) {
  const int lane = threadIdx.x % 32;
  for (int row = threadIdx.x / 32 * gridDim.x + blockIdx.x; row < total; row += gridDim.x * WARPS) {
    float value[H / 32];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < H / 32; ++i) {
      value[i] = x[static_cast<long long>(row) * H + i * 32 + lane];
      sum += value[i];
    }
    const float mean = warp_sum(sum) / H;
    float square = 0.0f;
#pragma unroll
    for (int i = 0; i < H / 32; ++i) {
      value[i] -= mean;
      square += value[i] * value[i];
    }
    const float scale = rsqrtf(warp_sum(square) / H + eps);
#pragma unroll
    for (int i = 0; i < H / 32; ++i) {
      const int column = i * 32 + lane;
      const float y = value[i] * scale * static_cast<float>(weight[column]) + static_cast<float>(bias[column]);
      out[static_cast<long long>(row) * H + column] = static_cast<T>(y);
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    short_encoder(const T* x, const int* cu_seqlens, unsigned* state, const B* bias, WEIGHTS, T* out, T* qkv,
                  T* attended, float* added, T* between, T* inner, int total, int n, int reach, float scale,
                  float eps) {
  __shared__ const T* table[12 * LAYERS];
  if (threadIdx.x == 0) {
    FILL
  }
  __syncthreads();
  for (int layer = 0; layer < LAYERS; ++layer) {
    const T* const* const weights = table + 12 * layer;
    const T* const qkv_bias = weights[1];
    const T* const out_bias = weights[3];
    const T* const up_bias = weights[7];
    const T* const down_bias = weights[9];
    product<H, 3 * H>(x, weights[0], total, [&](int row, int column, float sum) {
      qkv[row * 3 * H + column] = static_cast<T>(sum + static_cast<float>(qkv_bias[column]));
    });
    barrier(state);
    attend(qkv, cu_seqlens, bias, attended, total, n, reach, scale);
    barrier(state);
    product<H, H>(attended, weights[2], total, [&](int row, int column, float sum) {
      added[row * H + column] = sum + static_cast<float>(out_bias[column]) + static_cast<float>(x[row * H + column]);
    });
    barrier(state);
    normalise(added, weights[4], weights[5], between, total, eps);
    barrier(state);
    product<H, INNER>(between, weights[6], total, [&](int row, int column, float sum) {
      inner[row * INNER + column] = static_cast<T>(activation<ACTIVATION>(sum + static_cast<float>(up_bias[column])));
    });
    barrier(state);
    product<INNER, H>(inner, weights[8], total, [&](int row, int column, float sum) {
      added[row * H + column] =
          sum + static_cast<float>(down_bias[column]) + static_cast<float>(between[row * H + column]);
    });
    barrier(state);
    normalise(added, weights[10], weights[11], out, total, eps);
    barrier(state);
    x = out;
  }
}
