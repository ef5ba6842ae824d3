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
ALWAYS_INLINE float greatest(Vec v) {
  if constexpr (VL >= 16) v = vmax(rotate<8>(v, AllLanes{}), v);
  if constexpr (VL >= 8) v = vmax(rotate<4>(v, AllLanes{}), v);
  v = vmax(rotate<2>(v, AllLanes{}), v);
  v = vmax(rotate<1>(v, AllLanes{}), v);
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
      for (int64_t r = 0; r < VL; r++) v[r] = load(from + smaller(r, there - 1) * stride + c) * scale;
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

// acc[i][:] += sum over k of a[i * ROW + k * STEP] * b[k][:]
template <int64_t M, int64_t ROW, int64_t STEP>
ALWAYS_INLINE void multiply(const float* __restrict a, const float* __restrict b, int64_t depth, Vec (&acc)[M][NV]) {
  for (int64_t k = 0; k < depth; k++, a += STEP, b += NR) {
    Vec right[NV];
    UNROLL
    for (int64_t j = 0; j < NV; j++) right[j] = *(const Vec*)(b + j * VL);
    UNROLL
    for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(b + 16 * NR + j);
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      Vec left = splat(a[i * ROW]);
      UNROLL
      for (int64_t j = 0; j < NV; j++) acc[i][j] += left * right[j];
    }
  }
}

// C tile of M rows and n <= NR columns from a block of A stored [depth][M]; added to C unless `first`.
template <int64_t M>
__attribute__((noinline)) void gemm_tile(const float* a, const float* b, int64_t depth, float* c, int64_t ldc,
                                         int64_t n, bool first) {
  Vec acc[M][NV] = {};
  multiply<M, 1, M>(a, b, depth, acc);
  if (n == NR) {
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      UNROLL
      for (int64_t j = 0; j < NV; j++) {
        float* p = c + i * ldc + j * VL;
        store(p, first ? acc[i][j] : acc[i][j] + load(p));
      }
    }
    return;
  }
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j * VL < n; j++) {
      float* p = c + i * ldc + j * VL;
      int64_t valid = smaller(VL, n - j * VL);
      store_n(p, first ? acc[i][j] : acc[i][j] + load_n(p, valid), valid);
    }
}
typedef void (*GemmTile)(const float*, const float*, int64_t, float*, int64_t, int64_t, bool);
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

size_t gemm_scratch(int64_t m) { return (size_t)(m * DEPTH_BLOCK + VL); }

