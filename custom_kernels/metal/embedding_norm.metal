// One threadgroup makes one row: the sum of LOOKUPS table rows, then LayerNorm. Thread t keeps elements
// t*READS .. t*READS+READS-1 in registers. Template: T, WIDTH, READS, LOOKUPS, HAS_NORM, HAS_BIAS.
const size_t row = threadgroup_position_in_grid.x;
const uint first = thread_position_in_threadgroup.x * READS;

threadgroup float partial[96];

const size_t start0 = size_t(ids0[row]) * WIDTH;
const size_t start1 = LOOKUPS > 1 ? size_t(ids1[row]) * WIDTH : 0;
const size_t start2 = LOOKUPS > 2 ? size_t(ids2[row]) * WIDTH : 0;

float value[READS];
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
  }
}
if (HAS_NORM) {
  normalise<WIDTH, READS>(value, first, eps[0], partial, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
                          simdgroups_per_threadgroup);
}
#pragma clang loop unroll(full)
for (int i = 0; i < READS; ++i) {
  const uint column = first + i;
  if (column < WIDTH) {
    float y = value[i];
    if (HAS_NORM) {
      y *= float(weight[column]);
      if (HAS_BIAS) {
        y += float(bias[column]);
      }
    }
    out[row * WIDTH + column] = T(y);
  }
}
