// Tiles of C by one vector of B at a time: each lane adds the products of a word of A and one of B. A part of
// narrow.inl.

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
