// What DeBERTa's scores have of distances: products of rows with vectors that belong to how far a column is from the
// row. A part of kernels.inl and, on bfloat16, of narrow.inl.

#if defined(NARROW)
typedef uint16_t Input;  // of which rows are
typedef Word Number;     // what tiles multiply: two of them
constexpr int64_t PER_NUMBER = 2;
void lay_out_rows(const Input* x, int64_t stride, int64_t rows, int64_t depth, Number* out, int64_t width) {
  transpose_words(x, stride, rows, depth / 2, out, width);
}
void take(const float* x, int64_t n, Input* out) { round_row(x, n, out); }
#else
typedef float Input;
typedef float Number;
constexpr int64_t PER_NUMBER = 1;
void lay_out_rows(const Input* x, int64_t stride, int64_t rows, int64_t depth, Number* out, int64_t width) {
  transpose_rows(x, stride, rows, depth, 1.0f, out, width);
}
void take(const float* x, int64_t n, Input* out) { store(out, load_up_to(x, n)); }
#endif

// Rows of a result reach so far beyond both of their ends, in floats that are nothing.
constexpr int64_t MARGIN = NR + MR;
int64_t distances_pitch(int64_t columns) { return columns + 2 * MARGIN; }

// In floats, as all sizes.
size_t distances_laid_out(int64_t count, int64_t width) { return (size_t)(round_up(count, NR) * width / PER_NUMBER); }

// Rows of a table one after the other, in panels of NR columns: [panels][width / PER_NUMBER][NR].
void lay_out_distances(const float* table, int64_t stride, const int32_t* rows, int64_t count, int64_t width,
                       float* out) {
  constexpr int64_t COLUMNS = VL * PER_NUMBER;
  for (int64_t j = 0; j < round_up(count, NR); j += VL)
    for (int64_t c = 0; c < width; c += COLUMNS) {
      const int64_t there = smaller(COLUMNS, width - c);
      Input block[VL * COLUMNS] = {};
      for (int64_t r = 0; r < smaller(VL, count - j); r++)
        take(table + rows[j + r] * stride + c, there, block + r * COLUMNS);
      lay_out_rows(block, COLUMNS, VL, there, (Number*)out + (j / NR * NR * width + c * NR) / PER_NUMBER + j % NR, NR);
    }
}

template <int64_t M>
__attribute__((noinline)) void distance_tile(const Number* a, const Number* b, int64_t depth, float scale, float* out,
                                             int64_t step) {
  Vec acc[M][NV] = {};
  multiply<M, 1, M>(a, b, depth, acc, nothing);
  UNROLL
  for (int64_t i = 0; i < M; i++) {
    UNROLL
    for (int64_t v = 0; v < NV; v++) store(out + i * step + v * VL, acc[i][v] * scale);
  }
}
typedef void (*DistanceTile)(const Number*, const Number*, int64_t, float, float*, int64_t);
constexpr DistanceTile DISTANCE_TILES[] = {
    nullptr,           distance_tile<1>,  distance_tile<2>,  distance_tile<3>,
    distance_tile<4>,  distance_tile<5>,  distance_tile<6>,
#if TILE_ROWS > 6
    distance_tile<7>,  distance_tile<8>,
#endif
#if TILE_ROWS > 8
    distance_tile<9>,  distance_tile<10>, distance_tile<11>, distance_tile<12>,
#endif
#if TILE_ROWS > 12
    distance_tile<13>, distance_tile<14>,
#endif
};

// Some rows of x [.., stride], counted from `begin`, and some columns, counted from `first`.
struct Band {
  const Input* x;
  int64_t stride, depth, begin, rows, first, columns;
  float scale;
  const float* panels;
  int64_t zero;  // the place of distance 0
};

// out[r, c] = scale * x_r . (what is at c - r), rows `pitch` apart. `a` is room for the rows.
void by_distance(const Band& b, Number* a, float* out, int64_t pitch) {
  const int64_t tiles = ceil_div(b.rows, MR), depth = b.depth / PER_NUMBER;
  for (int64_t t = 0, row = 0; t < tiles; t++) {
    const int64_t m = (b.rows - row) / (tiles - t);
    lay_out_rows(b.x + (b.begin + row) * b.stride, b.stride, m, b.depth, a + row * depth, m);
    row += m;
  }
  const int64_t from = b.zero + b.first - b.begin;  // the first column's distance from the first row
  const int64_t lowest = (from - b.rows + 1) / NR * NR;
  for (int64_t x = lowest; x < from + b.columns; x += NR)
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      const int64_t m = (b.rows - row) / (tiles - t), column = x - from + row;
      if (column < b.columns && column + m - 1 + NR > 0)
        DISTANCE_TILES[m](a + row * depth, (const Number*)b.panels + x * depth, depth, b.scale,
                          out + row * pitch + column, pitch + 1);
      row += m;
    }
}

// to[i, j] = from[j, i], added to what is there where ADD. Both are as `by_distance` has made them.
template <bool ADD>
void transposed(const float* from, int64_t from_pitch, int64_t rows, int64_t columns, float* to, int64_t pitch) {
  for (int64_t i = 0; i < rows; i += VL)
    for (int64_t j = 0; j < columns; j += VL) {
      Vec v[VL];
      UNROLL
      for (int64_t r = 0; r < VL; r++) v[r] = load(from + smaller(j + r, columns - 1) * from_pitch + i);
      transpose(v);
      float* out = to + i * pitch + j;
      if (i + VL <= rows) {
        UNROLL
        for (int64_t r = 0; r < VL; r++) store(out + r * pitch, ADD ? v[r] + load(out + r * pitch) : v[r]);
        continue;
      }
      float edge[VL * VL];
      UNROLL
      for (int64_t r = 0; r < VL; r++) store(edge + r * VL, v[r]);
      for (int64_t r = 0; r < rows - i; r++)
        store(out + r * pitch, ADD ? load(edge + r * VL) + load(out + r * pitch) : load(edge + r * VL));
    }
}

size_t distances_scratch(int64_t rows, int64_t length, int64_t head_dim) {
  return (size_t)(rows * distances_pitch(length) + length * distances_pitch(rows) + length * head_dim + VL + MARGIN);
}

// Lets `a.bias` be what distances add to its scores, in scratch.
void distances(const Distances& d, AttentionOf<Input>& a, float* scratch) {
  const int64_t rows = a.row_end - a.row_begin, pitch = distances_pitch(a.length), turned_pitch = distances_pitch(rows);
  float *sums = scratch + MARGIN, *turned = sums + rows * pitch;
  Number* work = (Number*)(turned + a.length * turned_pitch);
  if (d.to_key)
    by_distance({a.q, a.stride, a.head_dim, a.row_begin, rows, 0, a.length, a.scale, d.to_key, d.zero}, work, sums,
                pitch);
  if (d.to_query) {
    by_distance({a.k, a.stride, a.head_dim, 0, a.length, a.row_begin, rows, a.scale, d.to_query, d.zero}, work, turned,
                turned_pitch);
    (d.to_key ? transposed<true> : transposed<false>)(turned, turned_pitch, rows, a.length, sums, pitch);
  }
  a.bias = sums - a.row_begin * pitch;
  a.bias_step = pitch;
}
