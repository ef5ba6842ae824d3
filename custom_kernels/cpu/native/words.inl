// The words of a narrow product: how numbers are rounded to them, and how the products of two words are added up. A
// part of narrow.inl.

// How a row of A was rounded: x is about scale * q + base. And a column of B: w is scale * q, and the sum of all q.
struct Row {
  float scale, base;
};
struct Column {
  float scale, sum;
};

#if GROUP == 2

// Words k and on of a row of A; k is a multiple of VL, which is 4.
ALWAYS_INLINE void put(Word* row, int64_t k, Ints words) {
  __builtin_memcpy(row + 2 * k, &words, 8);
  __builtin_memcpy(row + 2 * k + 4, (const Word*)&words + 2, 8);
}
// The first words of VL columns of B, j and on.
ALWAYS_INLINE void put_columns(const Vec (&v)[VL], int64_t words, int64_t j, float* panel) {
  for (int64_t k = 0; k < words; k += 2, panel += 2 * NR) {
    store(panel + 2 * j, SHUFFLE(v[k], v[k + 1], 0, 4, 1, 5));
    store(panel + 2 * j + VL, SHUFFLE(v[k], v[k + 1], 2, 6, 3, 7));
  }
}

#else

ALWAYS_INLINE void put(Word* row, int64_t k, Ints words) { store((float*)(row + k), (Vec)words); }
ALWAYS_INLINE void put_columns(const Vec (&v)[VL], int64_t words, int64_t j, float* panel) {
  for (int64_t k = 0; k < words; k++) store(panel + k * NR + j, v[k]);
}

#endif

#if NARROW == 16

typedef Vec Sum;

ALWAYS_INLINE int64_t words_of(int64_t depth) { return round_up(ceil_div(depth, 2), GROUP); }

// 2 VL numbers, in order.
ALWAYS_INLINE Ints pairs(Vec first, Vec second) {
#if defined(__x86_64__)
  return (Ints)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
#else
  return (Ints)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32((float32x4_t)first), (float32x4_t)second);
#endif
}
ALWAYS_INLINE Sum dot(Sum sum, Ints left, Ints right) {
#if defined(__x86_64__)
  return (Sum)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
#else
  return (Sum)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)left, (bfloat16x8_t)right);
#endif
}
#if GROUP == 2
// Of two rows of A and two columns of B, two words each: the four sums, which are those of two dots.
ALWAYS_INLINE Sum block(Sum sums, Ints left, Ints right) {
  return (Sum)vbfmmlaq_f32((float32x4_t)sums, (bfloat16x8_t)left, (bfloat16x8_t)right);
}
#endif
// What a sum begins with, and what it comes to.
ALWAYS_INLINE Sum begun(const float* bias) { return load(bias); }
ALWAYS_INLINE Vec scaled(Sum sum, const Row*, const float*, const float*, const float*) { return sum; }

// Up to 2 VL numbers as VL words, and zeros behind them.
ALWAYS_INLINE Ints pairs_up_to(const float* x, int64_t n) {
  if (n >= 2 * VL) return pairs(load(x), load(x + VL));
  const Vec first = n >= VL ? load(x) : load_n(x, n);
  return pairs(first, n > VL ? load_n(x + VL, n - VL) : Vec{});
}
ALWAYS_INLINE Column column_of(const float*, int64_t) { return {}; }
ALWAYS_INLINE void narrow_column(const float* x, int64_t n, const Column&, Word* out) {
  store((float*)out, (Vec)pairs_up_to(x, n));
}
// A row of A into its blocks, which are `apart` words from each other.
ALWAYS_INLINE void narrow_row(const float* x, const float*, int64_t depth, Word* out, int64_t apart, Row*) {
  for (int64_t done = 0; done < depth; done += 2 * BLOCK, out += apart)
    for (int64_t j = done; j < smaller(depth, done + 2 * BLOCK); j += 2 * VL)
      put(out, (j - done) / 2, pairs_up_to(x + j, depth - j));
}
void round_row(const float* x, int64_t n, uint16_t* y) {
  int64_t j = 0;
  for (; j + 2 * VL <= n; j += 2 * VL) store((float*)(y + j), (Vec)pairs(load(x + j), load(x + j + VL)));
  if (j == n) return;
  const Ints rest = pairs_up_to(x + j, n - j);
  __builtin_memcpy(y + j, &rest, (size_t)(n - j) * 2);
}

