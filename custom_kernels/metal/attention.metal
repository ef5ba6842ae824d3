// Packed self-attention by an online softmax. A threadgroup takes QUERIES rows of one head of one sequence, 8 * ROWS of
// them a simdgroup, and walks over the sequence's keys, KEYS at a time, through threadgroup memory. Products are of
// T's, and what they add up to is float. The bias is by distance: [heads, 2 * L - 1], key - query in the place key -
// query + L - 1 of the head's. Template: T, DIM, HEADS, GROUP (heads that share one of key and value), ROWS,
// SIMDGROUPS, KEYS, RUN (elements that are read at once: a divisor of DIM), HAS_BIAS, WINDOW (one more than the
// distance that is still seen; 0: any), CAUSAL, ROTATE, NORM.
//
// With ROTATE queries and keys are rotated as they are loaded, elements d and d + HALF of a head together, and with
// NORM divided by the root of their mean square before that, and multiplied with weights, as in rope.metal. RUN divides
// HALF then, and with NORM the DIM / RUN threads that load a key are a power of two, and of one simdgroup. `numbers`
// are the norms' eps and offset.
//
// A lane holds two neighbours of a row of each 8 x 8 matrix, laid out as MLX's own attention takes it to be.
using Run = Elements<T, RUN>;
constexpr int KV = HEADS / GROUP * DIM;
constexpr int WIDTH = HEADS * DIM + 2 * KV;
constexpr int QUERIES = 8 * ROWS * SIMDGROUPS;
constexpr int PARTS = (DIM + 7) / 8;
constexpr int PADDED = 8 * PARTS;
constexpr int HALF = DIM / 2;
constexpr int STRIDE = PADDED + 16 / int(sizeof(T));
constexpr float LOG2_E = 1.44269504f;
// Below any score. A row that has met masked keys only gives them weight, until its first real key rescales it by 0.
constexpr float MASKED = -3e38f;
// Weights are 2^SHIFT times what they are, so that the small ones of many keys are no denormal numbers of float16.
constexpr float SHIFT = sizeof(T) == 2 ? 14.0f : 0.0f;

threadgroup T key_tile[KEYS * STRIDE];
threadgroup T value_tile[KEYS * STRIDE];

const int lane = int(thread_index_in_simdgroup);
const int row = (lane & 16) / 4 + (lane / 2) % 4;
const int column = (lane & 8) / 2 + (lane & 1) * 2;
const int head = int(threadgroup_position_in_grid.y);
const int block = int(threadgroup_position_in_grid.z);

// Sequence s owns the blocks from cu_seqlens[s] / QUERIES + s on: at least as many as it needs, whatever the lengths.
int sequence = 0;
for (int above = cu_seqlens_shape[0] - 1; above - sequence > 1;) {
  const int middle = (sequence + above) / 2;
  if (cu_seqlens[middle] / QUERIES + middle <= block) {
    sequence = middle;
  } else {
    above = middle;
  }
}
const int start = cu_seqlens[sequence];
const int length = cu_seqlens[sequence + 1] - start;
const int first = (block - start / QUERIES - sequence) * QUERIES;
if (first >= length) {
  return;  // the whole threadgroup leaves together
}
const int mine = first + 8 * ROWS * int(simdgroup_index_in_threadgroup);

// The keys that some row of the threadgroup sees, and those that some row of this simdgroup does.
int begin = 0;
int end = length;
int low = 0;
int high = mine < length ? length : 0;
if (WINDOW > 0) {
  begin = metal::max(0, first - WINDOW + 1);
  end = metal::min(length, first + QUERIES + WINDOW - 1);
  low = mine - WINDOW + 1;
  high = metal::min(high, mine + 8 * ROWS + WINDOW - 1);
}
if (CAUSAL) {
  end = metal::min(end, first + QUERIES);
  high = metal::min(high, mine + 8 * ROWS);
}

