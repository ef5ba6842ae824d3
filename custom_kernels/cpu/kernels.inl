// Every kernel, written on the compiler's vector types and compiled once an instruction set. The including file
// defines LANES (floats a vector), TILE_ROWS, TILE_VECTORS, TABLE and NAME.
//
// Nothing here may be visible outside but TABLE, nor run at load: a processor without the instruction set must
// never meet one of its instructions. Hence no standard library, no inline function of a shared header, no
// constructor.
#include "kernels.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

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
ALWAYS_INLINE Vec load_n(const float* p, int64_t n) { return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
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
template <int64_t... I> struct MakeLanes<0, I...> { typedef Lanes<I...> type; };
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

// out[c * width + r] = x[r * stride + c] * scale. A last group of fewer than VL rows still writes whole vectors,
// which reach into the next column: so it goes first, and a caller packs one block after another upwards.
void transpose_rows(const float* x, int64_t stride, int64_t rows, int64_t columns, float scale, float* out,
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
        v[r] = load(p) * scale;
      }
      transpose(v);
      UNROLL
      for (int64_t r = 0; r < VL; r++) store(out + (c + r) * width + r0, v[r]);
    }
    for (; c < columns; c++)
      for (int64_t r = 0; r < there; r++) out[c * width + r0 + r] = from[r * stride + c] * scale;
  }
}

// ------------------------------------------------------------------ functions of one number

ALWAYS_INLINE Vec exponential(Vec x) {
  x = vmin(splat(88.3f), vmax(splat(-87.3f), x));
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec t = x * 1.44269504088896341f + magic;
  Vec k = t - magic;
  Vec r = x - k * 0.693359375f;
  r = r - k * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (Vec)((Ints)p + ((Ints)t << 23));
}
constexpr float LOG2_E = 1.44269504088896341f;
// 2^x for x <= 127, exact to 2e-7 of itself, and 0 below the least normal number.
ALWAYS_INLINE Vec power_of_two(Vec x) {
#if defined(__AVX512F__)
  x = vmax(splat(-200.0f), x);
  const Vec k = (Vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vec whole = x, magic = splat(12582912.0f);
  x = vmax(splat(-126.0f), x);
  const Vec t = x + magic, k = t - magic;
#endif
  const Vec r = x - k;
  Vec p = splat(1.3276473e-3f);
  p = p * r + 9.6755419e-3f;
  p = p * r + 5.5507131e-2f;
  p = p * r + 0.24022120f;
  p = p * r + 0.69314694f;
  p = p * r + 1.0000001f;
#if defined(__AVX512F__)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)k);
#else
  p = (Vec)((Ints)p + ((Ints)t << 23));
  return whole < splat(-126.0f) ? Vec{} : p;
#endif
}
ALWAYS_INLINE Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  Vec r = (Vec)_mm512_rcp14_ps((__m512)x);
  return r * (2.0f - x * r);
#else
  return 1.0f / x;
#endif
}
// Rational in x^2 on |x| <= 4, beyond which erf rounds to 1.
ALWAYS_INLINE Vec error_function(Vec x) {
  const Vec whole = x;
  x = vmin(splat(4.0f), vmax(splat(-4.0f), x));
  Vec z = x * x;
  Vec p = splat(-2.72614225801306e-10f);
  p = p * z + 2.77068142495902e-08f;
  p = p * z + -2.10102402082508e-06f;
  p = p * z + -5.69250639462346e-05f;
  p = p * z + -7.34990630326855e-04f;
  p = p * z + -2.95459980854025e-03f;
  p = p * z + -1.60960333262415e-02f;
  Vec q = splat(-1.45660718464996e-05f);
  q = q * z + -2.13374055278905e-04f;
  q = q * z + -1.68282697438203e-03f;
  q = q * z + -7.37332916720468e-03f;
  q = q * z + -1.42647390514189e-02f;
  Vec y = x * p * reciprocal(q);
  y = whole < splat(-4.0f) ? splat(-1.0f) : y;
  return whole > splat(4.0f) ? splat(1.0f) : y;
}
ALWAYS_INLINE Vec sigmoid_times(Vec x, Vec y) { return x * reciprocal(1.0f + exponential(-y)); }

