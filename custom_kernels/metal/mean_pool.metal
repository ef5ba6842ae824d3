// One threadgroup averages one sequence. ACROSS threads stand side by side on columns and DOWN of them share the
// tokens of each; the row goes by in steps of ACROSS columns. Template: WIDTH, ACROSS, DOWN, NORMALIZE.
constexpr int STEPS = (WIDTH + ACROSS - 1) / ACROSS;
constexpr int SIMDGROUPS = ACROSS * DOWN / 32;

threadgroup float partial[ACROSS * DOWN];
threadgroup float partial_square[SIMDGROUPS];

const int sequence = int(threadgroup_position_in_grid.x);
const int across = int(thread_index_in_threadgroup) % ACROSS;
const int down = int(thread_index_in_threadgroup) / ACROSS;
const int lane = int(thread_index_in_simdgroup);

const int end = cu_seqlens[sequence + 1];
int begin = cu_seqlens[sequence];
if (end - begin > skip[0]) {
  begin += skip[0];  // a sequence that is all prompt keeps its tokens rather than none
}
const float count = float(metal::max(end - begin, 1));

float mean[STEPS];  // kept by the first ACROSS threads, 0 in the others
float square = 0.0f;
#pragma clang loop unroll(full)
for (int step = 0; step < STEPS; ++step) {
  const int column = step * ACROSS + across;
  float sum = 0.0f;
  if (column < WIDTH) {
    for (int token = begin + down; token < end; token += DOWN) {
      sum += float(hidden[size_t(token) * WIDTH + column]);
    }
  }
  partial[down * ACROSS + across] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  mean[step] = 0.0f;
  if (down == 0) {
    for (int i = 1; i < DOWN; ++i) {
      sum += partial[i * ACROSS + across];
    }
    mean[step] = sum / count;
    square += mean[step] * mean[step];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}

float length = 1.0f;
if (NORMALIZE) {
  square = simd_sum(square);
  if (lane == 0) {
    partial_square[simdgroup_index_in_threadgroup] = square;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  square = simd_sum(lane < SIMDGROUPS ? partial_square[lane] : 0.0f);
  length = metal::max(metal::precise::sqrt(square), 1e-12f);
}
if (down == 0) {
#pragma clang loop unroll(full)
  for (int step = 0; step < STEPS; ++step) {
    const int column = step * ACROSS + across;
    if (column < WIDTH) {
      out[size_t(sequence) * WIDTH + column] = mean[step] / length;
    }
  }
}
