// Vectors of floats: loads and stores, reductions, transposes. A part of kernels.inl and narrow.inl.

#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

constexpr int64_t VL = LANES;
constexpr int64_t MR = TILE_ROWS;
constexpr int64_t NV = TILE_VECTORS;
constexpr int64_t NR = VL * NV;
constexpr int64_t DEPTH_BLOCK = 384;
constexpr int64_t KEY_BLOCK = (512 / NR) * NR;
// A strip of scores holds KEY_BLOCK keys a row; the extra vector keeps rows apart in the cache's sets.
constexpr int64_t STRIP = KEY_BLOCK + VL;

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Shorts __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef double Doubles __attribute__((vector_size(LANES * 4)));
typedef float Half __attribute__((vector_size(LANES * 2), aligned(4), may_alias));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

ALWAYS_INLINE Vec load(const float* p) { return *(const Unaligned*)p; }
ALWAYS_INLINE void store(float* p, Vec v) { *(Unaligned*)p = v; }
ALWAYS_INLINE Vec splat(float x) { return x - Vec{}; }
ALWAYS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ALWAYS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
ALWAYS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
ALWAYS_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A NaN in the second argument survives.
#if defined(__AVX512F__)
ALWAYS_INLINE Vec vmax(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }
ALWAYS_INLINE Vec vmin(Vec a, Vec b) { return (Vec)_mm512_min_ps((__m512)a, (__m512)b); }
ALWAYS_INLINE Vec load_n(const float* p, int64_t n) {
  return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
ALWAYS_INLINE void store_n(float* p, Vec v, int64_t n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
ALWAYS_INLINE Vec first_n(Vec v, int64_t n, Vec rest) {
  return (Vec)_mm512_mask_blend_ps((__mmask16)((1u << n) - 1), (__m512)rest, (__m512)v);
}
#else
ALWAYS_INLINE Vec vmax(Vec a, Vec b) { return a > b ? a : b; }
ALWAYS_INLINE Vec vmin(Vec a, Vec b) { return a < b ? a : b; }
ALWAYS_INLINE Vec load_n(const float* p, int64_t n) {
  Vec v = {};
  for (int64_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}
ALWAYS_INLINE void store_n(float* p, Vec v, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = v[i];
}
ALWAYS_INLINE Vec first_n(Vec v, int64_t n, Vec rest) {
  for (int64_t i = n; i < VL; i++) v[i] = rest[i];
  return v;
}
#endif

ALWAYS_INLINE Vec load_up_to(const float* p, int64_t n) { return n >= VL ? load(p) : load_n(p, n); }
ALWAYS_INLINE void store_up_to(float* p, Vec v, int64_t n) {
  if (n >= VL) store(p, v);
  else store_n(p, v, n);
}

template <int64_t... I> struct Lanes {};
template <int64_t N, int64_t... I> struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int64_t... I> struct MakeLanes<0, I...> {
  typedef Lanes<I...> type;
};
typedef MakeLanes<VL>::type AllLanes;

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

template <int64_t S, int64_t... I> ALWAYS_INLINE Vec rotate(Vec v, Lanes<I...>) {
  return SHUFFLE(v, v, int((I + S) % VL)...);
}
ALWAYS_INLINE float sum(Vec v) {
  if constexpr (VL >= 16) v += rotate<8>(v, AllLanes{});
  if constexpr (VL >= 8) v += rotate<4>(v, AllLanes{});
  v += rotate<2>(v, AllLanes{});
  v += rotate<1>(v, AllLanes{});
  return v[0];
}

// One butterfly of a transpose: swaps the off-diagonal S x S blocks of rows a and b = a + S.
template <int64_t S, int64_t... I> ALWAYS_INLINE void butterfly(Vec& a, Vec& b, Lanes<I...>) {
  Vec upper = SHUFFLE(a, b, int((I & S) ? VL + I - S : I)...);
  Vec lower = SHUFFLE(a, b, int((I & S) ? VL + I : I + S)...);
  a = upper;
  b = lower;
}
template <int64_t S> ALWAYS_INLINE void butterflies(Vec (&rows)[VL]) {
  UNROLL
  for (int64_t i = 0; i < VL; i++)
    if (!(i & S)) butterfly<S>(rows[i], rows[i | S], AllLanes{});
}
ALWAYS_INLINE void transpose(Vec (&rows)[VL]) {
  if constexpr (VL >= 16) butterflies<8>(rows);
  if constexpr (VL >= 8) butterflies<4>(rows);
  butterflies<2>(rows);
  butterflies<1>(rows);
}

struct Plus {
  ALWAYS_INLINE Vec operator()(Vec a, Vec b) const { return a + b; }
};
struct Greater {
  ALWAYS_INLINE Vec operator()(Vec a, Vec b) const { return vmax(a, b); }
};
// Each of VL vectors reduced to one number, in its lane of the result.
template <class Op> ALWAYS_INLINE Vec across(const Vec* rows) {
  Vec v[VL];
  UNROLL
  for (int64_t i = 0; i < VL; i++) v[i] = rows[i];
  transpose(v);
  UNROLL
  for (int64_t step = 1; step < VL; step *= 2) {
    UNROLL
    for (int64_t i = 0; i < VL; i += 2 * step) v[i] = Op{}(v[i], v[i + step]);
  }
  return v[0];
}

// out[c * width + r] = x[r * stride + c], times `scale` if SCALED. Without it they may be any words of 32 bits. A last
// group of fewer than VL rows still writes whole vectors, which reach into the next column: so it goes first, and a
// caller lays out one block after another upwards.
template <bool SCALED>
ALWAYS_INLINE void transpose_any(const float* x, int64_t stride, int64_t rows, int64_t columns, float scale, float* out,
                                 int64_t width) {
  for (int64_t r0 = (rows - 1) / VL * VL; r0 >= 0; r0 -= VL) {
    const float* from = x + r0 * stride;
    const int64_t there = smaller(VL, rows - r0);
    int64_t c = 0;
    for (; c + VL <= columns; c += VL) {
      Vec v[VL];
      UNROLL
      for (int64_t r = 0; r < VL; r++) {
        const float* p = from + smaller(r, there - 1) * stride + c;
        __builtin_prefetch(p + there * stride);
        v[r] = SCALED ? load(p) * scale : load(p);
      }
      transpose(v);
      UNROLL
      for (int64_t r = 0; r < VL; r++) store(out + (c + r) * width + r0, v[r]);
    }
    for (; c < columns; c++)
      for (int64_t r = 0; r < there; r++) {
        if constexpr (SCALED) out[c * width + r0 + r] = from[r * stride + c] * scale;
        else __builtin_memcpy(out + c * width + r0 + r, from + r * stride + c, 4);
      }
  }
}
