// A block scores one document for one query. TILE of the document's tokens lie in shared memory, a lane each, and
// ROWS * WARPS of the query's, ROWS a warp, CHUNK dimensions at a time; a lane keeps the products of its token with
// ROWS of the query's. The order of additions is fixed.
// Compiled in: T, WIDTH.
#include "shared/greatest.cuh"

constexpr int TILE = 32;
constexpr int WARPS = 8;
constexpr int ROWS = 4;
constexpr int GROUP = ROWS * WARPS;
constexpr int CHUNK = 64;
constexpr float LOWEST = -3.402823466e38f;

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    max_sim(const T* queries, const int* query_starts, const T* documents, const int* document_starts, float* out,
            int texts) {
  __shared__ float document[TILE][CHUNK + 1];  // one more, so that lanes read from different banks
  __shared__ float asked[GROUP][CHUNK];
  __shared__ float partial[WARPS];

  const int text = blockIdx.x % texts;
  const int query = blockIdx.x / texts;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int begin = document_starts[text], end = document_starts[text + 1];
  const int first = query_starts[query], last = query_starts[query + 1];

  float total = 0.0f;
  for (int group = first; group < last; group += GROUP) {
    float best[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) best[r] = LOWEST;
    for (int tile = begin; tile < end; tile += TILE) {
      float sum[ROWS] = {};
      for (int chunk = 0; chunk < WIDTH; chunk += CHUNK) {
        __syncthreads();
        for (int i = threadIdx.x; i < TILE * CHUNK; i += 32 * WARPS) {
          const int token = tile + i / CHUNK, column = chunk + i % CHUNK;
          const bool there = token < end && column < WIDTH;
          document[i / CHUNK][i % CHUNK] =
              there ? static_cast<float>(documents[static_cast<long long>(token) * WIDTH + column]) : 0.0f;
        }
        for (int i = threadIdx.x; i < GROUP * CHUNK; i += 32 * WARPS) {
          const int token = group + i / CHUNK, column = chunk + i % CHUNK;
          const bool there = token < last && column < WIDTH;
          asked[i / CHUNK][i % CHUNK] =
              there ? static_cast<float>(queries[static_cast<long long>(token) * WIDTH + column]) : 0.0f;
        }
        __syncthreads();
#pragma unroll 16
        for (int j = 0; j < CHUNK; ++j) {
          const float value = document[lane][j];
#pragma unroll
          for (int r = 0; r < ROWS; ++r) sum[r] += asked[warp * ROWS + r][j] * value;
        }
      }
      if (tile + lane < end) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) best[r] = greatest_of(best[r], sum[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      for (int offset = 16; offset > 0; offset /= 2) {
        best[r] = greatest_of(best[r], __shfl_xor_sync(0xffffffff, best[r], offset));
      }
      if (group + warp * ROWS + r < last) total += best[r];
    }
  }
  if (lane == 0) partial[warp] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    float score = 0.0f;
    for (int w = 0; w < WARPS; ++w) score += partial[w];
    out[static_cast<long long>(query) * texts + text] = begin < end ? score : __int_as_float(0xff800000);
  }
}
