// DeBERTa's attention, whose scores depend on content and distance together. A part of ops.cpp.

// softmax(scale * (q_i k_j + q_i P_(i - j) + k_j R_(i - j))) V. `to_key` has rows of P, and `to_query` of R, each row
// as wide as all heads; either may be null. Which one a distance has is rows[L + distance], from -L to L.
EXPORT int mlx_embed_disentangled_attention(const float* qkv, const int32_t* cu, int64_t count, int64_t total,
                                            int64_t heads, int64_t head_dim, float scale, const float* to_key,
                                            const float* to_query, int64_t table_rows, const int32_t* rows,
                                            int64_t longest, float* y) {
  return guarded([&] {
    if (!good_sequences(cu, count, total)) return BAD_SEQUENCES;
    for (int64_t i = 0; i < 2 * longest + 1; i++)
      if (rows[i] < 0 || rows[i] >= table_rows) return BAD_IDS;
    // A sequence's scores by distance take room, of which a core's cache should hold some.
    const std::vector<Job> jobs = attention_jobs(cu, count, heads, 128);
    if (jobs.empty()) return OK;
    const int64_t length = jobs[0].length, places = 2 * length - 1, hidden = heads * head_dim;
    if (length > longest) return BAD_SEQUENCES;
    // Of distances as far as there are, key - query, and query - key.
    std::vector<int32_t> behind((size_t)places), ahead((size_t)places);
    for (int64_t i = 0; i < places; i++) {
      ahead[(size_t)i] = rows[longest + i - (length - 1)];
      behind[(size_t)(places - 1 - i)] = ahead[(size_t)i];
    }
    const int64_t panel = kernels->product.panel, floats = ceil_div(places, panel) * panel * head_dim;
    const std::unique_ptr<float, void (*)(float*)> memory(allocate((size_t)(2 * heads * floats)), release);
    parallel_for(heads, [&](int64_t h) {
      float* panels = memory.get() + 2 * h * floats;
      if (to_key) kernels->lay_out_distances(to_key + h * head_dim, hidden, behind.data(), places, head_dim, panels);
      if (to_query)
        kernels->lay_out_distances(to_query + h * head_dim, hidden, ahead.data(), places, head_dim, panels + floats);
    });
    parallel_for((int64_t)jobs.size(), [&](int64_t j) {
      const Job& job = jobs[(size_t)j];
      const float *q = qkv + job.start * 3 * hidden + job.head * head_dim,
                  *panels = memory.get() + 2 * job.head * floats;
      Attention a = {};
      a.q = q;
      a.k = q + hidden;
      a.v = q + 2 * hidden;
      a.out = y + job.start * hidden + job.head * head_dim;
      a.stride = 3 * hidden;
      a.out_stride = hidden;
      a.length = a.before = a.after = job.length;
      a.head_dim = head_dim;
      a.row_begin = job.begin;
      a.row_end = job.end;
      a.scale = scale;
      const size_t attention = kernels->attention_scratch(job.end - job.begin, job.length, head_dim);
      float* work = scratch(attention + kernels->distances_scratch(job.end - job.begin, job.length, head_dim));
      kernels->distances({to_key ? panels : nullptr, to_query ? panels + floats : nullptr, length - 1}, a,
                         work + attention);
      kernels->attention(a, work);
    });
    return OK;
  });
}