template <int A> ALWAYS_INLINE Vec activate(Vec x) {
  if constexpr (A == GELU) return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f));
  if constexpr (A == GELU_TANH)  // (1 + tanh(y)) / 2 is sigmoid(2 y)
    return sigmoid_times(x, x * (1.59576912160573071f + 0.07135481282636868f * (x * x)));
  if constexpr (A == RELU) return vmax(Vec{}, x);
  if constexpr (A == SILU) return sigmoid_times(x, x);
  return x;
}

// ------------------------------------------------------------------ matrix product

// acc[i][:] += sum over k of a[i * ROW + k * STEP] * b[k][:], `each(k)` done on the way
template <int64_t M, int64_t ROW, int64_t STEP, class Each>
ALWAYS_INLINE void multiply(const float* __restrict a, const float* __restrict b, int64_t depth, Vec (&acc)[M][NV],
                            const Each& each) {
  for (int64_t k = 0; k < depth; k++, a += STEP, b += NR) {
    Vec right[NV];
    UNROLL
    for (int64_t j = 0; j < NV; j++) right[j] = *(const Vec*)(b + j * VL);
    each(b);
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      Vec left = splat(a[i * ROW]);
      UNROLL
      for (int64_t j = 0; j < NV; j++) acc[i][j] += left * right[j];
    }
  }
}
ALWAYS_INLINE void nothing(const float*) {}

// What a tile fetches for the block of B that comes next, so that memory is read while this one is multiplied.
struct Ahead {
  const float* from;
  int64_t step;  // floats for each k
};

// C tile of M rows and n <= NR columns from a block of A stored [depth][M]; added to C unless `first`.
template <int64_t M>
__attribute__((noinline)) void gemm_tile(const float* a, const float* b, int64_t depth, float* c, int64_t ldc,
                                         int64_t n, bool first, Ahead ahead) {
  Vec acc[M][NV] = {};
  multiply<M, 1, M>(a, b, depth, acc, [&](const float* here) __attribute__((always_inline)) {
    UNROLL
    for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(here + 16 * NR + j);
    __builtin_prefetch(ahead.from, 0, 2);
    ahead.from += ahead.step;
  });
  float edge[M * NR];  // a tile that is cut short goes by way of this, so that acc is never indexed at run time
  float* to = n == NR ? c : edge;
  const int64_t stride = n == NR ? ldc : NR;
  const bool add = n == NR && !first;
  UNROLL
  for (int64_t i = 0; i < M; i++, to += stride) {
    UNROLL
    for (int64_t j = 0; j < NV; j++) store(to + j * VL, add ? acc[i][j] + load(to + j * VL) : acc[i][j]);
  }
  if (n == NR) return;
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < n; j += VL) {
      const int64_t valid = smaller(VL, n - j);
      float* p = c + i * ldc + j;
      const Vec v = load(edge + i * NR + j);
      store_n(p, first ? v : v + load_n(p, valid), valid);
    }
}
typedef void (*GemmTile)(const float*, const float*, int64_t, float*, int64_t, int64_t, bool, Ahead);
constexpr GemmTile GEMM_TILES[] = {
    nullptr,      gemm_tile<1>, gemm_tile<2>, gemm_tile<3>, gemm_tile<4>,
    gemm_tile<5>, gemm_tile<6>,
#if TILE_ROWS > 6
    gemm_tile<7>, gemm_tile<8>,
#endif
#if TILE_ROWS > 8
    gemm_tile<9>, gemm_tile<10>, gemm_tile<11>, gemm_tile<12>, gemm_tile<13>, gemm_tile<14>,
#endif
};

template <int A>
void finish(float* c, int64_t ldc, const float* bias, const float* residual, int64_t ldr, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < n; j += VL) {
      int64_t valid = smaller(VL, n - j);
      float* p = c + i * ldc + j;
      const float* r = residual ? residual + i * ldr + j : nullptr;
      if (valid == VL) {
        Vec v = load(p);
        if (bias) v += load(bias + j);
        v = activate<A>(v);
        store(p, r ? v + load(r) : v);
      } else {
        Vec v = load_n(p, valid);
        if (bias) v += load(bias + j);
        v = activate<A>(v);
        store_n(p, r ? v + load_n(r, valid) : v, valid);
      }
    }
}
typedef void (*Finish)(float*, int64_t, const float*, const float*, int64_t, int64_t, int64_t);
constexpr Finish FINISH[] = {finish<IDENTITY>, finish<GELU>, finish<GELU_TANH>, finish<RELU>, finish<SILU>};

