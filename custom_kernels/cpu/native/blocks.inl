// Tiles of C by blocks of 2 x 2: an instruction takes two words of two rows of A and of two columns of B. A part of
// narrow.inl.

// P pairs of rows of C; a vector of sums has the first row's two columns and then the second's.
template <int64_t P> __attribute__((noinline)) void gemm_tile(const Tile& t) {
  Sum acc[P][2 * NV];
  UNROLL
  for (int64_t j = 0; j < NV; j++) {
    const Sum bias = begun(t.bias + j * VL);
    UNROLL
    for (int64_t i = 0; i < P; i++) {
      acc[i][2 * j] = SHUFFLE(bias, bias, 0, 1, 0, 1);
      acc[i][2 * j + 1] = SHUFFLE(bias, bias, 2, 3, 2, 3);
    }
  }
  const Word *a = t.a, *b = t.b, *ahead = t.ahead;
  for (int64_t left = t.words; left > 0; left -= BLOCK, a += t.block) {
    const Word* here = a;
    for (int64_t k = 0; k < smaller(left, BLOCK); k += 2, here += 4, b += 2 * NR) {
      Ints rows[P];
      UNROLL
      for (int64_t i = 0; i < P; i++) rows[i] = *(const Ints*)(here + i * 2 * ROW);
      UNROLL
      for (int64_t j = 0; j < 2 * NV; j++) {
        const Ints columns = *(const Ints*)(b + j * VL);
        UNROLL
        for (int64_t i = 0; i < P; i++) acc[i][j] = block(acc[i][j], rows[i], columns);
      }
      __builtin_prefetch(ahead, 0, 2);
      ahead += 2 * t.step;
    }
  }
  UNROLL
  for (int64_t i = 0; i < P; i++) {
    UNROLL
    for (int64_t j = 0; j < NV; j++) {
      const Sum one = acc[i][2 * j], other = acc[i][2 * j + 1];
      const Sum both[] = {SHUFFLE(one, other, 0, 1, 4, 5), SHUFFLE(one, other, 2, 3, 6, 7)};
      for (int64_t r = 2 * i; r < smaller(t.count, 2 * i + 2); r++)
        store(t.c + r * t.ldc + j * VL,
              scaled(both[r % 2], t.rows + r, t.scales + j * VL, t.sums + j * VL, t.bias + j * VL));
    }
  }
}
typedef void (*GemmTile)(const Tile&);
constexpr GemmTile GEMM_TILES[] = {nullptr, gemm_tile<1>, gemm_tile<2>, gemm_tile<3>, gemm_tile<4>};
