// What models of other kinds than a vector a text have: rows of a table averaged, and each sequence's greatest
// products. A part of ops.cpp.

// A token's row is mapping[id], or id itself without a mapping; a negative one is passed over, and not counted.
EXPORT int mlx_embed_gather_mean(const void* table, int type, int64_t rows, int64_t width, const int32_t* mapping,
                                 const float* weights, int64_t vocabulary, const int32_t* ids, const int32_t* cu,
                                 int64_t count, int64_t total, float* y) {
  return guarded([&] {
    if (!good_sequences(cu, count, total)) return BAD_SEQUENCES;
    for (int64_t i = 0; i < total; i++)
      if (ids[i] < 0 || ids[i] >= vocabulary || (mapping ? mapping[ids[i]] : ids[i]) >= rows) return BAD_IDS;
    const int64_t sequences = std::max<int64_t>(1, count / (8 * thread_count()));
    parallel_for(ceil_div(count, sequences), [&](int64_t job) {
      for (int64_t s = job * sequences; s < std::min(count, (job + 1) * sequences); s++) {
        const int64_t length = cu[s + 1] - cu[s];
        float* share = scratch((size_t)(2 * length));
        int32_t* row = reinterpret_cast<int32_t*>(share + length);
        int64_t kept = 0;
        for (int64_t i = cu[s]; i < cu[s + 1]; i++) {
          row[kept] = mapping ? mapping[ids[i]] : ids[i];
          share[kept] = weights ? weights[ids[i]] : 1.0f;
          kept += row[kept] >= 0;
        }
        kernels->gather_mean(table, type, row, weights ? share : nullptr, kept, width, y + s * width);
      }
    });
    return OK;
  });
}

// y[count, n] = the greatest of x W + bias over each sequence's rows; -infinity for a sequence without any. The
// products of all rows are never there at once: a job makes those of some columns, and of a block of rows at a time.
EXPORT int mlx_embed_linear_max(const float* x, const int32_t* cu, int64_t count, int64_t total, const void* layer,
                                float* y) {
  return guarded([&] {
    if (!good_sequences(cu, count, total)) return BAD_SEQUENCES;
    const LaidOut& w = *static_cast<const LaidOut*>(layer);
    constexpr int64_t COLUMNS = 256, ROWS = 1024;
    const int64_t panels = w.panels(), most = std::max<int64_t>(1, COLUMNS / w.product->panel);
    const int64_t pb = std::min(most, ceil_div(panels, thread_count())), np = ceil_div(panels, pb);
    // Whole sequences, of about as many rows; more groups only as far as all threads need them.
    const int64_t enough = std::max<int64_t>(MOST_ROWS, std::min<int64_t>(ROWS, ceil_div(total, 4 * thread_count())));
    std::vector<int64_t> groups = {0};
    for (int64_t s = 0; s < count; s++)
      if (cu[s + 1] - cu[groups.back()] >= enough || s + 1 == count) groups.push_back(s + 1);
    const int64_t ng = (int64_t)groups.size() - 1;
    parallel_for(np * ng, [&](int64_t job) {
      const int64_t panel = job / ng * pb, first = groups[(size_t)(job % ng)], last = groups[(size_t)(job % ng) + 1];
      const int64_t panel_end = std::min(panel + pb, panels), column = panel * w.product->panel;
      const int64_t width = std::min(panel_end * w.product->panel, w.n) - column;
      const size_t work = (w.product->scratch(MOST_ROWS, w.depth) + 15) / 16 * 16;
      float *gemm = scratch(work + (size_t)(MOST_ROWS * width)), *block = gemm + work;
      for (int64_t s = first; s < last; s++) std::fill_n(y + s * w.n + column, width, -INFINITY);
      int64_t s = first;
      for (int64_t row = cu[first], rows; row < cu[last]; row += rows) {
        rows = std::min(MOST_ROWS, cu[last] - row);
        Gemm g = product(x + row * w.depth, rows, w, block - column);
        g.ldc = width;
        g.panel_begin = panel;
        g.panel_end = panel_end;
        run(g, w, gemm);
        for (int64_t i = 0; i < rows;) {
          while (cu[s + 1] <= row + i) s++;
          const int64_t here = std::min(rows, cu[s + 1] - row) - i;
          kernels->greatest(block + i * width, here, width, y + s * w.n + column);
          i += here;
        }
      }
    });
    return OK;
  });
}