void pack(const float* weight, int64_t n, int64_t depth, float* out) {
  for (int64_t p = 0; p < n; p += NR, out += depth * NR) {
    if (p + NR > n)
      for (int64_t i = 0; i < depth * NR; i++) out[i] = 0.0f;
    for (int64_t j = 0; j < smaller(NR, n - p); j += VL)
      transpose_rows(weight + (p + j) * depth, depth, smaller(VL, n - p - j), depth, 1.0f, out + j, NR);
  }
}

ALWAYS_INLINE bool few(int64_t rows) { return rows <= 3 * MR; }

size_t gemm_scratch(int64_t m, int64_t depth) { return (size_t)(m * (few(m) ? depth : smaller(depth, DEPTH_BLOCK)) + VL); }

// Blocks of depth go by outside the panels, so that a block of A stays in the cache; for few rows inside, so that B
// is read from end to end.
void gemm(const Gemm& g, float* scratch) {
  const int64_t blocks = ceil_div(g.depth, DEPTH_BLOCK), panels = g.panel_end - g.panel_begin;
  const int64_t tiles = ceil_div(g.m, MR), steps = blocks * panels;
  const bool b_once = few(g.m);
  const auto depth_of = [&](int64_t block) { return smaller(DEPTH_BLOCK, g.depth - block * DEPTH_BLOCK); };
  const auto b_of = [&](int64_t panel, int64_t block) {
    return g.b + ((g.panel_begin + panel) * g.depth + block * DEPTH_BLOCK) * NR;
  };
  const auto pack_a = [&](int64_t block, float* to) {
    const int64_t depth = depth_of(block);
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t rows = (g.m - row) / (tiles - t);
      transpose_rows(g.a + row * g.lda + block * DEPTH_BLOCK, g.lda, rows, depth, 1.0f, to + row * depth, rows);
      row += rows;
    }
  };
  if (b_once)
    for (int64_t block = 0; block < blocks; block++) pack_a(block, scratch + g.m * block * DEPTH_BLOCK);
  for (int64_t step = 0; step < steps; step++) {
    const int64_t block = b_once ? step % blocks : step / panels, panel = b_once ? step / blocks : step % panels;
    const int64_t next = smaller(step + 1, steps - 1);
    if (!b_once && panel == 0) pack_a(block, scratch);
    const float* a = b_once ? scratch + g.m * block * DEPTH_BLOCK : scratch;
    const float* b = b_of(panel, block);
    const float* next_b = b_once ? b_of(next / blocks, next % blocks) : b_of(next % panels, next / panels);
    const int64_t depth = depth_of(block), column = (g.panel_begin + panel) * NR, n = smaller(NR, g.n - column);
    const bool last = block == blocks - 1;
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t rows = (g.m - row) / (tiles - t);
      float* c = g.c + row * g.ldc + column;
      // By the time the tile is stored, its place is in the cache.
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(c + i * g.ldc + j, 1);
      GEMM_TILES[rows](a + row * depth, b, depth, c, g.ldc, n, block == 0,
                       {next_b + depth * NR * t / tiles, NR / tiles});
      if (last && (g.bias || g.activation || g.residual))
        FINISH[g.activation](c, g.ldc, g.bias ? g.bias + column : nullptr,
                             g.residual ? g.residual + row * g.ldr + column : nullptr, g.ldr, rows, n);
      row += rows;
    }
  }
}

// ------------------------------------------------------------------ attention
// Keys go by in blocks of KEY_BLOCK; a running maximum, sum and output per query joins the blocks.

struct Block {
  const float *keys, *values;  // [panels][head_dim][NR] and [head_dim panels][count][NR]
  int64_t begin, count;
  bool first, last;
};