#else

typedef Ints Sum;

// A word has numbers that lie VL apart, so that four vectors of them become words without a permutation.
ALWAYS_INLINE int64_t words_of(int64_t depth) { return ceil_div(depth, 4 * VL) * VL; }

// Where `dot` takes signed bytes of A, they are less by so much.
#if defined(__x86_64__)
constexpr float LESS = 0.0f;
#else
constexpr float LESS = 128.0f;
#endif
ALWAYS_INLINE Sum dot(Sum sum, Ints left, Ints right) {
#if defined(__AVX512F__)
  return (Sum)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)left, (__m512i)right);
#elif defined(__x86_64__)
  return (Sum)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)left, (__m256i)right);
#else
  return (Sum)vdotq_s32((int32x4_t)sum, (int8x16_t)left, (int8x16_t)right);
#endif
}
#if GROUP == 2
ALWAYS_INLINE Sum block(Sum sums, Ints left, Ints right) {
  return (Sum)vmmlaq_s32((int32x4_t)sums, (int8x16_t)left, (int8x16_t)right);
}
#endif
ALWAYS_INLINE Sum begun(const float*) { return Sum{}; }
// a * b + c, rounded once: a compiler might fuse the one or the other of two products below.
ALWAYS_INLINE Vec fused(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__x86_64__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}
ALWAYS_INLINE Vec scaled(Sum sum, const Row* row, const float* scales, const float* sums, const float* bias) {
  const Vec whole = __builtin_convertvector(sum, Vec);
  return fused(load(scales), fused(whole, splat(row->scale), load(sums) * row->base), load(bias));
}

