// Products of numbers narrower than float, on instructions that add the products of all numbers of a 32-bit word: pairs
// of bfloat16, or quads of bytes. Compiled once an instruction set, as kernels.inl is and under the same rules. The
// including file defines LANES, TILE_ROWS, TILE_VECTORS, TABLE, NAME, NARROW, the bits of a number: 16 or 8, and GROUP,
// how many rows of A and words of the depth an instruction takes at once: 1, 2 or 16. Where it defines ATTENTION, there
// is attention too.
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
// Of two rows that go together two words each take turns, and so do those of columns of B.
ALWAYS_INLINE int64_t begin_of(int64_t row) { return GROUP == 2 ? row / 2 * 2 * ROW + row % 2 * 2 : row * ROW; }

#include "words.inl"

// B: panels of [words][NR], or of [words / 2][NR][2], then of each column its scale and the sum of its numbers.
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
        for (int64_t r = 0; r < rows; r++)
          narrow_column(weight + (p + j + r) * depth + w * PER_WORD, smaller(VL * PER_WORD, depth - w * PER_WORD),
                        columns[r], block + r * VL);
        Vec v[VL];
        for (int64_t r = 0; r < VL; r++) v[r] = load((const float*)(block + r * VL));
        transpose(v);
        put_columns(v, smaller(VL, words - w), j, out + w * NR);
      }
      if constexpr (!PAIRS)
        for (int64_t r = 0; r < VL; r++) {
          scales[p + j + r] = columns[r].scale;
          sums[p + j + r] = columns[r].sum;
        }
    }
}

// A tile of C: some rows, at most MR, and NR columns, of which those beyond n go to the caller's memory too.
struct Tile {
  int64_t count;  // of rows
  const Word *a, *b;
  int64_t words, block;  // of A, words between two blocks
  const Row* rows;
  const float *scales, *sums, *bias;
  float* c;
  int64_t ldc;
  const Word* ahead;  // what is fetched meanwhile, `step` for each word of the depth
  int64_t step;
};
#if GROUP == 1
#include "dots.inl"
#elif GROUP == 2
#include "blocks.inl"
#else
#include "tiles.inl"
#endif
#if GROUP != 16
struct Ready {};
#endif
constexpr float NO_BIAS[NR] = {};

size_t gemm_scratch(int64_t m, int64_t depth) {
  return (size_t)(round_up(m, GROUP) * ROW * ceil_div(words_of(depth), BLOCK) + (PAIRS ? 0 : 2 * m) + 16);
}

void gemm(const Gemm& g, float* scratch) {
  const int64_t words = words_of(g.depth), blocks = ceil_div(words, BLOCK), tiles = ceil_div(g.m, MR);
  const float *scales = g.b + round_up(g.n, NR) * words, *sums = scales + round_up(g.n, NR);
  const int64_t block = round_up(g.m, GROUP) * ROW;
  Word* a = (Word*)scratch;  // [blocks][m][ROW]
  Row* row_of = (Row*)(scratch + block * blocks);
  for (int64_t i = 0; i < g.m; i++) narrow_row(g.a + i * g.lda, g.columns, g.depth, a + begin_of(i), block, row_of + i);
  [[maybe_unused]] const Ready ready = {};
  for (int64_t panel = g.panel_begin; panel < g.panel_end; panel++) {
    const Word* b = (const Word*)g.b + panel * words * NR;
    const Word* next = panel + 1 < g.panel_end ? b + words * NR : b;
    const int64_t column = panel * NR, n = smaller(NR, g.n - column);
    const float* bias = g.bias ? g.bias + column : NO_BIAS;
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t rows = GROUP == 1 ? (g.m - row) / (tiles - t) : smaller(MR, g.m - row);
      float edge[MR * NR];
      const bool direct = n == NR && !g.c16;
      float* c = direct ? g.c + row * g.ldc + column : edge;
      const int64_t ldc = direct ? g.ldc : NR;
      if (direct)
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < NR; j += 16) __builtin_prefetch(c + i * ldc + j, 1);
      GEMM_TILES[ceil_div(rows, GROUP)]({rows, a + row * ROW, b, words, block, row_of + row, scales + column,
                                         sums + column, bias, c, ldc, next + words * NR * t / tiles, NR / tiles});
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

#if defined(ATTENTION)
#include "attention16.inl"
#include "distances.inl"
#endif

}  // namespace

extern "C" {
extern const Product TABLE;
const Product TABLE = {NAME, NR, laid_out, lay_out, gemm_scratch, gemm};
#if defined(ATTENTION)
extern const Halves ATTENTION;
const Halves ATTENTION = {
    attention_scratch, attention, round_row, {distances_laid_out, lay_out_distances, distances_scratch, distances}};
#endif
}
