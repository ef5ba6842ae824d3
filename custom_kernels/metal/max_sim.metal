// A threadgroup scores one document for one query. TILE of the document's tokens lie in threadgroup memory, a lane
// each, and ROWS * SIMDGROUPS of the query's, ROWS a simdgroup, CHUNK dimensions at a time; a lane keeps the products
// of its token with ROWS of the query's. Template: WIDTH.
constexpr int TILE = 32;
constexpr int SIMDGROUPS = 8;
constexpr int ROWS = 4;
constexpr int GROUP = ROWS * SIMDGROUPS;
constexpr int CHUNK = 64;
constexpr float LOWEST = -3.402823466e38f;

threadgroup float document[TILE * (CHUNK + 1)];  // one more, so that lanes read from different banks
threadgroup float asked[GROUP * CHUNK];
threadgroup float partial[SIMDGROUPS];

const int text = int(threadgroup_position_in_grid.x);
const int query = int(threadgroup_position_in_grid.y);
const int texts = int(threadgroups_per_grid.x);
const int lane = int(thread_index_in_simdgroup);
const int own = int(simdgroup_index_in_threadgroup);
const int me = int(thread_index_in_threadgroup);
const int begin = document_starts[text];
const int end = document_starts[text + 1];
const int first = query_starts[query];
const int last = query_starts[query + 1];

float total = 0.0f;
for (int group = first; group < last; group += GROUP) {
  float best[ROWS];
#pragma clang loop unroll(full)
  for (int r = 0; r < ROWS; ++r) {
    best[r] = LOWEST;
  }
  for (int tile = begin; tile < end; tile += TILE) {
    float sum[ROWS];
#pragma clang loop unroll(full)
    for (int r = 0; r < ROWS; ++r) {
      sum[r] = 0.0f;
    }
    for (int chunk = 0; chunk < WIDTH; chunk += CHUNK) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      for (int i = me; i < TILE * CHUNK; i += 32 * SIMDGROUPS) {
        const int token = tile + i / CHUNK;
        const int column = chunk + i % CHUNK;
        const bool there = token < end && column < WIDTH;
        document[i / CHUNK * (CHUNK + 1) + i % CHUNK] = there ? float(documents[size_t(token) * WIDTH + column]) : 0.0f;
      }
      for (int i = me; i < GROUP * CHUNK; i += 32 * SIMDGROUPS) {
        const int token = group + i / CHUNK;
        const int column = chunk + i % CHUNK;
        const bool there = token < last && column < WIDTH;
        asked[i] = there ? float(queries[size_t(token) * WIDTH + column]) : 0.0f;
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      for (int j = 0; j < CHUNK; ++j) {
        const float value = document[lane * (CHUNK + 1) + j];
#pragma clang loop unroll(full)
        for (int r = 0; r < ROWS; ++r) {
          sum[r] += asked[(own * ROWS + r) * CHUNK + j] * value;
        }
      }
    }
    if (tile + lane < end) {
#pragma clang loop unroll(full)
      for (int r = 0; r < ROWS; ++r) {
        best[r] = greatest_of(best[r], sum[r]);
      }
    }
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < ROWS; ++r) {
#pragma clang loop unroll(full)
    for (int step = 1; step < 32; step *= 2) {
      best[r] = greatest_of(best[r], simd_shuffle_xor(best[r], ushort(step)));
    }
    if (group + own * ROWS + r < last) {
      total += best[r];
    }
  }
}
if (lane == 0) {
  partial[own] = total;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
if (me == 0) {
  float score = 0.0f;
  for (int i = 0; i < SIMDGROUPS; ++i) {
    score += partial[i];
  }
  out[size_t(query) * texts + text] = begin < end ? score : -INFINITY;
}
