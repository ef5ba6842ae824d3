// One threadgroup finds the best K of CHUNK rows for one query: each simdgroup computes the inner products of every
// SIMDGROUPS-th row, and then all threads sort the scores, larger ones first, of equal ones the first row first.
// out [n, chunks, 2, K]: scores and rows; -1 where a row does not count. Template: WIDTH, K, CHUNK, THREADS, MASKED,
// SCALED.
constexpr int SIMDGROUPS = THREADS / 32;
constexpr int NO_ROW = 2147483647;

threadgroup float score[CHUNK];
threadgroup int place[CHUNK];

const int chunk = int(threadgroup_position_in_grid.x);
const int query = int(threadgroup_position_in_grid.y);
const int chunks = int(threadgroups_per_grid.x);
const int lane = int(thread_index_in_simdgroup);
const int me = int(thread_index_in_threadgroup);

for (int i = int(simdgroup_index_in_threadgroup); i < CHUNK; i += SIMDGROUPS) {
  const int row = chunk * CHUNK + i;
  bool wanted = row < count[0];
  if (MASKED && wanted) {
    wanted = ((int(mask[row / 8]) >> (row % 8)) & 1) != 0;
  }
  float sum = 0.0f;
  if (wanted) {
    for (int j = lane; j < WIDTH; j += 32) {
      sum += queries[size_t(query) * WIDTH + j] * float(rows[size_t(row) * WIDTH + j]);
    }
  }
  sum = simd_sum(sum);
  if (SCALED && wanted) {
    sum *= scales[row];
  }
  if (lane == 0) {
    score[i] = wanted ? sum : -3.402823466e38f;
    place[i] = wanted ? row : NO_ROW;
  }
}
threadgroup_barrier(mem_flags::mem_threadgroup);

// A bitonic sort.
for (int size = 2; size <= CHUNK; size *= 2) {
  for (int step = size / 2; step > 0; step /= 2) {
    for (int i = me; i < CHUNK / 2; i += THREADS) {
      const int one = 2 * i - (i & (step - 1));
      const int other = one + step;
      const float one_score = score[one];
      const float other_score = score[other];
      const int one_place = place[one];
      const int other_place = place[other];
      const bool better = one_score > other_score || (one_score == other_score && one_place < other_place);
      if (better != ((one & size) == 0)) {
        score[one] = other_score;
        score[other] = one_score;
        place[one] = other_place;
        place[other] = one_place;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}
for (int i = me; i < K; i += THREADS) {
  const size_t at = (size_t(query) * chunks + chunk) * 2 * K + i;
  const int found = place[i];
  out[at] = score[i];
  out[at + K] = found == NO_ROW ? -1.0f : float(found);
}
