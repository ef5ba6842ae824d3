// Attention over sequences: how it is cut into jobs, and what each job is given. A part of ops.cpp.

namespace {

// How a kernel attends over what it is given: one of float, or one of bfloat16.
template <class T> struct Attending {
  size_t (*scratch)(int64_t rows, int64_t length, int64_t head_dim);
  void (*run)(const AttentionOf<T>&, float* scratch);
};

// Some queries of a head of a sequence.
struct Job {
  int32_t start, length, begin, end, head;
};

// What threads do of an attention, at most `most` queries each: the longest sequences go first, so that no thread is
// left with one at the end.
std::vector<Job> attention_jobs(const int32_t* cu, int64_t count, int64_t heads, int64_t most) {
  std::vector<int32_t> order((size_t)count);
  for (int64_t i = 0; i < count; i++) order[(size_t)i] = (int32_t)i;
  const auto length = [&](int32_t s) { return cu[s + 1] - cu[s]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return length(a) > length(b); });
  const int64_t enough = 4 * thread_count();
  std::vector<Job> jobs;
  for (int32_t s : order) {
    const int32_t n = length(s);
    if (!n) break;
    // Keys are laid out once a job: more than one block of queries only where jobs are few or the sequence long.
    const int64_t parts = std::max<int64_t>(
        ceil_div(n, most),
        count * heads < enough ? std::min<int64_t>(ceil_div(enough, count * heads), ceil_div(n, 64)) : 1);
    const int32_t rows = (int32_t)ceil_div(n, parts);
    for (int64_t h = 0; h < heads; h++)
      for (int32_t r = 0; r < n; r += rows) jobs.push_back({cu[s], n, r, std::min(n, r + rows), (int32_t)h});
  }
  return jobs;
}

// How heads share keys and values, and which tokens see each other.
struct Seen {
  int64_t kv_heads;  // of key and value each; they divide the query's
  int64_t window;    // keys with |i - j| <= window; negative: all
  bool causal;       // keys with j <= i alone
};

// bias [heads, 2 * bias_length - 1] is by distance: key - query is at place key - query + bias_length - 1.
template <class T>
int attend(const Attending<T>& how, const T* qkv, const int32_t* cu, int64_t count, int64_t total, int64_t heads,
           int64_t head_dim, float scale, const float* bias, int64_t bias_length, const Seen& seen, float* y) {
  if (!good_sequences(cu, count, total)) return BAD_SEQUENCES;
  const std::vector<Job> jobs = attention_jobs(cu, count, heads, 1024);
  if (bias && !jobs.empty() && jobs[0].length > bias_length) return BAD_SEQUENCES;
  const int64_t hidden = heads * head_dim, kv = seen.kv_heads * head_dim, group = heads / seen.kv_heads;
  parallel_for((int64_t)jobs.size(), [&](int64_t j) {
    const Job& job = jobs[(size_t)j];
    AttentionOf<T> a;
    a.stride = hidden + 2 * kv;
    const T* rows = qkv + job.start * a.stride;
    a.q = rows + job.head * head_dim;
    a.k = rows + hidden + job.head / group * head_dim;
    a.v = a.k + kv;
    a.out = y + job.start * hidden + job.head * head_dim;
    a.out_stride = hidden;
    a.bias = bias ? bias + job.head * (2 * bias_length - 1) + bias_length - 1 : nullptr;
    a.bias_step = -1;
    a.length = job.length;
    a.head_dim = head_dim;
    a.row_begin = job.begin;
    a.row_end = job.end;
    a.before = seen.window < 0 ? job.length : std::min<int64_t>(seen.window, job.length);
    a.after = seen.causal ? 0 : a.before;
    a.scale = scale;
    how.run(a, scratch(how.scratch(job.end - job.begin, job.length, head_dim)));
  });
  return OK;
}

// Rows of x [total, width], rounded to bfloat16.
struct Halved {
  std::unique_ptr<float, void (*)(float*)> memory;
  Halved(const float* x, int64_t total, int64_t width) : memory(allocate((size_t)(total * width + 1) / 2), release) {
    uint16_t* to = reinterpret_cast<uint16_t*>(memory.get());
    const int64_t rb = block_rows(total, std::max<int64_t>(1, 32768 / width));
    parallel_for(ceil_div(total, rb), [&](int64_t job) {
      const int64_t o = job * rb * width;
      halves->round(x + o, std::min(rb * width, total * width - o), to + o);
    });
  }
  const uint16_t* get() const { return reinterpret_cast<const uint16_t*>(memory.get()); }
};

Attending<float> attending() { return {kernels->attention_scratch, kernels->attention}; }
Attending<uint16_t> attending16() { return {halves->attention_scratch, halves->attention}; }

}  // namespace

// `narrow`: on bfloat16, to which qkv is rounded; where there are its products, and head_dim is even.
EXPORT int mlx_embed_attention(const float* qkv, const int32_t* cu, int64_t count, int64_t total, int64_t heads,
                               int64_t kv_heads, int64_t head_dim, float scale, const float* bias, int64_t bias_length,
                               int64_t window, int causal, int narrow, float* y) {
  return guarded([&] {
    const Seen seen = {kv_heads, window, causal != 0};
    if (!narrow) return attend(attending(), qkv, cu, count, total, heads, head_dim, scale, bias, bias_length, seen, y);
    const Halved halved(qkv, total, (heads + 2 * kv_heads) * head_dim);
    return attend<uint16_t>(attending16(), halved.get(), cu, count, total, heads, head_dim, scale, bias, bias_length,
                            seen, y);
  });
}