void gemm(const Gemm& g, float* scratch) {
  const int64_t tiles = ceil_div(g.m, MR);
  for (int64_t k0 = 0; k0 < g.depth; k0 += DEPTH_BLOCK) {
    const int64_t depth = smaller(DEPTH_BLOCK, g.depth - k0);
    const bool last = k0 + depth == g.depth;
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t rows = (g.m - row) / (tiles - t);
      transpose_rows(g.a + row * g.lda + k0, g.lda, rows, depth, 1.0f, scratch + row * depth, rows);
      row += rows;
    }
    for (int64_t p = g.panel_begin; p < g.panel_end; p++) {
      const int64_t column = p * NR, n = smaller(NR, g.n - column);
      const float* b = g.b + (p * g.depth + k0) * NR;
      for (int64_t t = 0, row = 0; t < tiles; t++) {
        const int64_t rows = (g.m - row) / (tiles - t);
        float* c = g.c + row * g.ldc + column;
        GEMM_TILES[rows](scratch + row * depth, b, depth, c, g.ldc, n, k0 == 0);
        if (last && (g.bias || g.activation || g.residual))
          FINISH[g.activation](c, g.ldc, g.bias ? g.bias + column : nullptr,
                               g.residual ? g.residual + row * g.ldr + column : nullptr, g.ldr, rows, n);
        row += rows;
      }
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

template <int64_t M>
__attribute__((noinline)) void attention_tile(const Attention& a, const Block& block, int64_t row, float* q,
                                              float* strip, float* maxima, float* sums, float* partial) {
  const int64_t d = a.head_dim, width = round_up(d, NR);
  // The window's keys for these rows, within the block.
  int64_t from = 0, to = block.count;
  if (a.window >= 0) {
    from = larger(0, row - a.window - block.begin) / NR * NR;
    to = smaller(to, row + M + a.window - block.begin);
  }
  const bool any = from < to;
  float rescale[M];
  if (any) {
    transpose_rows(a.q + row * a.stride, a.stride, M, d, a.scale, q, M);
    for (int64_t j = from; j < to; j += NR) {
      Vec acc[M][NV] = {};
      multiply<M, 1, M>(q, block.keys + j * d, d, acc);
      UNROLL
      for (int64_t i = 0; i < M; i++) {
        UNROLL
        for (int64_t v = 0; v < NV; v++) store(strip + i * STRIP + j + v * VL, acc[i][v]);
      }
    }
    const Vec lowest = splat(-__builtin_inff());
    for (int64_t i = 0; i < M; i++) {
      float* s = strip + i * STRIP;
      const int64_t query = row + i;
      if (a.bias) {
        const float* bias = a.bias_stride ? a.bias + query * a.bias_stride : a.bias + a.length - 1 - query;
        bias += block.begin;
        int64_t j = from;
        for (; j + VL <= to; j += VL) store(s + j, load(s + j) + load(bias + j));
        if (j < to) store(s + j, load(s + j) + load_n(bias + j, to - j));
      }
      int64_t low = from, high = to;
      if (a.window >= 0) {
        low = larger(from, query - a.window - block.begin);
        high = smaller(to, query + a.window + 1 - block.begin);
        for (int64_t j = from; j < smaller(low, to); j++) s[j] = lowest[0];
      }
      for (int64_t j = larger(high, from); j < round_up(to, VL); j++) s[j] = lowest[0];
      Vec top = load(s + from);
      for (int64_t j = from + VL; j < to; j += VL) top = vmax(load(s + j), top);
      const float before = block.first ? lowest[0] : maxima[i];
      float now = greatest(top);
      now = before > now ? before : now;
      // A row with nothing but -inf so far has no maximum to subtract.
      const float shift = now == lowest[0] ? 0.0f : now;
      Vec total = {};
      for (int64_t j = from; j < to; j += VL) {
        Vec x = load(s + j) - shift;
        Vec e = exponential(x);
        e = x < splat(-87.3f) ? Vec{} : e;
        store(s + j, e);
        total += e;
      }
      rescale[i] = block.first ? 0.0f : exponential(splat(before - shift))[0];
      sums[i] = (block.first ? 0.0f : sums[i] * rescale[i]) + sum(total);
      maxima[i] = now;
    }
  } else {
    for (int64_t i = 0; i < M; i++) {
      rescale[i] = 1.0f;
      if (block.first) {
        sums[i] = 0.0f;
        maxima[i] = -__builtin_inff();
      }
    }
  }
  for (int64_t p = 0; p < width; p += NR) {
    Vec acc[M][NV] = {};
    if (any) multiply<M, STRIP, 1>(strip + from, block.values + (p * block.count + from * NR), to - from, acc);
    for (int64_t i = 0; i < M; i++) {
      const float inverse = 1.0f / sums[i];
      UNROLL
      for (int64_t v = 0; v < NV; v++) {
        const int64_t column = p + v * VL;
        float* mine = partial + i * width + column;
        Vec x = block.first ? acc[i][v] : load(mine) * rescale[i] + acc[i][v];
        if (!block.last) {
          store(mine, x);
        } else if (column < d) {
          float* out = a.out + (row + i) * a.out_stride + column;
          if (column + VL <= d) store(out, x * inverse);
          else store_n(out, x * inverse, d - column);
        }
      }
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
      ATTENTION_TILES[m](a, block, a.row_begin + row, q, strip, maxima + row, sums + row, partial + row * width);
      row += m;
    }
  }
}

// ------------------------------------------------------------------ rows

ALWAYS_INLINE Vec load_up_to(const float* p, int64_t n) { return n >= VL ? load(p) : load_n(p, n); }
ALWAYS_INLINE void store_up_to(float* p, Vec v, int64_t n) {
  if (n >= VL) store(p, v);
  else store_n(p, v, n);
}

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
