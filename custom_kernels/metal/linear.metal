// act(x W^T + bias) + residual of few rows: a threadgroup makes 8 columns of all of them, so that a weight is read
// once. Its SPLIT simdgroups share the inputs, 64 at a time, and add up at the end. Template: T, OUTPUTS, INPUTS,
// GROUPS (of 8 rows of x), SPLIT, ACTIVATION (its number and 1; 0: none), HAS_BIAS, HAS_RESIDUAL.
//
// Matrices are 8 outputs by 8 inputs of W, and 8 inputs by 8 rows of x; a lane holds two neighbours of a row of each.
// Which inputs stand together in a matrix is free, as long as both agree: input 8 j + f of 64 is the j-th of the f-th
// matrix. So what a lane holds of all 8 matrices lies in runs of 8, which are read at once.
using Run = Elements<T, 8>;

threadgroup float partial[SPLIT * GROUPS * 64];

const int lane = int(thread_index_in_simdgroup);
const int row = (lane & 16) / 4 + (lane / 2) % 4;
const int column = (lane & 8) / 2 + (lane & 1) * 2;
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int first = 8 * int(threadgroup_position_in_grid.x);
const int rows = x_shape[0];
const size_t weights = size_t(first + row) * INPUTS;

simdgroup_matrix<float, 8, 8> sum[GROUPS];
#pragma clang loop unroll(full)
for (int group = 0; group < GROUPS; ++group) {
  sum[group].thread_elements()[0] = 0.0f;
  sum[group].thread_elements()[1] = 0.0f;
}
for (int begin = 64 * simdgroup; begin < INPUTS; begin += 64 * SPLIT) {
  const Run one = run_at<Run>(weight + (weights + begin + 8 * column));
  const Run other = run_at<Run>(weight + (weights + begin + 8 * column + 8));
#pragma clang loop unroll(full)
  for (int group = 0; group < GROUPS; ++group) {
    // Rows beyond the last are the last again, and are not written.
    const size_t here = size_t(metal::min(8 * group + column, rows - 1)) * INPUTS;
    const size_t next = size_t(metal::min(8 * group + column + 1, rows - 1)) * INPUTS;
    const Run left = run_at<Run>(x + (here + begin + 8 * row));
    const Run right = run_at<Run>(x + (next + begin + 8 * row));
#pragma clang loop unroll(full)
    for (int f = 0; f < 8; ++f) {
      simdgroup_matrix<T, 8, 8> w;
      simdgroup_matrix<T, 8, 8> inputs;
      w.thread_elements()[0] = one.at[f];
      w.thread_elements()[1] = other.at[f];
      inputs.thread_elements()[0] = left.at[f];
      inputs.thread_elements()[1] = right.at[f];
      simdgroup_multiply_accumulate(sum[group], w, inputs, sum[group]);
    }
  }
}
#pragma clang loop unroll(full)
for (int group = 0; group < GROUPS; ++group) {
  const int place = (simdgroup * GROUPS + group) * 64 + 8 * row + column;
  partial[place] = sum[group].thread_elements()[0];
  partial[place + 1] = sum[group].thread_elements()[1];
}
threadgroup_barrier(mem_flags::mem_threadgroup);

for (int i = int(thread_index_in_threadgroup); i < 8 * metal::min(rows, 8 * GROUPS); i += 32 * SPLIT) {
  const int output = i % 8;
  const int at = i / 8;
  float y = 0.0f;
  for (int part = 0; part < SPLIT; ++part) {
    y += partial[(part * GROUPS + at / 8) * 64 + 8 * output + at % 8];
  }
  if (HAS_BIAS) {
    y += float(bias[first + output]);
  }
  if (ACTIVATION > 0) {
    y = activation<ACTIVATION - 1>(y);
  }
  const size_t place = size_t(at) * OUTPUTS + first + output;
  if (HAS_RESIDUAL) {
    y += float(residual[place]);
  }
  out[place] = T(y);
}
