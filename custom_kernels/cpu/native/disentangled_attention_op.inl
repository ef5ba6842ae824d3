// DeBERTa's attention, whose scores depend on content and distance together. A part of ops.cpp.

namespace {

// What scores have of distances: rows of P for queries and of R for keys, each as wide as all heads; either may be
// null. Which one a distance has is rows[longest + distance], from -longest to longest.
struct ByDistance {
  const float *to_key, *to_query;
  int64_t table_rows;
  const int32_t* rows;
  int64_t longest;
};

template <class T>
int disentangle(const Attending<T>& how, const DistancesOf<T>& by, const T* qkv, const int32_t* cu, int64_t count,
                int64_t total, int64_t heads, int64_t head_dim, float scale, const ByDistance& d, float* y) {
  if (!good_sequences(cu, count, total)) return BAD_SEQUENCES;
  for (int64_t i = 0; i < 2 * d.longest + 1; i++)
    if (d.rows[i] < 0 || d.rows[i] >= d.table_rows) return BAD_IDS;
  // A sequence's scores by distance take room, of which a core's cache should hold some.
  const std::vector<Job> jobs = attention_jobs(cu, count, heads, 128);
  if (jobs.empty()) return OK;
  const int64_t length = jobs[0].length, places = 2 * length - 1, hidden = heads * head_dim;
  if (length > d.longest) return BAD_SEQUENCES;
  // Of distances as far as there are, query - key, and key - query.
  std::vector<int32_t> ahead((size_t)places), behind((size_t)places);
  for (int64_t i = 0; i < places; i++) {
    ahead[(size_t)i] = d.rows[d.longest + i - (length - 1)];
    behind[(size_t)(places - 1 - i)] = ahead[(size_t)i];
  }
  const int64_t floats = ceil_div((int64_t)by.laid_out(places, head_dim), 16) * 16;
  const std::unique_ptr<float, void (*)(float*)> memory(allocate((size_t)(2 * heads * floats)), release);
  parallel_for(heads, [&](int64_t h) {
    float* panels = memory.get() + 2 * h * floats;
    if (d.to_key) by.lay_out(d.to_key + h * head_dim, hidden, behind.data(), places, head_dim, panels);
    if (d.to_query) by.lay_out(d.to_query + h * head_dim, hidden, ahead.data(), places, head_dim, panels + floats);
  });
  parallel_for((int64_t)jobs.size(), [&](int64_t j) {
    const Job& job = jobs[(size_t)j];
    const float* panels = memory.get() + 2 * job.head * floats;
    AttentionOf<T> a = {};
    a.q = qkv + job.start * 3 * hidden + job.head * head_dim;
    a.k = a.q + hidden;
    a.v = a.k + hidden;
    a.out = y + job.start * hidden + job.head * head_dim;
    a.stride = 3 * hidden;
    a.out_stride = hidden;
    a.length = a.before = a.after = job.length;
    a.head_dim = head_dim;
    a.row_begin = job.begin;
    a.row_end = job.end;
    a.scale = scale;
    const size_t attention = how.scratch(job.end - job.begin, job.length, head_dim);
    float* work = scratch(attention + by.scratch(job.end - job.begin, job.length, head_dim));
    by.add({d.to_key ? panels : nullptr, d.to_query ? panels + floats : nullptr, length - 1}, a, work + attention);
    how.run(a, work);
  });
  return OK;
}

}  // namespace

// softmax(scale * (q_i k_j + q_i P_(i - j) + k_j R_(i - j))) V. `narrow` is as of mlx_embed_attention.
EXPORT int mlx_embed_disentangled_attention(const float* qkv, const int32_t* cu, int64_t count, int64_t total,
                                            int64_t heads, int64_t head_dim, float scale, const float* to_key,
                                            const float* to_query, int64_t table_rows, const int32_t* rows,
                                            int64_t longest, int narrow, float* y) {
  return guarded([&] {
    const ByDistance d = {to_key, to_query, table_rows, rows, longest};
    if (!narrow)
      return disentangle(attending(), kernels->distances, qkv, cu, count, total, heads, head_dim, scale, d, y);
    const Halved halved(qkv, total, 3 * heads * head_dim);
    return disentangle<uint16_t>(attending16(), halves->distances, halved.get(), cu, count, total, heads, head_dim,
                                 scale, d, y);
  });
}
