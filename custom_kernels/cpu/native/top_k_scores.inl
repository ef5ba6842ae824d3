// The largest inner products of queries and rows, kept in a heap a query. A part of kernels.inl.

// How rows of each type are read: VL of them as floats, or the last few.
struct Float32 {
  typedef float Element;
  static ALWAYS_INLINE Vec read(const float* p) { return load(p); }
};
struct Float16 {
  typedef uint16_t Element;
  static ALWAYS_INLINE Vec read(const uint16_t* p) {
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#else
    // A half's exponent and mantissa, moved to a float's place, are 2^112 times too small; subnormals too.
    const Words bits = __builtin_convertvector(*(const Shorts*)p, Words);
    const Vec magnitude = (Vec)((bits & 0x7fffu) << 13) * 0x1p112f;
    return (Vec)((Words)magnitude | (bits & 0x8000u) << 16);
#endif
  }
};
struct Bfloat16 {
  typedef uint16_t Element;
  static ALWAYS_INLINE Vec read(const uint16_t* p) {
    return (Vec)(__builtin_convertvector(*(const Shorts*)p, Words) << 16);
  }
};
struct Int8 {
  typedef int8_t Element;
  static ALWAYS_INLINE Vec read(const int8_t* p) {
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const Bytes*)p, Ints), Vec);
#endif
  }
};
template <class T> ALWAYS_INLINE Vec read_n(const typename T::Element* p, int64_t n) {
  typename T::Element padded[VL] = {};
  for (int64_t i = 0; i < n; i++) padded[i] = p[i];
  return T::read(padded);
}

// sums[r * Q + q] is the inner product of row r and query q, before its lanes are added up. The order of additions is
// the same whatever Q is, so that a query has the same scores in a batch as alone.
template <class T, int64_t R, int64_t Q>
ALWAYS_INLINE void inner_products(const typename T::Element* const* rows, const float* const* queries, int64_t width,
                                  Vec* sums) {
  Vec acc[R * Q] = {};
  const int64_t whole = width / VL * VL;
  for (int64_t j = 0; j < whole; j += VL) {
    Vec row[R];
    UNROLL
    for (int64_t r = 0; r < R; r++) row[r] = T::read(rows[r] + j);
    UNROLL
    for (int64_t q = 0; q < Q; q++) {
      const Vec query = load(queries[q] + j);
      UNROLL
      for (int64_t r = 0; r < R; r++) acc[r * Q + q] += row[r] * query;
    }
  }
  if (whole < width)
    for (int64_t q = 0; q < Q; q++) {
      const Vec query = load_n(queries[q] + whole, width - whole);
      for (int64_t r = 0; r < R; r++) acc[r * Q + q] += read_n<T>(rows[r] + whole, width - whole) * query;
    }
  UNROLL
  for (int64_t i = 0; i < R * Q; i++) sums[i] = acc[i];
}

// Heaps have the worst at the front: the lowest score, and of equal ones the last row.
ALWAYS_INLINE bool worse(float score, int32_t place, float than_score, int32_t than_place) {
  return score < than_score || (score == than_score && place > than_place);
}
void replace_worst(float* scores, int32_t* places, int64_t k, float score, int32_t place) {
  int64_t at = 0;
  for (int64_t child; (child = 2 * at + 1) < k; at = child) {
    if (child + 1 < k && worse(scores[child + 1], places[child + 1], scores[child], places[child])) child++;
    if (!worse(scores[child], places[child], score, place)) break;
    scores[at] = scores[child];
    places[at] = places[child];
  }
  scores[at] = score;
  places[at] = place;
}

// The bits of rows [row, row + count), count at most 16 and both multiples of 4; rows from `end` on have none.
ALWAYS_INLINE uint32_t wanted_rows(const uint8_t* mask, int64_t row, int64_t count, int64_t end) {
  const uint32_t there = (1u << smaller(count, end - row)) - 1;
  if (!mask) return there;
  uint32_t bits = mask[row / 8] >> row % 8;
  if (row / 8 * 8 + 8 < smaller(row + count, end)) bits |= (uint32_t)mask[row / 8 + 1] << (8 - row % 8);
  return bits & there;
}

ALWAYS_INLINE bool any_above(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
#else
  const Ints above = a > b;
  int32_t any = 0;
  UNROLL
  for (int64_t i = 0; i < VL; i++) any |= above[i];
  return any != 0;
#endif
}

