// LayerNorm of the sum of COUNT rows: rows of a, b and c at the same place, or (LOOKUP) at the places that ids name.
// LANES threads (a whole number of warps) normalise a row, and EACH rows in turn, all read before the first is
// reduced; a block takes ROWS groups of them. Each lane keeps its STEPS vectors of VEC elements in registers, so
// every input is read once.
// Template: T, WIDTH, VEC, LANES, ROWS (1 unless LANES is one warp), EACH, COUNT, LOOKUP, NORM, HAS_BIAS, EPS_BITS.
constexpr int STEPS = (WIDTH + VEC * LANES - 1) / (VEC * LANES);
constexpr int WARPS = LANES / 32;
struct alignas(sizeof(T) * VEC) Vector {
  T at[VEC];
};

const int lane = threadIdx.x % LANES;
const long long total = LOOKUP ? ids_a_shape[0] : a_shape[0];
const long long first = (static_cast<long long>(blockIdx.x) * ROWS + threadIdx.x / LANES) * EACH;
if (first >= total) {
  return;  // whole warps leave together, and with several warps a row ROWS is 1: no barrier is missed
}

// The sums of (p, q) over the LANES threads of this row, the same in all of them.
__shared__ float2 partial[2 * EACH][WARPS];
int round = 0;
const auto row_sum = [&](float p, float q) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    p += __shfl_xor_sync(0xffffffff, p, offset);
    q += __shfl_xor_sync(0xffffffff, q, offset);
  }
  if constexpr (WARPS > 1) {
    if (lane % 32 == 0) partial[round][lane / 32] = make_float2(p, q);
    __syncthreads();
    p = q = 0.0f;
    for (int w = 0; w < WARPS; ++w) {
      p += partial[round][w].x;
      q += partial[round][w].y;
    }
    ++round;
  }
  return make_float2(p, q);
};

// A slice of a larger array may start anywhere: vectors are used only where the address allows them.
Vector loaded[EACH][COUNT][STEPS];
const auto load = [&](int e, int input, const T* table, const auto* ids) {
  const long long row = first + e;
  if (row < total) {
    const T* from = table + row * WIDTH;
    if constexpr (LOOKUP) from = table + static_cast<long long>(ids[row]) * WIDTH;
    const bool aligned = reinterpret_cast<unsigned long long>(from) % sizeof(Vector) == 0;
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      const int column = (s * LANES + lane) * VEC;
      if (column < WIDTH) {
        if (aligned) {
          loaded[e][input][s] = *reinterpret_cast<const Vector*>(from + column);
        } else {
          for (int i = 0; i < VEC; ++i) loaded[e][input][s].at[i] = from[column + i];
        }
      }
    }
  }
};
#pragma unroll
for (int e = 0; e < EACH; ++e) {
  load(e, 0, a, ids_a);
  if constexpr (COUNT > 1) load(e, 1, b, ids_b);
  if constexpr (COUNT > 2) load(e, 2, c, ids_c);
}

#pragma unroll
for (int e = 0; e < EACH; ++e) {
  if (first + e >= total) {
    return;
  }
  float value[STEPS][VEC];
  float sum = 0.0f;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    if ((s * LANES + lane) * VEC < WIDTH) {
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        value[s][i] = static_cast<float>(loaded[e][0][s].at[i]);
#pragma unroll
        for (int input = 1; input < COUNT; ++input) value[s][i] += static_cast<float>(loaded[e][input][s].at[i]);
        sum += value[s][i];
      }
    }
  }
  float scale = 1.0f;
  float shift = 0.0f;
  if constexpr (NORM) {
    const float mean = row_sum(sum, 0.0f).x / WIDTH;
    // Second pass, over the centred values. Their own mean is what rounding left in the first mean: it matters when
    // the mean is large beside the deviation, and removing it costs no further pass.
    float square = 0.0f;
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      if ((s * LANES + lane) * VEC < WIDTH) {
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          value[s][i] -= mean;
          shift += value[s][i];
          square += value[s][i] * value[s][i];
        }
      }
    }
    const float2 sums = row_sum(shift, square);
    shift = sums.x / WIDTH;
    scale = rsqrtf(fmaxf(sums.y / WIDTH - shift * shift, 0.0f) + __int_as_float(EPS_BITS));
  }

  T* out_row = out + (first + e) * WIDTH;
#pragma unroll
  for (int s = 0; s < STEPS; ++s) {
    const int column = (s * LANES + lane) * VEC;
    if (column < WIDTH) {
      Vector result;
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        float y = (value[s][i] - shift) * scale;
        if constexpr (NORM) {
          y *= static_cast<float>(weight[column + i]);
          if constexpr (HAS_BIAS) y += static_cast<float>(bias[column + i]);
        }
        result.at[i] = static_cast<T>(y);
      }
      *reinterpret_cast<Vector*>(out_row + column) = result;
    }
  }
}