simdgroup_matrix<T, 8, 8> q[ROWS][PARTS];
simdgroup_matrix<float, 8, 8> sum[ROWS][PARTS];
float row_max[ROWS];
float weight_sum[ROWS];  // of this lane's columns; the row's is added up at the end
#pragma clang loop unroll(full)
for (int r = 0; r < ROWS; ++r) {
  row_max[r] = MASKED;
  weight_sum[r] = 0.0f;
  const int query = mine + 8 * r + row;
  const size_t from = size_t(start + query) * WIDTH + head * DIM;
  float square = 0.0f;
#pragma clang loop unroll(full)
  for (int part = 0; part < PARTS; ++part) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; ++i) {
      const int d = 8 * part + column + i;
      T value = T(0.0f);
      if (query < length && d < DIM) {
        value = qkv[from + d];
      }
      square += float(value) * float(value);
      q[r][part].thread_elements()[i] = value;
      sum[r][part].thread_elements()[i] = 0.0f;
    }
  }
  if (!ROTATE) {
    continue;
  }
  // The eight columns of a row lie in the lanes that differ in bits 0 and 3.
  square += simd_shuffle_xor(square, 1);
  square += simd_shuffle_xor(square, 8);
  const float size = NORM ? metal::precise::rsqrt(square / DIM + numbers[0]) : 1.0f;
#pragma clang loop unroll(full)
  for (int part = 0; part < PARTS; ++part) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; ++i) {
      const int d = 8 * part + column + i;
      if (query < length && d < DIM) {
        const int other = d < HALF ? d + HALF : d - HALF;
        const size_t angle = size_t(query) * HALF + metal::min(d, other);
        float x = float(q[r][part].thread_elements()[i]);
        float y = float(qkv[from + other]);
        if (NORM) {
          x *= size * (numbers[1] + float(query_norm[d]));
          y *= size * (numbers[1] + float(query_norm[other]));
        }
        q[r][part].thread_elements()[i] = T(x * cosines[angle] + (d < HALF ? -y : y) * sines[angle]);
      }
    }
  }
}

