// Rows of a table of tokens, in whatever type they are kept, averaged; and the greatest of rows. A part of kernels.inl.

typedef int8_t Bytes __attribute__((vector_size(LANES)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

ALWAYS_INLINE Vec floats_at(const float* p) { return load(p); }
ALWAYS_INLINE Vec floats_at(const int8_t* p) {
  Bytes bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, Vec);
}
// float16: its exponent and fraction, moved to where float has them, are 2^112 times too small, subnormal or not.
ALWAYS_INLINE Vec floats_at(const uint16_t* p) {
  Halves halves;
  __builtin_memcpy(&halves, p, sizeof halves);
  const Ints bits = __builtin_convertvector(halves, Ints);
  const Vec size = (Vec)((bits & 0x7fff) << 13) * 0x1p112f;
  return (Vec)((Ints)size | ((bits & 0x8000) << 16));
}
template <class T> ALWAYS_INLINE Vec floats_up_to(const T* p, int64_t n) {
  if (n >= VL) return floats_at(p);
  T few[VL] = {};
  for (int64_t i = 0; i < n; i++) few[i] = p[i];
  return floats_at(few);
}

template <class T>
void gather_mean_of(const T* table, const int32_t* rows, const float* weights, int64_t count, int64_t width, float* y) {
  constexpr int64_t GROUP = 8, AHEAD = 6;
  const float share = count ? 1.0f / (float)count : 0.0f;
  int64_t j = 0;
  for (; j + GROUP * VL <= width; j += GROUP * VL) {
    Vec sums[GROUP] = {};
    for (int64_t i = 0; i < count; i++) {
      const T* from = table + rows[i] * width + j;
      const T* later = table + rows[smaller(i + AHEAD, count - 1)] * width + j;
      const Vec weight = splat(weights ? weights[i] : 1.0f);
      UNROLL
      for (int64_t k = 0; k < GROUP; k++) {
        __builtin_prefetch(later + k * VL);
        sums[k] += weight * floats_at(from + k * VL);
      }
    }
    UNROLL
    for (int64_t k = 0; k < GROUP; k++) store(y + j + k * VL, sums[k] * share);
  }
  for (; j < width; j += VL) {
    Vec sums = {};
    for (int64_t i = 0; i < count; i++)
      sums += splat(weights ? weights[i] : 1.0f) * floats_up_to(table + rows[i] * width + j, width - j);
    store_up_to(y + j, sums * share, width - j);
  }
}
void gather_mean(const void* table, int type, const int32_t* rows, const float* weights, int64_t count, int64_t width,
                 float* y) {
  switch (type) {
    case ROWS_FLOAT16: return gather_mean_of((const uint16_t*)table, rows, weights, count, width, y);
    case ROWS_INT8: return gather_mean_of((const int8_t*)table, rows, weights, count, width, y);
    default: return gather_mean_of((const float*)table, rows, weights, count, width, y);
  }
}

void greatest(const float* x, int64_t rows, int64_t width, float* y) {
  for (int64_t j = 0; j < width; j += VL) {
    const int64_t n = width - j;
    Vec most = load_up_to(y + j, n);
    for (int64_t i = 0; i < rows; i++) most = vmax(most, load_up_to(x + i * width + j, n));
    store_up_to(y + j, most, n);
  }
}
