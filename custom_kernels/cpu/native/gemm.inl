// The matrix product with what follows it. A part of kernels.inl.

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
    nullptr,      gemm_tile<1>,  gemm_tile<2>,  gemm_tile<3>,  gemm_tile<4>,  gemm_tile<5>,  gemm_tile<6>,
#if TILE_ROWS > 6
    gemm_tile<7>, gemm_tile<8>,
#endif
#if TILE_ROWS > 8
    gemm_tile<9>, gemm_tile<10>, gemm_tile<11>, gemm_tile<12>, gemm_tile<13>, gemm_tile<14>,
#endif
};

void transpose_rows(const float* x, int64_t stride, int64_t rows, int64_t columns, float scale, float* out,
                    int64_t width) {
  transpose_any<true>(x, stride, rows, columns, scale, out, width);
}

size_t laid_out(int64_t n, int64_t depth) { return (size_t)(round_up(n, NR) * depth); }

void lay_out(const float* weight, int64_t n, int64_t depth, float* out) {
  for (int64_t p = 0; p < n; p += NR, out += depth * NR) {
    if (p + NR > n)
      for (int64_t i = 0; i < depth * NR; i++) out[i] = 0.0f;
    for (int64_t j = 0; j < smaller(NR, n - p); j += VL)
      transpose_rows(weight + (p + j) * depth, depth, smaller(VL, n - p - j), depth, 1.0f, out + j, NR);
  }
}

ALWAYS_INLINE bool few(int64_t rows) { return rows <= 3 * MR; }

size_t gemm_scratch(int64_t m, int64_t depth) {
  return (size_t)(m * (few(m) ? depth : smaller(depth, DEPTH_BLOCK)) + VL);
}

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
  const auto lay_out_a = [&](int64_t block, float* to) {
    const int64_t depth = depth_of(block);
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t rows = (g.m - row) / (tiles - t);
      transpose_rows(g.a + row * g.lda + block * DEPTH_BLOCK, g.lda, rows, depth, 1.0f, to + row * depth, rows);
      row += rows;
    }
  };
  if (b_once)
    for (int64_t block = 0; block < blocks; block++) lay_out_a(block, scratch + g.m * block * DEPTH_BLOCK);
  for (int64_t step = 0; step < steps; step++) {
    const int64_t block = b_once ? step % blocks : step / panels, panel = b_once ? step / blocks : step % panels;
    const int64_t next = smaller(step + 1, steps - 1);
    if (!b_once && panel == 0) lay_out_a(block, scratch);
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
