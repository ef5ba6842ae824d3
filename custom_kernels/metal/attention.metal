// Packed self-attention by an online softmax. A threadgroup takes QUERIES rows of one head of one sequence, 8 rows a
// simdgroup, and walks over the sequence's keys, KEYS at a time, through threadgroup memory. Everything but the tiles
// is float. The bias is by distance: [heads, 2 * L - 1], key - query in the place key - query + L - 1 of the head's.
// Template: T, DIM, HEADS, GROUP (heads that share one of key and value), SIMDGROUPS, KEYS, HAS_BIAS, WINDOW (one more
// than the distance that is still seen; 0: any), CAUSAL.
//
// A lane holds two neighbours of a row of each 8 x 8 matrix, laid out as MLX's own attention takes it to be.
constexpr int QUERIES = 8 * SIMDGROUPS;
constexpr int PARTS = (DIM + 7) / 8;
constexpr int PADDED = 8 * PARTS;
constexpr int STRIDE = PADDED + 16 / int(sizeof(T));
constexpr float LOG2_E = 1.44269504f;
// Below any score. A row that has met masked keys only gives them weight, until its first real key rescales it by 0.
constexpr float MASKED = -3e38f;

threadgroup T key_tile[KEYS * STRIDE];
threadgroup T value_tile[KEYS * STRIDE];

const int lane = int(thread_index_in_simdgroup);
const int row = (lane & 16) / 4 + (lane / 2) % 4;
const int column = (lane & 8) / 2 + (lane & 1) * 2;
constexpr int KV = HEADS / GROUP * DIM;
constexpr int WIDTH = HEADS * DIM + 2 * KV;
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
const int query = first + 8 * int(simdgroup_index_in_threadgroup) + row;
const bool busy = query - row < length;

simdgroup_matrix<float, 8, 8> q[PARTS];
simdgroup_matrix<float, 8, 8> sum[PARTS];
#pragma clang loop unroll(full)
for (int part = 0; part < PARTS; ++part) {
#pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int d = 8 * part + column + i;
    float value = 0.0f;
    if (query < length && d < DIM) {
      value = float(qkv[size_t(start + query) * WIDTH + head * DIM + d]) * (scale[0] * LOG2_E);
    }
    q[part].thread_elements()[i] = value;
    sum[part].thread_elements()[i] = 0.0f;
  }
}
float row_max = MASKED;
float weight_sum = 0.0f;  // of this lane's columns; the row's is added up at the end

int begin = 0;
int end = length;
if (WINDOW > 0) {
  begin = metal::max(0, first - WINDOW + 1);
  end = metal::min(length, first + QUERIES + WINDOW - 1);
}
if (CAUSAL) {
  end = metal::min(length, first + QUERIES);
}
for (int base = begin; base < end; base += KEYS) {
  threadgroup_barrier(mem_flags::mem_threadgroup);  // the last tiles have been read
  for (int i = int(thread_index_in_threadgroup); i < KEYS * PADDED; i += 32 * SIMDGROUPS) {
    const int key = i / PADDED;
    const int d = i % PADDED;
    T k = T(0.0f);
    T v = T(0.0f);
    if (base + key < length && d < DIM) {
      const size_t from = size_t(start + base + key) * WIDTH + (HEADS + head / GROUP) * DIM + d;
      k = qkv[from];
      v = qkv[from + KV];
    }
    key_tile[key * STRIDE + d] = k;
    value_tile[key * STRIDE + d] = v;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (!busy) {
    continue;
  }

  simdgroup_matrix<float, 8, 8> score[KEYS / 8];
  float new_max = row_max;
#pragma clang loop unroll(full)
  for (int group = 0; group < KEYS / 8; ++group) {
    score[group].thread_elements()[0] = 0.0f;
    score[group].thread_elements()[1] = 0.0f;
#pragma clang loop unroll(full)
    for (int part = 0; part < PARTS; ++part) {
      simdgroup_matrix<float, 8, 8> k;
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        k.thread_elements()[i] = float(key_tile[(8 * group + column + i) * STRIDE + 8 * part + row]);
      }
      simdgroup_multiply_accumulate(score[group], q[part], k, score[group]);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; ++i) {
      const int key = base + 8 * group + column + i;
      float value = score[group].thread_elements()[i];
      if (HAS_BIAS && query < length && key < length) {
        value += LOG2_E * float(bias[head * bias_shape[1] + bias_shape[1] / 2 + key - query]);
      }
      if (key >= length || (CAUSAL && key > query) || (WINDOW > 0 && metal::abs(query - key) >= WINDOW)) {
        value = MASKED;
      }
      score[group].thread_elements()[i] = value;
      new_max = metal::max(new_max, value);
    }
  }
  // The eight columns of a row lie in the lanes that differ in bits 0 and 3.
  new_max = metal::max(new_max, simd_shuffle_xor(new_max, 1));
  new_max = metal::max(new_max, simd_shuffle_xor(new_max, 8));
  const float rescale = metal::fast::exp2(row_max - new_max);
  row_max = new_max;
  weight_sum *= rescale;
#pragma clang loop unroll(full)
  for (int group = 0; group < KEYS / 8; ++group) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; ++i) {
      const float weight = metal::fast::exp2(score[group].thread_elements()[i] - new_max);
      score[group].thread_elements()[i] = weight;
      weight_sum += weight;
    }
  }
#pragma clang loop unroll(full)
  for (int part = 0; part < PARTS; ++part) {
    sum[part].thread_elements()[0] *= rescale;
    sum[part].thread_elements()[1] *= rescale;
#pragma clang loop unroll(full)
    for (int group = 0; group < KEYS / 8; ++group) {
      simdgroup_matrix<float, 8, 8> v;
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; ++i) {
        v.thread_elements()[i] = float(value_tile[(8 * group + row) * STRIDE + 8 * part + column + i]);
      }
      simdgroup_multiply_accumulate(sum[part], score[group], v, sum[part]);
    }
  }
}

weight_sum += simd_shuffle_xor(weight_sum, 1);
weight_sum += simd_shuffle_xor(weight_sum, 8);
#pragma clang loop unroll(full)
for (int part = 0; part < PARTS; ++part) {
#pragma clang loop unroll(full)
  for (int i = 0; i < 2; ++i) {
    const int d = 8 * part + column + i;
    if (query < length && d < DIM) {
      out[size_t(start + query) * (HEADS * DIM) + head * DIM + d] = T(sum[part].thread_elements()[i] / weight_sum);
    }
  }
}
