// A row of WIDTH elements that a threadgroup keeps in registers: READS a thread, those of `value` from `first` on, and
// 0 beyond the end. Its mean is taken away, and it is divided by its deviation. `partial` is room for three numbers of
// each of 32 simdgroups.
template <int WIDTH, int READS>
METAL_FUNC void normalise(thread float (&value)[READS], uint first, float eps, threadgroup float* partial, uint lane,
                          uint simdgroup, uint simdgroups) {
  float sum = 0.0f;
#pragma clang loop unroll(full)
  for (int i = 0; i < READS; ++i) {
    sum += value[i];
  }
  sum = simd_sum(sum);
  if (lane == 0) {
    partial[simdgroup] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const float mean = simd_sum(lane < simdgroups ? partial[lane] : 0.0f) / WIDTH;

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
    partial[32 + simdgroup] = shift;
    partial[64 + simdgroup] = square;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  shift = simd_sum(lane < simdgroups ? partial[32 + lane] : 0.0f) / WIDTH;
  square = simd_sum(lane < simdgroups ? partial[64 + lane] : 0.0f) / WIDTH;
  const float scale = metal::precise::rsqrt(metal::max(square - shift * shift, 0.0f) + eps);
#pragma clang loop unroll(full)
  for (int i = 0; i < READS; ++i) {
    value[i] = (value[i] - shift) * scale;
  }
}