// Lanes [from, to) of x, and -inf elsewhere.
ALWAYS_INLINE Vec only(Vec x, int64_t from, int64_t to) {
  const Vec lowest = splat(-__builtin_inff());
  x = first_n(x, larger(0, smaller(VL, to)), lowest);
  return first_n(lowest, larger(0, smaller(VL, from)), x);
}

template <int64_t M>
__attribute__((noinline)) void attention_tile(const Attention& a, const Block& block, int64_t row, float* q,
                                              float* strip, float* maxima, float* sums, float* partial) {
  constexpr int64_t GROUPS = (M + VL - 1) / VL;  // the M rows as lanes of vectors
  const int64_t d = a.head_dim, width = round_up(d, NR);
  // The window's keys for these rows, within the block.
  int64_t from = 0, to = block.count;
  if (a.window >= 0) {
    from = larger(0, row - a.window - block.begin) / NR * NR;
    to = smaller(to, row + M + a.window - block.begin);
  }
  Vec top[GROUPS * VL], total[GROUPS * VL];
  for (int64_t i = 0; i < GROUPS * VL; i++) {
    top[i] = splat(-__builtin_inff());
    total[i] = Vec{};
  }
  if (from < to) transpose_rows(a.q + row * a.stride, a.stride, M, d, a.scale * LOG2_E, q, M);
  for (int64_t j = from; j < to; j += NR) {
    Vec acc[M][NV] = {};
    multiply<M, 1, M>(q, block.keys + j * d, d, acc, nothing);
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      UNROLL
      for (int64_t v = 0; v < NV; v++) store(strip + i * STRIP + j + v * VL, acc[i][v]);
    }
    const bool masked = a.window >= 0 || j + NR > to;
    if (!a.bias && !masked) {
      UNROLL
      for (int64_t i = 0; i < M; i++) {
        UNROLL
        for (int64_t v = 0; v < NV; v++) top[i] = vmax(acc[i][v], top[i]);
      }
      continue;
    }
    for (int64_t i = 0; i < M; i++) {
      const int64_t query = row + i, key = block.begin + j;
      const float* bias = !a.bias         ? nullptr
                          : a.bias_stride ? a.bias + query * a.bias_stride + key
                                          : a.bias + a.length - 1 - query + key;
      const int64_t low = a.window >= 0 ? query - a.window - key : 0;
      const int64_t high = smaller(to - j, a.window >= 0 ? query + a.window + 1 - key : NR);
      for (int64_t v = 0; v < NV; v++) {
        const int64_t there = to - j - v * VL;
        float* score = strip + i * STRIP + j + v * VL;
        Vec x = load(score);
        if (bias && there > 0) x += LOG2_E * load_up_to(bias + v * VL, there);
        if (masked) x = only(x, low - v * VL, high - v * VL);
        store(score, x);
        top[i] = vmax(x, top[i]);
      }
    }
  }
  float shift[GROUPS * VL], rescale[GROUPS * VL], inverse[GROUPS * VL];
  for (int64_t g = 0; g < GROUPS; g++) {
    const int64_t lanes = smaller(VL, M - g * VL);
    const Vec lowest = splat(-__builtin_inff());
    const Vec before = block.first ? lowest : load_up_to(maxima + g * VL, lanes);
    const Vec now = vmax(before, across<Greater>(top + g * VL));
    // A row with nothing but -inf so far has no maximum to subtract.
    const Vec by = now == lowest ? Vec{} : now;
    store_up_to(maxima + g * VL, now, lanes);
    store(shift + g * VL, by);
    store(rescale + g * VL, power_of_two(before - by));
  }
  for (int64_t i = 0; i < M; i++) {
    float* s = strip + i * STRIP;
    const Vec by = splat(shift[i]);
    Vec t = {};
    for (int64_t j = from; j < to; j += VL) {
      const Vec e = power_of_two(load(s + j) - by);
      store(s + j, e);
      t += e;
    }
    total[i] = t;
  }
  for (int64_t g = 0; g < GROUPS; g++) {
    const int64_t lanes = smaller(VL, M - g * VL);
    Vec t = across<Plus>(total + g * VL);
    if (!block.first) t += load_up_to(sums + g * VL, lanes) * load(rescale + g * VL);
    store_up_to(sums + g * VL, t, lanes);
    store(inverse + g * VL, 1.0f / t);
  }
  for (int64_t p = 0; p < width; p += NR) {
    Vec acc[M][NV] = {};
    multiply<M, STRIP, 1>(strip + from, block.values + (p * block.count + from * NR), larger(0, to - from), acc,
                          nothing);
    if (block.first && block.last && p + NR <= d) {
      UNROLL
      for (int64_t i = 0; i < M; i++) {
        UNROLL
        for (int64_t v = 0; v < NV; v++)
          store(a.out + (row + i) * a.out_stride + p + v * VL, acc[i][v] * inverse[i]);
      }
      continue;
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
}
typedef void (*AttentionTile)(const Attention&, const Block&, int64_t, float*, float*, float*, float*, float*);
constexpr AttentionTile ATTENTION_TILES[] = {
    nullptr,           attention_tile<1>, attention_tile<2>, attention_tile<3>, attention_tile<4>,
    attention_tile<5>, attention_tile<6>,
#if TILE_ROWS > 6
    attention_tile<7>, attention_tile<8>,
#endif
#if TILE_ROWS > 8
    attention_tile<9>, attention_tile<10>, attention_tile<11>, attention_tile<12>, attention_tile<13>,
    attention_tile<14>,
#endif
};

size_t attention_scratch(int64_t rows, int64_t length, int64_t head_dim) {
  const int64_t keys = round_up(smaller(length, KEY_BLOCK), NR), width = round_up(head_dim, NR);
  const int64_t partial = length > KEY_BLOCK ? rows * width : 0;
  return (size_t)(keys * head_dim + VL * NR + keys * width + round_up(head_dim * MR + VL, 16) + MR * STRIP + 2 * round_up(rows, 16) +
                  partial + 64);
}

void attention(const Attention& a, float* scratch) {
  const int64_t d = a.head_dim, width = round_up(d, NR), rows = a.row_end - a.row_begin;
  const int64_t most = round_up(smaller(a.length, KEY_BLOCK), NR);
  float* values = scratch;
  float* keys = values + most * width;
  float* strip = keys + most * d + VL * NR;
  float* q = strip + MR * STRIP;
  float* maxima = q + round_up(d * MR + VL, 16);
  float* sums = maxima + round_up(rows, 16);
  float* partial = sums + round_up(rows, 16);
  int64_t begin = 0, end = a.length;
  if (a.window >= 0) {
    begin = larger(0, a.row_begin - a.window) / KEY_BLOCK * KEY_BLOCK;
    end = smaller(end, a.row_end + a.window);
  }
  for (int64_t j0 = begin; j0 < end; j0 += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, end - j0);
    for (int64_t j = 0; j < count; j += VL) {
      const int64_t there = smaller(VL, count - j);
      float* panel = keys + j / NR * NR * d + j % NR;
      transpose_rows(a.k + (j0 + j) * a.stride, a.stride, there, d, 1.0f, panel, NR);
    }
    for (int64_t j = 0; j < count; j++)
      for (int64_t c = 0; c < width; c += VL) {
        const float* v = a.v + (j0 + j) * a.stride + c;
        Vec x = c + VL <= d ? load(v) : c < d ? load_n(v, d - c) : Vec{};
        store(values + (c / NR * count + j) * NR + c % NR, x);
      }
    const Block block = {keys, values, j0, count, j0 == begin, j0 + count == end};
    const int64_t tiles = ceil_div(rows, MR);
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t m = (rows - row) / (tiles - t);
      for (int64_t i = 0; i < m; i++)
        for (int64_t c = 0; c < d; c += 16) __builtin_prefetch(a.out + (a.row_begin + row + i) * a.out_stride + c, 1);
      ATTENTION_TILES[m](a, block, a.row_begin + row, q, strip, maxima + row, sums + row, partial + row * width);
      row += m;
    }
  }
}

