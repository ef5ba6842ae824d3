// One threadgroup normalises one row of x (+ residual). Thread t keeps elements t*READS .. t*READS+READS-1
// in registers, so x is read once. Template: T, WIDTH, READS, HAS_RESIDUAL, HAS_BIAS.
const uint row = threadgroup_position_in_grid.x;
const uint first = thread_position_in_threadgroup.x * READS;
const size_t start = size_t(row) * WIDTH;

threadgroup float partial[96];

float value[READS];
#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  value[i] = 0.0f;
  if (column < WIDTH) {
    value[i] = float(x[start + column]);
    if (HAS_RESIDUAL) {
      value[i] += float(residual[start + column]);
    }
  }
}
normalise<WIDTH, READS>(value, first, eps[0], partial, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
                        simdgroups_per_threadgroup);

#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  if (column < WIDTH) {
    float normal = value[i] * float(weight[column]);
    if (HAS_BIAS) {
      normal += float(bias[column]);
    }
    out[start + column] = T(normal);
  }
}
