// One threadgroup normalises one row of x (+ residual). Thread t keeps elements t*READS .. t*READS+READS-1
// in registers, so x is read once. Template: T, WIDTH, READS, HAS_RESIDUAL, HAS_BIAS.
const uint row = threadgroup_position_in_grid.x;
const uint first = thread_position_in_threadgroup.x * READS;
const uint lane = thread_index_in_simdgroup;
const uint simdgroup = simdgroup_index_in_threadgroup;
const uint simdgroups = simdgroups_per_threadgroup;
const size_t start = size_t(row) * WIDTH;

threadgroup float partial_sum[32];
threadgroup float partial_shift[32];
threadgroup float partial_square[32];

float value[READS];
float sum = 0.0f;
#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  value[i] = 0.0f;
  if (column < WIDTH) {
    value[i] = float(x[start + column]);
    if (HAS_RESIDUAL) {
      value[i] += float(residual[start + column]);
    }
    sum += value[i];
  }
}
sum = simd_sum(sum);
if (lane == 0) {
  partial_sum[simdgroup] = sum;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
const float mean = simd_sum(lane < simdgroups ? partial_sum[lane] : 0.0f) / WIDTH;

// Second pass, over the centred values. Their own mean is what rounding left in the first mean: it matters when
// the mean is large beside the deviation, and removing it costs no further pass.
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
    float normal = (value[i] - shift) * scale * float(weight[column]);
    if (HAS_BIAS) {
      normal += float(bias[column]);
    }
    out[start + column] = T(normal);
  }
}
