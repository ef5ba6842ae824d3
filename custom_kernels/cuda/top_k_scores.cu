// A block finds the best K of CHUNK rows for one query: each warp computes the inner products of every WARPS-th row,
// VEC elements a lane at a time, and then all threads sort the scores, larger ones first, of equal ones the first row
// first. out [n, chunks, 2, K]: scores and rows; -1 where a row does not count.
// Compiled in: T, WIDTH, VEC (which divides it), K, CHUNK (a power of 2), THREADS, MASKED, SCALED.
#include "shared/vectors.cuh"

constexpr int WARPS = THREADS / 32;
constexpr int NO_ROW = 2147483647;

extern "C" __global__ void __launch_bounds__(THREADS)
    top_k_scores(const float* queries, const T* rows, const unsigned char* mask, const float* scales, float* out,
                 int count, int chunks) {
  __shared__ float asked[WIDTH];
  __shared__ float score[CHUNK];
  __shared__ int place[CHUNK];

  const int chunk = blockIdx.x % chunks;
  const int query = blockIdx.x / chunks;
  const int lane = threadIdx.x % 32;
  for (int j = threadIdx.x; j < WIDTH; j += THREADS) asked[j] = queries[static_cast<long long>(query) * WIDTH + j];
  __syncthreads();

  const bool aligned = reinterpret_cast<unsigned long long>(rows) % sizeof(Vector<T>) == 0;
#pragma unroll 4
  for (int i = threadIdx.x / 32; i < CHUNK; i += WARPS) {
    const int row = chunk * CHUNK + i;
    bool wanted = row < count;
    if constexpr (MASKED) wanted = wanted && (mask[row / 8] >> (row % 8) & 1);
    float sum = 0.0f;
    if (wanted) {
      const T* from = rows + static_cast<long long>(row) * WIDTH;
      for (int j = lane * VEC; j < WIDTH; j += 32 * VEC) {
        Vector<T> loaded;
        if (aligned) {
          loaded = *reinterpret_cast<const Vector<T>*>(from + j);
        } else {
          for (int v = 0; v < VEC; ++v) loaded.at[v] = from[j + v];
        }
#pragma unroll
        for (int v = 0; v < VEC; ++v) sum += asked[j + v] * static_cast<float>(loaded.at[v]);
      }
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);
    if constexpr (SCALED) {
      if (wanted) sum *= scales[row];
    }
    if (lane == 0) {
      score[i] = wanted ? sum : -3.402823466e38f;
      place[i] = wanted ? row : NO_ROW;
    }
  }
  __syncthreads();

  // A bitonic sort.
  for (int size = 2; size <= CHUNK; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < CHUNK / 2; i += THREADS) {
        const int one = 2 * i - (i & (step - 1));
        const int other = one + step;
        const float one_score = score[one], other_score = score[other];
        const int one_place = place[one], other_place = place[other];
        const bool better = one_score > other_score || (one_score == other_score && one_place < other_place);
        if (better != ((one & size) == 0)) {
          score[one] = other_score;
          score[other] = one_score;
          place[one] = other_place;
          place[other] = one_place;
        }
      }
      __syncthreads();
    }
  }
  for (int i = threadIdx.x; i < K; i += THREADS) {
    const long long at = (static_cast<long long>(query) * chunks + chunk) * 2 * K + i;
    out[at] = score[i];
    out[at + K] = place[i] == NO_ROW ? -1.0f : static_cast<float>(place[i]);
  }
}