// ------------------------------------------------------------------ rows

void layer_norm(const float* x, const float* residual, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t width, float* y) {
  const int64_t whole = width / VL * VL, rest = width - whole;
  for (int64_t i = 0; i < rows; i++, x += width, y += width) {
    const float* h = x;
    if (residual) {
      for (int64_t j = 0; j < width; j += VL)
        store_up_to(y + j, load_up_to(x + j, width - j) + load_up_to(residual + j, width - j), width - j);
      residual += width;
      h = y;
    }
    if (!weight) {
      if (h != y)
        for (int64_t j = 0; j < width; j += VL) store_up_to(y + j, load_up_to(h + j, width - j), width - j);
      continue;
    }
    Vec total = {};
    for (int64_t j = 0; j < whole; j += VL) total += load(h + j);
    if (rest) total += load_n(h + whole, rest);
    const float mean = sum(total) / (float)width;
    Vec squares = {};
    for (int64_t j = 0; j < whole; j += VL) {
      Vec v = load(h + j) - mean;
      squares += v * v;
    }
    if (rest) {
      Vec v = first_n(load_n(h + whole, rest) - mean, rest, Vec{});
      squares += v * v;
    }
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)width + eps);
    for (int64_t j = 0; j < width; j += VL) {
      const int64_t n = width - j;
      Vec v = (load_up_to(h + j, n) - mean) * scale * load_up_to(weight + j, n);
      if (bias) v += load_up_to(bias + j, n);
      store_up_to(y + j, v, n);
    }
  }
}

