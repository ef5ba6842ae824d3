// Rows of a table of tokens, in whatever type they are kept, averaged; and the greatest of rows. A part of kernels.inl.

template <class T> ALWAYS_INLINE Vec floats_up_to(const typename T::Element* p, int64_t n) {
  return n >= VL ? T::read(p) : read_n<T>(p, n);
}

template <class T>
void gather_mean_of(const void* from, const int32_t* rows, const float* weights, int64_t count, int64_t width,
                    float* y) {
  typedef typename T::Element Element;
  constexpr int64_t GROUP = 8, AHEAD = 6;
  const Element* table = (const Element*)from;
  const float share = count ? 1.0f / (float)count : 0.0f;
  int64_t j = 0;
  for (; j + GROUP * VL <= width; j += GROUP * VL) {
    Vec sums[GROUP] = {};
    for (int64_t i = 0; i < count; i++) {
      const Element* row = table + rows[i] * width + j;
      const Element* later = table + rows[smaller(i + AHEAD, count - 1)] * width + j;
      const Vec weight = splat(weights ? weights[i] : 1.0f);
      UNROLL
      for (int64_t k = 0; k < GROUP; k++) {
        __builtin_prefetch(later + k * VL);
        sums[k] += weight * T::read(row + k * VL);
      }
    }
    UNROLL
    for (int64_t k = 0; k < GROUP; k++) store(y + j + k * VL, sums[k] * share);
  }
  for (; j < width; j += VL) {
    Vec sums = {};
    for (int64_t i = 0; i < count; i++)
      sums += splat(weights ? weights[i] : 1.0f) * floats_up_to<T>(table + rows[i] * width + j, width - j);
    store_up_to(y + j, sums * share, width - j);
  }
}
void gather_mean(const void* table, int type, const int32_t* rows, const float* weights, int64_t count, int64_t width,
                 float* y) {
  switch (type) {
    case ROWS_FLOAT16: return gather_mean_of<Float16>(table, rows, weights, count, width, y);
    case ROWS_INT8: return gather_mean_of<Int8>(table, rows, weights, count, width, y);
    default: return gather_mean_of<Float32>(table, rows, weights, count, width, y);
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