// One group of VL / Q rows from `row`, of which `bits` are wanted, against queries [first, first + Q). Rows that are
// not there are those before them again, and so are queries.
template <class T, int64_t Q>
ALWAYS_INLINE void top_k_group(const TopK& t, const typename T::Element* from, int64_t row, uint32_t bits,
                               int64_t first, const float* scales) {
  constexpr int64_t R = VL / Q, STEP = R < 4 ? R : 4;
  const float* queries[Q];
  float worst[VL];
  UNROLL
  for (int64_t q = 0; q < Q; q++) {
    const bool there = first + q < t.n;
    queries[q] = t.queries + smaller(first + q, t.n - 1) * t.width;
    for (int64_t r = 0; r < R; r++) worst[r * Q + q] = there ? t.scores[(first + q) * t.k] : __builtin_inff();
  }
  Vec sums[VL];
  UNROLL
  for (int64_t r = 0; r < R; r += STEP) {
    const typename T::Element* rows[STEP];
    for (int64_t i = 0; i < STEP; i++) rows[i] = from + smaller(r + i, t.end - 1 - row) * t.width;
    inner_products<T, STEP, Q>(rows, queries, t.width, sums + r * Q);
  }
  Vec scores = across<Plus>(sums);
  if (scales) {
    float each[VL];
    for (int64_t i = 0; i < VL; i++) each[i] = scales[smaller(row + i / Q, t.end - 1)];
    scores *= load(each);
  }
  if (!any_above(scores, load(worst))) return;
  float found[VL];
  store(found, scores);
  for (int64_t i = 0; i < VL; i++) {
    const int64_t r = i / Q, q = first + i % Q;
    if (q < t.n && bits >> r & 1 && found[i] > t.scores[q * t.k])
      replace_worst(t.scores + q * t.k, t.places + q * t.k, t.k, found[i], (int32_t)(row + r));
  }
}

// Of several queries, each group of rows meets all of them while it is in the cache, as floats.
template <class T> void top_k_of(const TopK& t, float* scratch) {
  const auto* rows = (const typename T::Element*)t.rows;
  for (int64_t row = t.begin; row < t.end; row += VL) {
    const uint32_t bits = wanted_rows(t.mask, row, VL, t.end);
    if (!bits) continue;
    const auto* from = rows + row * t.width;
    if (t.n == 1) {
      top_k_group<T, 1>(t, from, row, bits, 0, t.scales);
      continue;
    }
    const int64_t there = smaller(VL, t.end - row);
    const float* floats = (const float*)from;
    if constexpr (sizeof(typename T::Element) != sizeof(float)) {
      const int64_t values = there * t.width, whole = values / VL * VL;
      for (int64_t j = 0; j < whole; j += VL) store(scratch + j, T::read(from + j));
      if (whole < values) store_n(scratch + whole, read_n<T>(from + whole, values - whole), values - whole);
      floats = scratch;
    }
    for (int64_t q = 0; q < t.n; q += 4)
      for (int64_t r = 0; r < there; r += VL / 4)
        if (const uint32_t some = bits >> r & ((1u << VL / 4) - 1))
          top_k_group<Float32, 4>(t, floats + r * t.width, row + r, some, q, t.scales);
  }
}

size_t top_k_scratch(int64_t width) { return (size_t)(VL * width); }
void top_k(const TopK& t, float* scratch) {
  switch (t.type) {
    case ROWS_FLOAT32: return top_k_of<Float32>(t, scratch);
    case ROWS_FLOAT16: return top_k_of<Float16>(t, scratch);
    case ROWS_BFLOAT16: return top_k_of<Bfloat16>(t, scratch);
    default: return top_k_of<Int8>(t, scratch);
  }
}

// In float64: what is left to round is the sum.
double inner_product(const float* a, const float* b, int64_t width) {
  constexpr int64_t HALF = VL / 2;
  Doubles acc[2] = {};
  int64_t j = 0;
  for (; j + VL <= width; j += VL) {
    UNROLL
    for (int64_t i = 0; i < 2; i++) {
      const Doubles left = __builtin_convertvector(*(const Half*)(a + j + i * HALF), Doubles);
      const Doubles right = __builtin_convertvector(*(const Half*)(b + j + i * HALF), Doubles);
      acc[i] += left * right;
    }
  }
  const Doubles both = acc[0] + acc[1];
  double total = 0;
  for (int64_t i = 0; i < HALF; i++) total += both[i];
  for (; j < width; j++) total += (double)a[j] * (double)b[j];
  return total;
}
