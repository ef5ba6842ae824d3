// Products of numbers narrower than float, on instructions that add the products of all numbers of a 32-bit word: pairs
// of bfloat16, or quads of bytes. Compiled once an instruction set, as kernels.inl is and under the same rules. The
// including file defines LANES, TILE_ROWS, TILE_VECTORS, TABLE, NAME, and NARROW, the bits of a number: 16 or 8.
#include "kernels.h"
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

namespace {

#include "vectors.inl"
#include "functions.inl"
#include "finish.inl"

typedef int32_t Word __attribute__((may_alias));

constexpr bool PAIRS = NARROW == 16;
constexpr int64_t PER_WORD = PAIRS ? 2 : 4;
// Rows of A lie in blocks of so many words, and their beginnings so far apart: a constant, for the sake of addresses,
// and no multiple of a page.
constexpr int64_t BLOCK = 192, ROW = 208;

#include "words.inl"

// acc[i][:] += over the words k of a[i * AT + k * STEP] times b[k][:]
template <int64_t M, int64_t AT, int64_t STEP, class Acc, class Each>
ALWAYS_INLINE void multiply(const Word* __restrict a, const Word* __restrict b, int64_t words, Acc (&acc)[M][NV],
                            const Each& each) {
  for (int64_t k = 0; k < words; k++, a += STEP, b += NR) {
    Ints right[NV];
    UNROLL
    for (int64_t j = 0; j < NV; j++) right[j] = *(const Ints*)(b + j * VL);
    each(b);
    UNROLL
    for (int64_t i = 0; i < M; i++) {
      const Ints left = a[i * AT] - Ints{};
      UNROLL
      for (int64_t j = 0; j < NV; j++) acc[i][j] = dot(acc[i][j], left, right[j]);
    }
  }
}

// B: panels of [words][NR], then of each column its scale and the sum of its numbers.
size_t laid_out(int64_t n, int64_t depth) { return (size_t)(round_up(n, NR) * (words_of(depth) + (PAIRS ? 0 : 2))); }

void lay_out(const float* weight, int64_t n, int64_t depth, float* out) {
  const int64_t words = words_of(depth);
  float *scales = out + round_up(n, NR) * words, *sums = scales + round_up(n, NR);
  for (int64_t p = 0; p < n; p += NR, out += words * NR)
    for (int64_t j = 0; j < NR; j += VL) {
      // A few words of each row at a time, so that memory for it can be on the stack.
      const int64_t rows = larger(0, smaller(VL, n - p - j));
      Column columns[VL] = {};
      for (int64_t r = 0; r < rows; r++) columns[r] = column_of(weight + (p + j + r) * depth, depth);
      for (int64_t w = 0; w < words; w += VL) {
        Word block[VL * VL] = {};
        const int64_t here = smaller(VL, words - w);
        for (int64_t r = 0; r < rows; r++)
          narrow_column(weight + (p + j + r) * depth + w * PER_WORD, smaller(VL * PER_WORD, depth - w * PER_WORD),
                        columns[r], block + r * VL);
        Vec v[VL];
        for (int64_t r = 0; r < VL; r++) v[r] = load((const float*)(block + r * VL));
        transpose(v);
        for (int64_t k = 0; k < here; k++) store(out + (w + k) * NR + j, v[k]);
      }
      if constexpr (!PAIRS)
        for (int64_t r = 0; r < VL; r++) {
          scales[p + j + r] = columns[r].scale;
          sums[p + j + r] = columns[r].sum;
        }
    }
}

struct Tile {
  const Word *a, *b;
  int64_t words, block;  // of A, words between two blocks
  const Row* rows;
  const float *scales, *sums, *bias;
  float* c;
  int64_t ldc;
  const Word* ahead;  // what is fetched meanwhile, `step` for each word of the depth
  int64_t step;
};

// C tile of M rows; columns beyond n go to the caller's memory too, so it has room for NR.
template <int64_t M> __attribute__((noinline)) void gemm_tile(const Tile& t) {
  Sum acc[M][NV];
  UNROLL
  for (int64_t i = 0; i < M; i++) {
    UNROLL
    for (int64_t j = 0; j < NV; j++) acc[i][j] = begun(t.bias + j * VL);
  }
  const Word *a = t.a, *b = t.b, *ahead = t.ahead;
  for (int64_t left = t.words; left > 0; left -= BLOCK, a += t.block, b += BLOCK * NR)
    multiply<M, ROW, 1>(a, b, smaller(left, BLOCK), acc, [&](const Word* here) __attribute__((always_inline)) {
      UNROLL
      for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(here + 16 * NR + j);
      __builtin_prefetch(ahead, 0, 2);
      __builtin_prefetch(ahead + 16, 0, 2);
      ahead += t.step;
    });
  UNROLL
  for (int64_t i = 0; i < M; i++) {
    UNROLL
    for (int64_t j = 0; j < NV; j++)
      store(t.c + i * t.ldc + j * VL,
            scaled(acc[i][j], t.rows + i, t.scales + j * VL, t.sums + j * VL, t.bias + j * VL));
  }
}
constexpr float NO_BIAS[NR] = {};
typedef void (*GemmTile)(const Tile&);
constexpr GemmTile GEMM_TILES[] = {
    nullptr,       gemm_tile<1>,  gemm_tile<2>,  gemm_tile<3>,  gemm_tile<4>, gemm_tile<5>, gemm_tile<6>,
#if TILE_ROWS > 6
    gemm_tile<7>,  gemm_tile<8>,
#endif
#if TILE_ROWS > 8
    gemm_tile<9>,  gemm_tile<10>, gemm_tile<11>, gemm_tile<12>,
#endif
#if TILE_ROWS > 12
    gemm_tile<13>, gemm_tile<14>,
#endif
};

size_t gemm_scratch(int64_t m, int64_t depth) {
  return (size_t)(m * ROW * ceil_div(words_of(depth), BLOCK) + (PAIRS ? 0 : 2 * m) + 16);
}

void gemm(const Gemm& g, float* scratch) {
  const int64_t words = words_of(g.depth), blocks = ceil_div(words, BLOCK), tiles = ceil_div(g.m, MR);
  const float *scales = g.b + round_up(g.n, NR) * words, *sums = scales + round_up(g.n, NR);
  Word* a = (Word*)scratch;  // [blocks][m][ROW]
  Row* row_of = (Row*)(scratch + g.m * ROW * blocks);
  for (int64_t i = 0; i < g.m; i++) narrow_row(g.a + i * g.lda, g.depth, a + i * ROW, g.m * ROW, row_of + i);
  for (int64_t panel = g.panel_begin; panel < g.panel_end; panel++) {
    const Word* b = (const Word*)g.b + panel * words * NR;
    const Word* next = panel + 1 < g.panel_end ? b + words * NR : b;
    const int64_t column = panel * NR, n = smaller(NR, g.n - column);
    const float* bias = g.bias ? g.bias + column : NO_BIAS;
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t rows = (g.m - row) / (tiles - t);
      float edge[MR * NR];
      const bool direct = n == NR && !g.c16;
      float* c = direct ? g.c + row * g.ldc + column : edge;
      const int64_t ldc = direct ? g.ldc : NR;
      if (direct)
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(c + i * ldc + j, 1);
      GEMM_TILES[rows]({a + row * ROW, b, words, g.m * ROW, row_of + row, scales + column, sums + column, bias, c, ldc,
                        next + words * NR * t / tiles, NR / tiles});
      if (g.activation || g.residual)
        FINISH[g.activation](c, ldc, nullptr, g.residual ? g.residual + row * g.ldr + column : nullptr, g.ldr, rows, n);
      if (g.c16)
        for (int64_t i = 0; i < rows; i++) round_row(edge + i * NR, n, g.c16 + (row + i) * g.ldc + column);
      else if (!direct)
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < n; j += VL)
            store_up_to(g.c + (row + i) * g.ldc + column + j, load(edge + i * NR + j), n - j);
      row += rows;
    }
  }
}

#if NARROW == 16
#include "attention16.inl"
#endif

}  // namespace

extern "C" {
extern const Narrow TABLE;
#if NARROW == 16
const Narrow TABLE = {{NAME, NR, laid_out, lay_out, gemm_scratch, gemm}, attention_scratch, attention, round_row};
#else
const Narrow TABLE = {{NAME, NR, laid_out, lay_out, gemm_scratch, gemm}, nullptr, nullptr, nullptr};
#endif
}
