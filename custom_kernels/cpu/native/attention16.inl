// Attention of one head of one sequence on bfloat16: as in attention.inl, but that keys and queries are words of two
// dimensions, and values and weights words of two keys. Scores, their maxima and sums are float32. A part of
// narrow.inl.

#include "attention_rows.inl"

struct Block {
  const Word *keys, *values;  // [panels][head_dim / 2][NR] and [head_dim panels][count / 2][NR]
  int64_t begin, count;
  bool first, last;
};

ALWAYS_INLINE void nothing(const Word*) {}

void transpose_words(const uint16_t* x, int64_t stride, int64_t rows, int64_t columns, Word* out, int64_t width) {
  transpose_any<false>((const float*)x, stride / 2, rows, columns, 1.0f, (float*)out, width);
}

// 2^x for x <= 0, within 8e-5 of itself, which is less than bfloat16 tells apart.
ALWAYS_INLINE Vec short_power_of_two(Vec x) {
#if defined(__AVX512F__)
  x = vmax(splat(-200.0f), x);
  const Vec k = (Vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vec r = x - k;
  Vec p = splat(5.517169e-2f);
  p = p * r + 2.4261137e-1f;
  p = p * r + 6.93261e-1f;
  p = p * r + 9.9992806e-1f;
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)k);
#else
  return power_of_two(x);
#endif
}

template <int64_t M>
__attribute__((noinline)) void attention_tile(const Attention16& a, const Block& block, int64_t row, Word* q,
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
  const float scale = a.scale * LOG2_E;
  // Without a bias the maximum is that of the products, and scaling is a part of the exponential.
  const bool late = !a.bias && scale > 0;
  const float early = late ? 1.0f : scale;
  if (from < to) transpose_words(a.q + row * a.stride, a.stride, M, d / 2, q, M);
  for (int64_t j = from; j < to; j += NR) {
    Vec acc[M][NV] = {};
    multiply<M, 1, M>(q, block.keys + j * (d / 2), d / 2, acc, nothing);
    score<M>(a, acc, row, block.begin + j, to - j, late, early, strip + j, top);
  }
  const float by_now = late ? scale : 1.0f;
  Joined<M> joined;
  joined.by_maxima(top, by_now, block.first, maxima);
  for (int64_t i = 0; i < M; i++) {
    float* s = strip + i * STRIP;
    Word* weights = (Word*)s;  // which take the place of scores that have been read
    const Vec by = splat(joined.shift[i]);
    Vec t = {};
    for (int64_t j = from; j < to; j += 2 * VL) {
      const Vec first = short_power_of_two(load(s + j) * by_now - by);
      const Vec second = short_power_of_two(load(s + j + VL) * by_now - by);
      store((float*)(weights + j / 2), (Vec)pairs(first, second));
      t += first + second;
    }
    total[i] = t;
  }
  joined.by_sums(total, block.first, sums);
  const int64_t pairs_of_block = ceil_div(block.count, 2), pairs_here = ceil_div(larger(0, to - from), 2);
  for (int64_t p = 0; p < width; p += NR) {
    Vec acc[M][NV] = {};
    multiply<M, STRIP, 1>((const Word*)strip + from / 2, block.values + (p * pairs_of_block + from / 2 * NR),
                          pairs_here, acc, nothing);
    joined.put(a, block, row, p, acc, partial);
  }
}
typedef void (*AttentionTile)(const Attention16&, const Block&, int64_t, Word*, float*, float*, float*, float*);
constexpr AttentionTile ATTENTION_TILES[] = {
    nullptr,
    attention_tile<1>,
    attention_tile<2>,
    attention_tile<3>,
    attention_tile<4>,
    attention_tile<5>,
    attention_tile<6>,
    attention_tile<7>,
    attention_tile<8>,
    attention_tile<9>,
    attention_tile<10>,
    attention_tile<11>,
    attention_tile<12>,
#if TILE_ROWS > 12
    attention_tile<13>,
    attention_tile<14>,
#endif
};

size_t attention_scratch(int64_t rows, int64_t length, int64_t head_dim) {
  const int64_t keys = round_up(smaller(length, KEY_BLOCK), NR), width = round_up(head_dim, NR);
  const int64_t partial = length > KEY_BLOCK ? rows * width : 0;
  return (size_t)(keys * head_dim / 2 + VL * NR + keys / 2 * width + round_up(head_dim / 2 * MR + VL, 16) + MR * STRIP +
                  2 * round_up(rows, 16) + partial + 64);
}

// Values of two keys in one word each: [d panels][pairs][NR].
void lay_out_values(const Attention16& a, int64_t begin, int64_t count, Word* out) {
  const int64_t d = a.head_dim, width = round_up(d, NR), pairs_of_block = ceil_div(count, 2);
  typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
  for (int64_t j = 0; j < count; j += 2)
    for (int64_t c = 0; c < width; c += VL) {
      Halves both[2] = {};
      const size_t bytes = (size_t)larger(0, smaller(VL, d - c)) * 2;
      for (int64_t i = 0; i < smaller(2, count - j); i++) {
        const uint16_t* v = a.v + (begin + j + i) * a.stride + c;
        if (bytes == sizeof(Halves)) __builtin_memcpy(&both[i], v, sizeof(Halves));
        else __builtin_memcpy(&both[i], v, bytes);
      }
      const Ints words = __builtin_convertvector(both[0], Ints) | __builtin_convertvector(both[1], Ints) << 16;
      store((float*)(out + (c / NR * pairs_of_block + j / 2) * NR + c % NR), (Vec)words);
    }
}

void attention(const Attention16& a, float* scratch) {
  const int64_t d = a.head_dim, width = round_up(d, NR), rows = a.row_end - a.row_begin;
  const int64_t most = round_up(smaller(a.length, KEY_BLOCK), NR);
  Word* values = (Word*)scratch;
  Word* keys = values + most / 2 * width;
  float* strip = (float*)(keys + most * (d / 2) + VL * NR);
  Word* q = (Word*)(strip + MR * STRIP);
  float* maxima = (float*)(q + round_up(d / 2 * MR + VL, 16));
  float* sums = maxima + round_up(rows, 16);
  float* partial = sums + round_up(rows, 16);
  const int64_t begin = larger(0, a.row_begin - a.before) / KEY_BLOCK * KEY_BLOCK;
  const int64_t end = smaller(a.length, a.row_end + a.after);
  for (int64_t j0 = begin; j0 < end; j0 += KEY_BLOCK) {
    const int64_t count = smaller(KEY_BLOCK, end - j0);
    for (int64_t j = 0; j < count; j += VL)
      transpose_words(a.k + (j0 + j) * a.stride, a.stride, smaller(VL, count - j), d / 2,
                      keys + j / NR * NR * (d / 2) + j % NR, NR);
    lay_out_values(a, j0, count, values);
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
