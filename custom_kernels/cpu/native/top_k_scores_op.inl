// top_k_scores, cut into ranges of rows whose best are merged, and exact scores of some rows. The end of ops.cpp.

// `mask` has a bit a row, least significant first, of those that count; null: all. `scales`, one a row, may be null.
// out [n, 2, k]: the scores, best first, of equal ones the first row first; and the rows, as floats. Where there are
// fewer than k the rest is -infinity and -1.
EXPORT int mlx_embed_top_k_scores(const float* queries, int64_t n, const void* rows, int type, int64_t count,
                                  int64_t width, const uint8_t* mask, const float* scales, int64_t k, float* out) {
  return guarded([&] {
    // Several jobs a thread, so that none is left waiting; of many queries fewer, since each fills its own heaps.
    const int64_t wanted = thread_count() * (n > 8 ? 2 : 4);
    const int64_t step = std::max<int64_t>(1024, ceil_div(ceil_div(count, wanted), 64) * 64);
    const int64_t jobs = ceil_div(count, step), heap = n * k;
    std::vector<float> scores((size_t)(jobs * heap), -std::numeric_limits<float>::infinity());
    std::vector<int32_t> places((size_t)(jobs * heap), std::numeric_limits<int32_t>::max());
    parallel_for(jobs, [&](int64_t job) {
      const TopK t = {queries,
                      rows,
                      scales,
                      mask,
                      n,
                      width,
                      job * step,
                      std::min(count, (job + 1) * step),
                      k,
                      type,
                      scores.data() + job * heap,
                      places.data() + job * heap};
      kernels->top_k(t, scratch(kernels->top_k_scratch(width)));
    });
    parallel_for(n, [&](int64_t query) {
      std::vector<std::pair<float, int32_t>> all;
      all.reserve((size_t)(jobs * k));
      for (int64_t job = 0; job < jobs; job++)
        for (int64_t i = 0; i < k; i++) {
          const size_t at = (size_t)(job * heap + query * k + i);
          if (places[at] != std::numeric_limits<int32_t>::max()) all.push_back({scores[at], places[at]});
        }
      const int64_t kept = std::min<int64_t>(k, (int64_t)all.size());
      const auto better = [](const auto& a, const auto& b) {
        return a.first > b.first || (a.first == b.first && a.second < b.second);
      };
      std::partial_sort(all.begin(), all.begin() + kept, all.end(), better);
      float *best = out + query * 2 * k, *which = best + k;
      for (int64_t i = 0; i < k; i++) {
        best[i] = i < kept ? all[(size_t)i].first : -std::numeric_limits<float>::infinity();
        which[i] = i < kept ? (float)all[(size_t)i].second : -1.0f;
      }
    });
    return OK;
  });
}

// out[n, count]: of query i and row places[i, j], or -infinity where that is negative.
EXPORT int mlx_embed_inner_products(const float* queries, int64_t n, const float* rows, int64_t width,
                                    const int32_t* places, int64_t count, float* out) {
  return guarded([&] {
    const int64_t step = 256, total = n * count;
    parallel_for(ceil_div(total, step), [&](int64_t job) {
      for (int64_t i = job * step; i < std::min(total, (job + 1) * step); i++)
        out[i] = places[i] < 0 ? -std::numeric_limits<float>::infinity()
                               : (float)kernels->inner_product(queries + i / count * width,
                                                               rows + (int64_t)places[i] * width, width);
    });
    return OK;
  });
}
