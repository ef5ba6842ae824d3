// LANES threads (a whole number of warps) normalise one row of x (+ residual); a block takes ROWS rows. Each lane
// keeps its STEPS vectors of VEC elements in registers, so x is read once.
// Template: T, WIDTH, VEC, LANES, ROWS (1 unless LANES is one warp), HAS_RESIDUAL.
constexpr int STEPS = (WIDTH + VEC * LANES - 1) / (VEC * LANES);
constexpr int WARPS = LANES / 32;
struct alignas(sizeof(T) * VEC) Vector {
  T at[VEC];
};

const int lane = threadIdx.x % LANES;
const long long row = static_cast<long long>(blockIdx.x) * ROWS + threadIdx.x / LANES;
if (row >= x_shape[0]) {
  return;  // whole warps leave together, and with several warps a row ROWS is 1: no barrier is missed
}
const T* x_row = x + row * WIDTH;
const T* residual_row = residual + row * WIDTH;
T* out_row = out + row * WIDTH;

// A slice of a larger array may start anywhere: vectors are used only where the addresses allow them.
const auto aligned = [](const T* address) {
  return reinterpret_cast<unsigned long long>(address) % sizeof(Vector) == 0;
};
const auto load = [&](const T* from, int column, bool vector) {
  Vector loaded;
  if (vector) {
    loaded = *reinterpret_cast<const Vector*>(from + column);
  } else {
    for (int i = 0; i < VEC; ++i) loaded.at[i] = from[column + i];
  }
  return loaded;
};

// The sums of (a, b) over the LANES threads of this row, the same in all of them.
__shared__ float2 partial[2][32];
int round = 0;
const auto row_sum = [&](float a, float b) {
  for (int offset = 16; offset > 0; offset /= 2) {
    a += __shfl_xor_sync(0xffffffff, a, offset);
    b += __shfl_xor_sync(0xffffffff, b, offset);
  }
  if constexpr (WARPS > 1) {
    if (lane % 32 == 0) partial[round][lane / 32] = make_float2(a, b);
    __syncthreads();
    a = b = 0.0f;
    for (int w = 0; w < WARPS; ++w) {
      a += partial[round][w].x;
      b += partial[round][w].y;
    }
    ++round;
  }
  return make_float2(a, b);
};

const bool vector_x = aligned(x_row);
const bool vector_residual = aligned(residual_row);
float value[STEPS][VEC];
float sum = 0.0f;
#pragma unroll
for (int s = 0; s < STEPS; ++s) {
  const int column = (s * LANES + lane) * VEC;
  if (column < WIDTH) {
    const Vector loaded = load(x_row, column, vector_x);
#pragma unroll
    for (int i = 0; i < VEC; ++i) value[s][i] = static_cast<float>(loaded.at[i]);
    if constexpr (HAS_RESIDUAL) {
      const Vector added = load(residual_row, column, vector_residual);
#pragma unroll
      for (int i = 0; i < VEC; ++i) value[s][i] += static_cast<float>(added.at[i]);
    }
#pragma unroll
    for (int i = 0; i < VEC; ++i) sum += value[s][i];
  }
}
const float mean = row_sum(sum, 0.0f).x / WIDTH;

// Second pass, over the centred values. Their own mean is what rounding left in the first mean: it matters when
// the mean is large beside the deviation, and removing it costs no further pass.
float shift = 0.0f;
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
const float scale = rsqrtf(fmaxf(sums.y / WIDTH - shift * shift, 0.0f) + eps[0]);

#pragma unroll
for (int s = 0; s < STEPS; ++s) {
  const int column = (s * LANES + lane) * VEC;
  if (column < WIDTH) {
    Vector result;
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      const float affine = static_cast<float>(weight[column + i]);
      result.at[i] = static_cast<T>((value[s][i] - shift) * scale * affine + static_cast<float>(bias[column + i]));
    }
    *reinterpret_cast<Vector*>(out_row + column) = result;
  }
}
