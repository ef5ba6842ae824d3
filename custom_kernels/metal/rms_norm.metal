// One threadgroup makes one row: x / sqrt(mean(x^2) + eps) * (offset + weight) + residual. Thread t keeps elements
// t*READS .. t*READS+READS-1 in registers, so x is read once. Template: T, WIDTH, READS, HAS_RESIDUAL, HALF (T is half,
// whose sums stay within its range). `numbers` are eps and offset.
const uint row = threadgroup_position_in_grid.x;
const uint first = thread_position_in_threadgroup.x * READS;
const uint lane = thread_index_in_simdgroup;
const size_t start = size_t(row) * WIDTH;

threadgroup float partial[32];

float value[READS];
float square = 0.0f;
#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  value[i] = 0.0f;
  if (first + i < WIDTH) {
    value[i] = float(x[start + first + i]);
    square += value[i] * value[i];
  }
}
square = simd_sum(square);
if (lane == 0) {
  partial[simdgroup_index_in_threadgroup] = square;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
square = simd_sum(lane < simdgroups_per_threadgroup ? partial[lane] : 0.0f);
const float scale = metal::precise::rsqrt(square / WIDTH + numbers[0]);

#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  if (column < WIDTH) {
    float y = value[i] * scale * (numbers[1] + float(weight[column]));
    if (HAS_RESIDUAL) {
      y += float(residual[start + column]);
      if (HALF) {
        y = y > 65504.0f ? 65504.0f : y < -65504.0f ? -65504.0f : y;  // a NaN stays one
      }
    }
    out[start + column] = T(y);
  }
}
