// One threadgroup makes one row: the sum of LOOKUPS table rows, then LayerNorm. Thread t keeps elements
// t*READS .. t*READS+READS-1 in registers. Template: T, WIDTH, READS, LOOKUPS, HAS_NORM, HAS_BIAS.
const size_t row = threadgroup_position_in_grid.x;
const uint first = thread_position_in_threadgroup.x * READS;
const uint lane = thread_index_in_simdgroup;
const uint simdgroup = simdgroup_index_in_threadgroup;
const uint simdgroups = simdgroups_per_threadgroup;

threadgroup float partial_sum[32];
threadgroup float partial_shift[32];
threadgroup float partial_square[32];

const size_t start0 = size_t(ids0[row]) * WIDTH;
const size_t start1 = LOOKUPS > 1 ? size_t(ids1[row]) * WIDTH : 0;
const size_t start2 = LOOKUPS > 2 ? size_t(ids2[row]) * WIDTH : 0;

float value[READS];
float sum = 0.0f;
#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  value[i] = 0.0f;
  if (column < WIDTH) {
    value[i] = float(table0[start0 + column]);
    if (LOOKUPS > 1) {
      value[i] += float(table1[start1 + column]);
    }
    if (LOOKUPS > 2) {
      value[i] += float(table2[start2 + column]);
    }
    sum += value[i];
  }
}
if (HAS_NORM) {
  // As in layer_norm.metal: the mean, then the variance of the centred values less what rounding left in the mean.
  sum = simd_sum(sum);
  if (lane == 0) {
    partial_sum[simdgroup] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const float mean = simd_sum(lane < simdgroups ? partial_sum[lane] : 0.0f) / WIDTH;
  float shift = 0.0f;
  float square = 0.0f;
#pragma clang loop unroll(full)
  for (int i = 0; i < READS; ++i) {
    if (first + i < WIDTH) {
      value[i] -= mean;
      shift += value[i];
      square += value[i] * value[i];
    }
  }
  shift = simd_sum(shift);
  square = simd_sum(square);
  if (lane == 0) {
    partial_shift[simdgroup] = shift;
    partial_square[simdgroup] = square;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  shift = simd_sum(lane < simdgroups ? partial_shift[lane] : 0.0f) / WIDTH;
  square = simd_sum(lane < simdgroups ? partial_square[lane] : 0.0f) / WIDTH;
  const float scale = metal::precise::rsqrt(metal::max(square - shift * shift, 0.0f) + eps[0]);
#pragma clang loop unroll(full)
  for (int i = 0; i < READS; ++i) {
    const uint column = first + i;
    if (column < WIDTH) {
      value[i] = (value[i] - shift) * scale * float(weight[column]);
      if (HAS_BIAS) {
        value[i] += float(bias[column]);
      }
    }
  }
}
#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  if (column < WIDTH) {
    out[row * WIDTH + column] = T(value[i]);
  }
}