// The low bytes of integers that are less than 2^22 apart from `zero`; adding to 1.5 * 2^23 rounds to an integer.
ALWAYS_INLINE Ints rounded(Vec x, float inverse, float zero) { return (Ints)(x * inverse + (12582912.0f + zero)); }
// Some numbers, as they are, or SCALED: each times its factor, of which there are whole vectors.
template <bool SCALED> struct Numbers {
  const float *x, *factors;
  ALWAYS_INLINE Vec at(int64_t j, int64_t n) const {
    const Vec v = load_up_to(x + j, n);
    return SCALED ? v * load(factors + j) : v;
  }
};
template <class X> ALWAYS_INLINE Ints quads(const X& x, int64_t j, int64_t n, float inverse, float zero) {
  Ints q[4];
  UNROLL
  for (int64_t i = 0; i < 4; i++) {
    const int64_t there = n - i * VL, from = j + i * VL;
    const Vec v = n >= 4 * VL || there >= VL ? x.at(from, VL) : there > 0 ? x.at(from, there) : Vec{};
    q[i] = rounded(v, inverse, zero);
  }
  return (q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 | q[3] << 24;
}

template <class Op> ALWAYS_INLINE float reduced(Vec v) {
  if constexpr (VL >= 16) v = Op{}(v, rotate<8>(v, AllLanes{}));
  if constexpr (VL >= 8) v = Op{}(v, rotate<4>(v, AllLanes{}));
  v = Op{}(v, rotate<2>(v, AllLanes{}));
  v = Op{}(v, rotate<1>(v, AllLanes{}));
  return v[0];
}
struct Less {
  ALWAYS_INLINE Vec operator()(Vec a, Vec b) const { return vmin(a, b); }
};
struct Range {
  float low, high, nothing;  // 0 is within it; `nothing` is 0, or NaN where the row has what is no finite number
};
template <class X> ALWAYS_INLINE Range range_of(const X& x, int64_t n) {
  Vec low[4] = {}, high[4] = {}, nothing[4] = {};
  const auto add = [&](int64_t i, Vec v) __attribute__((always_inline)) {
    low[i] = vmin(low[i], v);
    high[i] = vmax(high[i], v);
    nothing[i] += v * 0.0f;
  };
  int64_t j = 0;
  for (; j + 4 * VL <= n; j += 4 * VL) {
    UNROLL
    for (int64_t i = 0; i < 4; i++) add(i, x.at(j + i * VL, VL));
  }
  for (; j < n; j += VL) add(0, x.at(j, n - j));
  const Vec least = vmin(vmin(low[0], low[1]), vmin(low[2], low[3]));
  const Vec most = vmax(vmax(high[0], high[1]), vmax(high[2], high[3]));
  return {reduced<Less>(least), reduced<Greater>(most), sum(nothing[0] + nothing[1] + (nothing[2] + nothing[3]))};
}

// Symmetric, so that B needs no zero point.
ALWAYS_INLINE float inverse_of(const Column& column) { return column.scale > 1e-30f ? 1.0f / column.scale : 0.0f; }
ALWAYS_INLINE Column column_of(const float* x, int64_t n) {
  const Range range = range_of(Numbers<false>{x, nullptr}, n);
  Column column = {(-range.low > range.high ? -range.low : range.high) / 127.0f + range.nothing, 0.0f};
  const float inverse = inverse_of(column);
  Vec total = {};
  for (int64_t j = 0; j < n; j += VL) {
    const Vec v = load_up_to(x + j, n - j);
    total += (Vec)rounded(v, inverse, 0.0f) - 12582912.0f;
  }
  column.sum = sum(total);
  return column;
}
ALWAYS_INLINE void narrow_column(const float* x, int64_t n, const Column& column, Word* out) {
  store((float*)out, (Vec)quads(Numbers<false>{x, nullptr}, 0, n, inverse_of(column), 0.0f));
}
template <class X> ALWAYS_INLINE void narrow_numbers(const X& x, int64_t depth, Word* out, int64_t apart, Row* row) {
  const Range range = range_of(x, depth);
  // 254 steps rather than 255: the zero point is rounded too.
  const float width = range.high - range.low, inverse = width > 1e-30f ? 254.0f / width : 0.0f;
  const Vec rounded_zero = splat(12582912.0f - range.low * inverse) - 12582912.0f;
  const float zero = rounded_zero[0];
  *row = {width > 1e-30f ? width / 254.0f : 0.0f, 0.0f};
  row->base = (LESS - zero) * row->scale + range.nothing;
  for (int64_t done = 0; done < depth; done += 4 * BLOCK, out += apart)
    for (int64_t j = done; j < smaller(depth, done + 4 * BLOCK); j += 4 * VL)
      put(out, (j - done) / 4, quads(x, j, depth - j, inverse, zero - LESS));
}
ALWAYS_INLINE void narrow_row(const float* x, const float* factors, int64_t depth, Word* out, int64_t apart, Row* row) {
  if (factors) narrow_numbers(Numbers<true>{x, factors}, depth, out, apart, row);
  else narrow_numbers(Numbers<false>{x, nullptr}, depth, out, apart, row);
}
// To bfloat16, ties to even, by what every processor has; attention on it follows.
void round_row(const float* x, int64_t n, uint16_t* y) {
  typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
  const auto halves_of = [](Vec v) __attribute__((always_inline)) {
    const Ints bits = (Ints)v, even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector(v == v ? even : 0x7fc0 - Ints{}, Halves);
  };
  int64_t j = 0;
  for (; j + VL <= n; j += VL) {
    const Halves halves = halves_of(load(x + j));
    __builtin_memcpy(y + j, &halves, sizeof(Halves));
  }
  if (j == n) return;
  const Halves rest = halves_of(load_n(x + j, n - j));
  __builtin_memcpy(y + j, &rest, (size_t)(n - j) * 2);
}

#endif
