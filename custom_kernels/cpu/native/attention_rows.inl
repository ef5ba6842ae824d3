// What attention on float32 and on bfloat16 share: scores of a tile of M queries in a strip of rows, STRIP apart, and
// how blocks of keys are joined. A part of attention.inl and attention16.inl.

// Lanes [from, to) of x, and -inf elsewhere.
ALWAYS_INLINE Vec only(Vec x, int64_t from, int64_t to) {
  const Vec lowest = splat(-__builtin_inff());
  x = first_n(x, larger(0, smaller(VL, to)), lowest);
  return first_n(lowest, larger(0, smaller(VL, from)), x);
}

// The products of M queries, `row` and on, with NR keys, `key` and on, of which `there` are: into `strip`, and into the
// maxima of each lane, `top`. With a bias or a mask they are scaled first; else that is left to who reads them.
template <int64_t M, class A>
ALWAYS_INLINE void score(const A& a, const Vec (&acc)[M][NV], int64_t row, int64_t key, int64_t there, bool plain,
                         float scale, float* strip, Vec* top) {
  UNROLL
  for (int64_t i = 0; i < M; i++) {
    UNROLL
    for (int64_t v = 0; v < NV; v++) store(strip + i * STRIP + v * VL, acc[i][v]);
  }
  const bool masked = NR > there || key < row + M - 1 - a.before || key + NR - 1 > row + a.after;
  if (plain && !masked) {
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      UNROLL
      for (int64_t v = 0; v < NV; v++) top[i] = vmax(acc[i][v], top[i]);
    }
    return;
  }
  for (int64_t i = 0; i < M; i++) {
    const int64_t query = row + i;
    const float* bias = a.bias ? a.bias + query * a.bias_step + key : nullptr;
    const int64_t low = query - a.before - key;
    const int64_t high = smaller(there, query + a.after + 1 - key);
    for (int64_t v = 0; v < NV; v++) {
      float* mine = strip + i * STRIP + v * VL;
      Vec x = load(mine) * scale;
      if (bias && there > v * VL) x += LOG2_E * load_up_to(bias + v * VL, there - v * VL);
      if (masked) x = only(x, low - v * VL, high - v * VL);
      store(mine, x);
      top[i] = vmax(x, top[i]);
    }
  }
}

// How a tile's rows are joined with the blocks before: what is subtracted from a score, what the output so far is
// multiplied with, and the inverse of the sum in the end.
template <int64_t M> struct Joined {
  static constexpr int64_t GROUPS = (M + VL - 1) / VL;  // the M rows as lanes of vectors
  float shift[GROUPS * VL], rescale[GROUPS * VL], inverse[GROUPS * VL];

  ALWAYS_INLINE void by_maxima(const Vec* top, float scale, bool first, float* maxima) {
    for (int64_t g = 0; g < GROUPS; g++) {
      const int64_t lanes = smaller(VL, M - g * VL);
      const Vec lowest = splat(-__builtin_inff());
      const Vec before = first ? lowest : load_up_to(maxima + g * VL, lanes);
      const Vec now = vmax(before, across<Greater>(top + g * VL) * scale);
      // A row with nothing but -inf so far has no maximum to subtract.
      const Vec by = now == lowest ? Vec{} : now;
      store_up_to(maxima + g * VL, now, lanes);
      store(shift + g * VL, by);
      store(rescale + g * VL, power_of_two(before - by));
    }
  }
  ALWAYS_INLINE void by_sums(const Vec* total, bool first, float* sums) {
    for (int64_t g = 0; g < GROUPS; g++) {
      const int64_t lanes = smaller(VL, M - g * VL);
      Vec t = across<Plus>(total + g * VL);
      if (!first) t += load_up_to(sums + g * VL, lanes) * load(rescale + g * VL);
      store_up_to(sums + g * VL, t, lanes);
      store(inverse + g * VL, 1.0f / t);
    }
  }
  // Columns p and on of the output, of which this block's are in acc: what is there once the last block is.
  template <class A, class B>
  ALWAYS_INLINE void put(const A& a, const B& block, int64_t row, int64_t p, const Vec (&acc)[M][NV],
                         float* partial) const {
    const int64_t d = a.head_dim, width = round_up(d, NR);
    if (block.first && block.last && p + NR <= d) {
      UNROLL
      for (int64_t i = 0; i < M; i++) {
        UNROLL
        for (int64_t v = 0; v < NV; v++) store(a.out + (row + i) * a.out_stride + p + v * VL, acc[i][v] * inverse[i]);
      }
      return;
    }
    float edge[M * NR];
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      UNROLL
      for (int64_t v = 0; v < NV; v++) store(edge + i * NR + v * VL, acc[i][v]);
    }
    for (int64_t i = 0; i < M; i++)
      for (int64_t v = 0; v < NV; v++) {
        const int64_t column = p + v * VL;
        float* mine = partial + i * width + column;
        Vec x = load(edge + i * NR + v * VL);
        if (!block.first) x += load(mine) * rescale[i];
        if (!block.last) store(mine, x);
        else if (column < d) store_up_to(a.out + (row + i) * a.out_stride + column, x * inverse[i], d - column);
      }
  }
};