for (int base = begin; base < end; base += KEYS) {
  threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tiles have been read
  // Whole groups of 8, the last of them filled up with zeros; what follows them is not looked at.
  const int runs = metal::min(KEYS, (end - base + 7) / 8 * 8) * (PADDED / RUN);
  for (int i = 32 * int(simdgroup_index_in_threadgroup) + lane; i < runs; i += 32 * SIMDGROUPS) {
    const int key = i / (PADDED / RUN);
    const int d = i % (PADDED / RUN) * RUN;
    const int other = d < HALF ? d + HALF : d - HALF;
    const bool there = base + key < end && d < DIM;
    Run k = {};
    Run v = {};
    Run y = {};
    if (there) {
      const size_t from = size_t(start + base + key) * WIDTH + (HEADS + head / GROUP) * DIM;
      k = run_at<Run>(qkv + from + d);
      v = run_at<Run>(qkv + from + KV + d);
      if (ROTATE) {
        y = run_at<Run>(qkv + from + other);
      }
    }
    float size = 1.0f;
    if (NORM) {
      float square = 0.0f;
#pragma clang loop unroll(full)
      for (int j = 0; j < RUN; ++j) {
        square += float(k.at[j]) * float(k.at[j]);
      }
#pragma clang loop unroll(full)
      for (int step = 1; step < DIM / RUN; step *= 2) {
        square += simd_shuffle_xor(square, ushort(step));
      }
      size = metal::precise::rsqrt(square / DIM + numbers[0]);
    }
    if (ROTATE && there) {
      const size_t angle = size_t(base + key) * HALF + metal::min(d, other);
#pragma clang loop unroll(full)
      for (int j = 0; j < RUN; ++j) {
        float x = float(k.at[j]);
        float pair = float(y.at[j]);
        if (NORM) {
          x *= size * (numbers[1] + float(key_norm[d + j]));
          pair *= size * (numbers[1] + float(key_norm[other + j]));
        }
        k.at[j] = T(x * cosines[angle + j] + (d < HALF ? -pair : pair) * sines[angle + j]);
      }
    }
    *(threadgroup Run*)(key_tile + (key * STRIDE + d)) = k;
    *(threadgroup Run*)(value_tile + (key * STRIDE + d)) = v;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // Groups of 8 keys of which no row of this simdgroup sees any are passed over: those not between these two.
  const int from = low - base;
  const int to = high - base;
  simdgroup_matrix<float, 8, 8> score[ROWS][KEYS / 8];
#pragma clang loop unroll(full)
  for (int group = 0; group < KEYS / 8; ++group) {
    if (8 * group + 8 <= from || 8 * group >= to) {
      continue;
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < ROWS; ++r) {
      score[r][group].thread_elements()[0] = 0.0f;
      score[r][group].thread_elements()[1] = 0.0f;
    }
#pragma clang loop unroll(full)
    for (int part = 0; part < PARTS; ++part) {
      simdgroup_matrix<T, 8, 8> k;
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        k.thread_elements()[i] = key_tile[(8 * group + column + i) * STRIDE + 8 * part + row];
      }
#pragma clang loop unroll(full)
      for (int r = 0; r < ROWS; ++r) {
        simdgroup_multiply_accumulate(score[r][group], q[r][part], k, score[r][group]);
      }
    }
  }

  simdgroup_matrix<T, 8, 8> weights[ROWS][KEYS / 8];
#pragma clang loop unroll(full)
  for (int r = 0; r < ROWS; ++r) {
    const int query = mine + 8 * r + row;
    float new_max = row_max[r];
#pragma clang loop unroll(full)
    for (int group = 0; group < KEYS / 8; ++group) {
      if (8 * group + 8 <= from || 8 * group >= to) {
        continue;
      }
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        const int key = base + 8 * group + column + i;
        float value = score[r][group].thread_elements()[i] * (scale[0] * LOG2_E);
        if (HAS_BIAS && query < length && key < length) {
          value += LOG2_E * float(bias[size_t(head) * bias_shape[1] + bias_shape[1] / 2 + key - query]);
        }
        if (key >= length || (CAUSAL && key > query) || (WINDOW > 0 && metal::abs(query - key) >= WINDOW)) {
          value = MASKED;
        }
        score[r][group].thread_elements()[i] = value;
        new_max = metal::max(new_max, value);
      }
    }
    new_max = metal::max(new_max, simd_shuffle_xor(new_max, 1));
    new_max = metal::max(new_max, simd_shuffle_xor(new_max, 8));
    const float rescale = metal::fast::exp2(row_max[r] - new_max);
    row_max[r] = new_max;
    weight_sum[r] *= rescale;
#pragma clang loop unroll(full)
    for (int part = 0; part < PARTS; ++part) {
      sum[r][part].thread_elements()[0] *= rescale;
      sum[r][part].thread_elements()[1] *= rescale;
    }
#pragma clang loop unroll(full)
    for (int group = 0; group < KEYS / 8; ++group) {
      if (8 * group + 8 <= from || 8 * group >= to) {
        continue;
      }
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        const T weight = T(metal::fast::exp2(score[r][group].thread_elements()[i] - new_max + SHIFT));
        weights[r][group].thread_elements()[i] = weight;
        weight_sum[r] += float(weight);  // as rounded: equal values have themselves for their average
      }
    }
  }

#pragma clang loop unroll(full)
  for (int group = 0; group < KEYS / 8; ++group) {
    if (8 * group + 8 <= from || 8 * group >= to) {
      continue;
    }
#pragma clang loop unroll(full)
    for (int part = 0; part < PARTS; ++part) {
      simdgroup_matrix<T, 8, 8> v;
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        v.thread_elements()[i] = value_tile[(8 * group + row) * STRIDE + 8 * part + column + i];
      }
#pragma clang loop unroll(full)
      for (int r = 0; r < ROWS; ++r) {
        simdgroup_multiply_accumulate(sum[r][part], weights[r][group], v, sum[r][part]);
      }
    }
  }
}

#pragma clang loop unroll(full)
for (int r = 0; r < ROWS; ++r) {
  weight_sum[r] += simd_shuffle_xor(weight_sum[r], 1);
  weight_sum[r] += simd_shuffle_xor(weight_sum[r], 8);
  const int query = mine + 8 * r + row;
#pragma clang loop unroll(full)
  for (int part = 0; part < PARTS; ++part) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; ++i) {
      const int d = 8 * part + column + i;
      if (query < length && d < DIM) {
        out[size_t(start + query) * (HEADS * DIM) + head * DIM + d] =
            T(sum[r][part].thread_elements()[i] / weight_sum[r]);
      }
    }
  }
}
