// Attention of one head of one sequence. Keys go by in blocks of KEY_BLOCK; a running maximum, sum and output per query
// joins the blocks. A part of kernels.inl.

#include "attention_rows.inl"

struct Block {
  const float *keys, *values;  // [panels][head_dim][NR] and [head_dim panels][count][NR]
  int64_t begin, count;
  bool first, last;
};

template <int64_t M>
__attribute__((noinline)) void attention_tile(const Attention& a, const Block& block, int64_t row, float* q,
                                              float* strip, float* maxima, float* sums, float* partial) {
  constexpr int64_t GROUPS = Joined<M>::GROUPS;
  const int64_t d = a.head_dim, width = round_up(d, NR);
  // The keys that any of these rows sees, within the block.
  const int64_t from = larger(0, row - a.before - block.begin) / NR * NR;
  const int64_t to = smaller(block.count, row + M + a.after - block.begin);
  Vec top[GROUPS * VL], total[GROUPS * VL];
  for (int64_t i = 0; i < GROUPS * VL; i++) {
    top[i] = splat(-__builtin_inff());
    total[i] = Vec{};
  }
  if (from < to) transpose_rows(a.q + row * a.stride, a.stride, M, d, a.scale * LOG2_E, q, M);
  for (int64_t j = from; j < to; j += NR) {
    Vec acc[M][NV] = {};
    multiply<M, 1, M>(q, block.keys + j * d, d, acc, nothing);
    score<M>(a, acc, row, block.begin + j, to - j, !a.bias, 1.0f, strip + j, top);
  }
  Joined<M> joined;
  joined.by_maxima(top, 1.0f, block.first, maxima);
  for (int64_t i = 0; i < M; i++) {
    float* s = strip + i * STRIP;
    const Vec by = splat(joined.shift[i]);
    Vec t = {};
    for (int64_t j = from; j < to; j += VL) {
      const Vec e = power_of_two(load(s + j) - by);
      store(s + j, e);
      t += e;
    }
    total[i] = t;
  }
  joined.by_sums(total, block.first, sums);
  for (int64_t p = 0; p < width; p += NR) {
    Vec acc[M][NV] = {};
    multiply<M, STRIP, 1>(strip + from, block.values + (p * block.count + from * NR), larger(0, to - from), acc,
                          nothing);
    joined.put(a, block, row, p, acc, partial);
  }
}
typedef void (*AttentionTile)(const Attention&, const Block&, int64_t, float*, float*, float*, float*, float*);
constexpr AttentionTile ATTENTION_TILES[] = {
    nullptr,
    attention_tile<1>,
    attention_tile<2>,
    attention_tile<3>,
    attention_tile<4>,
    attention_tile<5>,
    attention_tile<6>,
#if TILE_ROWS > 6
    attention_tile<7>,
    attention_tile<8>,
#endif
#if TILE_ROWS > 8
    attention_tile<9>,
    attention_tile<10>,
    attention_tile<11>,
    attention_tile<12>,
    attention_tile<13>,
    attention_tile<14>,
#endif
};

size_t attention_scratch(int64_t rows, int64_t length, int64_t head_dim) {
  const int64_t keys = round_up(smaller(length, KEY_BLOCK), NR), width = round_up(head_dim, NR);
  const int64_t partial = length > KEY_BLOCK ? rows * width : 0;
  return (size_t)(keys * head_dim + VL * NR + keys * width + round_up(head_dim * MR + VL, 16) + MR * STRIP +
                  2 * round_up(rows, 16) + partial + 64);
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
  const int64_t begin = larger(0, a.row_begin - a.before) / KEY_BLOCK * KEY_BLOCK;
  const int64_t end = smaller(a.length, a.row_end + a.after);
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
