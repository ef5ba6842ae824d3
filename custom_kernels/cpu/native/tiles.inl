// Tiles of C by the tile registers of AMX: an instruction takes 16 words of 16 rows of A and of 16 columns of B. A part
// of narrow.inl.

constexpr int64_t LINES = 16;

// How all eight registers are laid out: 16 rows of 64 bytes each.
struct alignas(64) Layout {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {LINES, LINES, LINES, LINES, LINES, LINES, LINES, LINES};
};
constexpr Layout LAYOUT = {};
// The registers are this package's from here to its end: other libraries lay them out anew before they use them.
struct Ready {
  Ready() { _tile_loadconfig(&LAYOUT); }
  ~Ready() { _tile_release(); }
};

// Registers 0 to 3 are sums, 4 and 5 two groups of rows of A, 6 and 7 two of columns of B.
#if NARROW == 16
#define BEGUN(sums, bias) _tile_loadd(sums, bias, 0)  // in each row
#define MULTIPLY(sums, left, right) _tile_dpbf16ps(sums, left, right)
#else
#define BEGUN(sums, bias) _tile_zero(sums)
#define MULTIPLY(sums, left, right) _tile_dpbusd(sums, left, right)
#endif

// One group of rows of C, or two. Rows of A beyond t.count are whatever their memory holds, and so are their sums.
template <int64_t G> __attribute__((noinline)) void gemm_tile(const Tile& t) {
  // GCC's loads of a tile do not tell it that they read memory.
  __asm__ volatile("" ::: "memory");
  BEGUN(0, t.bias);
  BEGUN(1, t.bias + LINES);
  if constexpr (G == 2) {
    BEGUN(2, t.bias);
    BEGUN(3, t.bias + LINES);
  }
  const Word *a = t.a, *b = t.b, *ahead = t.ahead;
  for (int64_t left = t.words; left > 0; left -= BLOCK, a += t.block) {
    for (int64_t k = 0; k < smaller(left, BLOCK); k += LINES, b += LINES * NR) {
      _tile_loadd(4, a + k, ROW * 4);
      _tile_loadd(6, b, NR * 4);
      _tile_loadd(7, b + LINES, NR * 4);
      MULTIPLY(0, 4, 6);
      MULTIPLY(1, 4, 7);
      if constexpr (G == 2) {
        _tile_loadd(5, a + LINES * ROW + k, ROW * 4);
        MULTIPLY(2, 5, 6);
        MULTIPLY(3, 5, 7);
      }
      for (int64_t line = 0; line < t.step; line++) __builtin_prefetch(ahead + line * 16, 0, 2);
      ahead += LINES * t.step;
    }
  }
  alignas(64) Word sums[2 * LINES * NR];
  _tile_stored(0, sums, NR * 4);
  _tile_stored(1, sums + LINES, NR * 4);
  if constexpr (G == 2) {
    _tile_stored(2, sums + LINES * NR, NR * 4);
    _tile_stored(3, sums + LINES * NR + LINES, NR * 4);
  }
  for (int64_t i = 0; i < t.count; i++) {
    UNROLL
    for (int64_t j = 0; j < NR; j += VL)
      store(t.c + i * t.ldc + j,
            scaled(*(const Sum*)(sums + i * NR + j), t.rows + i, t.scales + j, t.sums + j, t.bias + j));
  }
}
typedef void (*GemmTile)(const Tile&);
constexpr GemmTile GEMM_TILES[] = {nullptr, gemm_tile<1>, gemm_tile<2>};