void gather(const float* const* tables, const int32_t* const* ids, int64_t count, int64_t rows, int64_t width,
            float* y) {
  for (int64_t i = 0; i < rows; i++, y += width)
    for (int64_t j = 0; j < width; j += VL) {
      Vec v = {};
      for (int64_t t = 0; t < count; t++) v += load_up_to(tables[t] + ids[t][i] * width + j, width - j);
      store_up_to(y + j, v, width - j);
    }
}

template <int A>
ALWAYS_INLINE void gate_rows(const float* gate, const float* value, int64_t rows, int64_t width, int64_t stride,
                             float* y) {
  for (int64_t i = 0; i < rows; i++, gate += stride, value += stride, y += width)
    for (int64_t j = 0; j < width; j += VL) {
      const int64_t n = width - j;
      store_up_to(y + j, activate<A>(load_up_to(gate + j, n)) * load_up_to(value + j, n), n);
    }
}
void gated(const float* gate, const float* value, int64_t rows, int64_t width, int64_t stride, int activation,
           float* y) {
  switch (activation) {
    case GELU: return gate_rows<GELU>(gate, value, rows, width, stride, y);
    case GELU_TANH: return gate_rows<GELU_TANH>(gate, value, rows, width, stride, y);
    case RELU: return gate_rows<RELU>(gate, value, rows, width, stride, y);
    case SILU: return gate_rows<SILU>(gate, value, rows, width, stride, y);
    default: return gate_rows<IDENTITY>(gate, value, rows, width, stride, y);
  }
}

void rope(float* x, const float* cosine, const float* sine, int64_t heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; h++, x += head_dim)
    for (int64_t j = 0; j < half; j += VL) {
      const int64_t n = half - j;
      Vec a = load_up_to(x + j, n), b = load_up_to(x + half + j, n);
      Vec c = load_up_to(cosine + j, n), s = load_up_to(sine + j, n);
      store_up_to(x + j, a * c - b * s, n);
      store_up_to(x + half + j, b * c + a * s, n);
    }
}

void mean(const float* x, int64_t rows, int64_t width, int normalize, float* y) {
  const float share = rows ? 1.0f / (float)rows : 0.0f;
  Vec squares = {};
  for (int64_t j = 0; j < width; j += VL) {
    const int64_t n = width - j;
    Vec v = {};
    for (int64_t i = 0; i < rows; i++) v += load_up_to(x + i * width + j, n);
    v = v * share;
    squares += v * v;
    store_up_to(y + j, v, n);
  }
  if (!normalize) return;
  const float norm = __builtin_sqrtf(sum(squares)), inverse = 1.0f / (norm < 1e-12f ? 1e-12f : norm);
  for (int64_t j = 0; j < width; j += VL) store_up_to(y + j, load_up_to(y + j, width - j) * inverse, width - j);
}

}  // namespace

extern "C" {
extern const Kernels TABLE;
const Kernels TABLE = {NAME,      MR,         NR,     pack,  gemm_scratch, gemm, attention_scratch,
                       attention, layer_norm, gather, gated, rope,         mean};
}
