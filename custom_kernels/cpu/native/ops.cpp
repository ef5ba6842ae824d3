// The ops behind a plain C interface: how each is cut into jobs, and what memory the jobs use. Arguments come checked
// by the Python functions, except what needs a pass over the data. Every function returns 0, or one of the codes below.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "choose.h"
#include "kernels.h"
#include "threads.h"

#ifndef SOURCE_HASH
#define SOURCE_HASH ""
#endif

namespace {

enum Status { OK = 0, NO_MEMORY = 1, BAD_SEQUENCES = 2, BAD_IDS = 3 };

Chosen chosen = {&mlx_embed_baseline, {}, nullptr};
const Kernels* kernels = chosen.kernels;
// The last that were chosen: what was laid out for them before stays as it is.
const Halves* halves = nullptr;

bool by_sgemm = false;

const Product* product_of(int kind) {
  if (kind == FLOAT32) return by_sgemm ? &kernels->by_sgemm : &kernels->product;
  return kind > 0 && kind < KINDS ? chosen.narrow[kind] : nullptr;
}

// A linear layer's weight as the products of its kind read it, its bias, and what columns of x are multiplied by.
struct LaidOut {
  int64_t n, depth;
  const Product* product;
  std::shared_ptr<float> weight, bias, columns;
  float* greatest = nullptr;  // of the columns of what it multiplies, while they are watched
  int64_t panels() const { return (n + product->panel - 1) / product->panel; }
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Row blocks are as equal as they can be; `most` bounds them by what should stay in a core's cache.
int64_t block_rows(int64_t rows, int64_t most) {
  const int64_t threads = thread_count();
  const int64_t blocks = ceil_div(ceil_div(rows, most), threads) * threads;
  return blocks ? ceil_div(rows, blocks) : 1;
}
// Below this many rows a thread, products are cut by columns too, so that weights are read once.
bool few(int64_t rows) { return rows < 24 * thread_count(); }
constexpr int64_t MOST_ROWS = 112;
constexpr int64_t CACHE_FLOATS = 144 * 1024;

Gemm product(const float* x, int64_t rows, const LaidOut& w, float* y) {
  Gemm g = {};
  g.a = x, g.b = w.weight.get(), g.bias = w.bias.get(), g.columns = w.columns.get(), g.c = y;
  g.lda = g.depth = w.depth, g.ldc = g.n = w.n, g.m = rows;
  g.panel_end = w.panels();
  return g;
}

void watch(const Gemm& g, float* greatest) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  for (int64_t i = 0; i < g.m; i++)
    for (int64_t j = 0; j < g.depth; j++) greatest[j] = std::max(greatest[j], fabsf(g.a[i * g.lda + j]));
}
void run(const Gemm& g, const LaidOut& w, float* work) {
  if (w.greatest) watch(g, w.greatest);
  w.product->gemm(g, work);
}
void run(const Gemm& g, const LaidOut& w) { run(g, w, scratch(w.product->scratch(g.m, g.depth))); }

// y, or y16 of a narrow layer, is [rows, n].
void linear(const float* x, int64_t rows, const LaidOut& w, int activation, const float* residual, float* y,
            uint16_t* y16 = nullptr) {
  const int64_t panels = w.panels(), threads = thread_count();
  int64_t mb = block_rows(rows, MOST_ROWS), pb = panels;
  if (few(rows)) {
    mb = std::clamp<int64_t>(rows, 1, MOST_ROWS);
    pb = ceil_div(panels, threads);
  }
  const int64_t nm = ceil_div(rows, mb), np = ceil_div(panels, pb);
  parallel_for(nm * np, [&](int64_t job) {
    const int64_t row = job / np * mb, panel = job % np * pb;
    Gemm g = product(x + row * w.depth, std::min(mb, rows - row), w, y ? y + row * w.n : nullptr);
    g.c16 = y16 ? y16 + row * w.n : nullptr;
    g.panel_begin = panel;
    g.panel_end = std::min(panel + pb, panels);
    g.activation = activation;
    g.residual = residual ? residual + row * w.n : nullptr;
    g.ldr = w.n;
    run(g, w);
  });
}

struct Norm {
  const float *weight, *bias;
  float eps;
};

void layer_norm(const float* x, const float* residual, const Norm& norm, int64_t rows, int64_t width, float* y) {
  const int64_t rb = block_rows(rows, std::max<int64_t>(1, 32768 / width));
  parallel_for(ceil_div(rows, rb), [&](int64_t job) {
    const int64_t o = job * rb * width;
    kernels->layer_norm(x + o, residual ? residual + o : nullptr, norm.weight, norm.bias, norm.eps,
                        std::min(rb, rows - job * rb), width, y + o);
  });
}

bool good_sequences(const int32_t* cu, int64_t count, int64_t total) {
  if (cu[0] != 0 || cu[count] != total) return false;
  for (int64_t i = 0; i < count; i++)
    if (cu[i + 1] < cu[i]) return false;
  return true;
}

template <class F> int guarded(const F& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  }
}

}  // namespace

Sgemm mlx_embed_sgemm = nullptr;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char* mlx_embed_source_hash() { return SOURCE_HASH; }
// `most`: "" for the best that the processor has, a name of `choose` for less. Returns what float32 runs on. Layers
// that were laid out before stay as they are, of what was chosen then.
EXPORT const char* mlx_embed_choose(const char* most) {
  chosen = choose(most);
  kernels = chosen.kernels;
  if (chosen.halves) halves = chosen.halves;
  return kernels->product.name;
}
// Let float32 layers that are laid out from now on be multiplied by this cblas_sgemm, or by the kernels where it is
// null. Layers that were laid out before stay as they are. Not while others lay out.
EXPORT void mlx_embed_multiply_by(void* sgemm) {
  by_sgemm = sgemm;
  if (sgemm) mlx_embed_sgemm = reinterpret_cast<Sgemm>(sgemm);
}
// What products of a kind run on, or "" where they do not.
EXPORT const char* mlx_embed_product(int kind) {
  const Product* product = product_of(kind);
  return product ? product->name : "";
}
// Whether there is attention on a kind, which need not be where its products are.
EXPORT int mlx_embed_attends(int kind) { return kind == FLOAT32 || (kind == BFLOAT16 && chosen.halves); }
EXPORT int64_t mlx_embed_threads() { return thread_count(); }
EXPORT void mlx_embed_set_threads(int64_t count) { set_thread_count(count); }

EXPORT float* mlx_embed_allocate(int64_t floats) {
  try {
    return allocate((size_t)floats);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
EXPORT void mlx_embed_release(float* block) { release(block); }
EXPORT void mlx_embed_trim() { trim(); }

// A kind that is here: see mlx_embed_product. `columns` [depth], of INT8 alone: what columns of x are multiplied by
// before they are rounded; or null.
EXPORT void* mlx_embed_lay_out(const float* weight, const float* bias, const float* columns, int64_t n, int64_t depth,
                               int kind) {
  LaidOut* w = nullptr;
  try {
    w = new LaidOut{n, depth, product_of(kind)};
    w->weight = allocate_beside(w->product->laid_out(n, depth));
    w->product->lay_out(weight, n, depth, w->weight.get());
    if (bias) {
      const size_t padded = (size_t)(w->panels() * w->product->panel);
      w->bias = allocate_beside(padded);
      std::fill(std::copy(bias, bias + n, w->bias.get()), w->bias.get() + padded, 0.0f);
    }
    if (columns) {
      constexpr int64_t VECTOR = 16;  // no kernel's is wider
      const size_t padded = (size_t)(ceil_div(depth, VECTOR) * VECTOR);
      w->columns = allocate_beside(padded);
      std::fill(std::copy(columns, columns + depth, w->columns.get()), w->columns.get() + padded, 0.0f);
    }
    return w;
  } catch (const std::bad_alloc&) {
    delete w;
    return nullptr;
  }
}
EXPORT void mlx_embed_discard(void* layer) { delete static_cast<LaidOut*>(layer); }
// From now on the greatest magnitude in each column of what the layer multiplies goes to `greatest` [depth], if it is
// greater than what is there; null is the end of it. Not while it multiplies.
EXPORT void mlx_embed_watch(void* layer, float* greatest) { static_cast<LaidOut*>(layer)->greatest = greatest; }
// Two layers of one shape, each becomes the other. Not while either multiplies.
EXPORT void mlx_embed_exchange(void* a, void* b) { std::swap(*static_cast<LaidOut*>(a), *static_cast<LaidOut*>(b)); }

EXPORT int mlx_embed_linear(const float* x, int64_t rows, const void* layer, int activation, const float* residual,
                            float* y) {
  return guarded([&] {
    linear(x, rows, *static_cast<const LaidOut*>(layer), activation, residual, y);
    return OK;
  });
}

EXPORT int mlx_embed_layer_norm(const float* x, const float* residual, const float* weight, const float* bias,
                                float eps, int64_t rows, int64_t width, float* y) {
  return guarded([&] {
    layer_norm(x, residual, {weight, bias, eps}, rows, width, y);
    return OK;
  });
}

EXPORT int mlx_embed_rms_norm(const float* x, const float* residual, const float* weight, float eps, float offset,
                              int64_t rows, int64_t width, float* y) {
  return guarded([&] {
    const int64_t rb = block_rows(rows, std::max<int64_t>(1, 32768 / width));
    parallel_for(ceil_div(rows, rb), [&](int64_t job) {
      const int64_t o = job * rb * width;
      kernels->rms_norm(x + o, residual ? residual + o : nullptr, weight, eps, offset, std::min(rb, rows - job * rb),
                        width, y + o);
    });
    return OK;
  });
}

EXPORT int mlx_embed_embedding_norm(const float* const* tables, const int64_t* sizes, const int32_t* const* ids,
                                    int64_t count, const float* weight, const float* bias, float eps, int64_t rows,
                                    int64_t width, float* y) {
  return guarded([&] {
    for (int64_t t = 0; t < count; t++)
      for (int64_t i = 0; i < rows; i++)
        if (ids[t][i] < 0 || ids[t][i] >= sizes[t]) return BAD_IDS;
    const int64_t rb = block_rows(rows, std::max<int64_t>(1, 32768 / width));
    parallel_for(ceil_div(rows, rb), [&](int64_t job) {
      const int64_t row = job * rb, n = std::min(rb, rows - row);
      const int32_t* here[8];
      for (int64_t t = 0; t < count; t++) here[t] = ids[t] + row;
      float* out = y + row * width;
      kernels->gather(tables, here, count, n, width, out);
      if (weight) kernels->layer_norm(out, nullptr, weight, bias, eps, n, width, out);
    });
    return OK;
  });
}

#include "attention_op.inl"

// y = norm(x W + bias + residual); without a norm weight, only the sum.
EXPORT int mlx_embed_output_norm(const float* x, int64_t rows, const void* layer, const float* residual,
                                 const float* weight, const float* bias, float eps, float* y) {
  return guarded([&] {
    const LaidOut& w = *static_cast<const LaidOut*>(layer);
    if (few(rows)) {
      linear(x, rows, w, IDENTITY, residual, y);
      if (weight) layer_norm(y, nullptr, {weight, bias, eps}, rows, w.n, y);
      return OK;
    }
    const int64_t mb = block_rows(rows, MOST_ROWS);
    parallel_for(ceil_div(rows, mb), [&](int64_t job) {
      const int64_t row = job * mb;
      float* out = y + row * w.n;
      Gemm g = product(x + row * w.depth, std::min(mb, rows - row), w, out);
      g.residual = residual ? residual + row * w.n : nullptr;
      g.ldr = w.n;
      run(g, w);
      if (weight) kernels->layer_norm(out, nullptr, weight, bias, eps, g.m, w.n, out);
    });
    return OK;
  });
}

// gated: 0 no, 1 act(first half) * second half, 2 act(second half) * first half.
EXPORT int mlx_embed_feed_forward(const float* x, int64_t rows, const void* up_layer, const void* down_layer,
                                  int activation, int gated, const float* residual, const float* weight,
                                  const float* bias, float eps, float* y) {
  return guarded([&] {
    const LaidOut &up = *static_cast<const LaidOut*>(up_layer), &down = *static_cast<const LaidOut*>(down_layer);
    const int64_t inner = down.depth, width = down.n;
    const int64_t gate = gated == 2 ? inner : 0, value = gated == 2 ? 0 : inner;
    const int act_up = gated ? IDENTITY : activation;
    if (few(rows)) {
      const size_t floats = (size_t)(rows * (up.n + (gated ? inner : 0)));
      const std::unique_ptr<float, void (*)(float*)> both(allocate(floats), release);
      float *wide = both.get(), *narrow = gated ? wide + rows * up.n : wide;
      linear(x, rows, up, act_up, nullptr, wide);
      if (gated)
        parallel_for(rows, [&](int64_t i) {
          const float* from = wide + i * up.n;
          kernels->gated(from + gate, from + value, 1, inner, up.n, activation, narrow + i * inner);
        });
      linear(narrow, rows, down, IDENTITY, residual, y);
      if (weight) layer_norm(y, nullptr, {weight, bias, eps}, rows, width, y);
      return OK;
    }
    const int64_t floats = up.n + (gated ? inner : 0);
    const int64_t mb = block_rows(rows, std::clamp<int64_t>(CACHE_FLOATS / floats, 28, MOST_ROWS));
    parallel_for(ceil_div(rows, mb), [&](int64_t job) {
      const int64_t row = job * mb, n = std::min(mb, rows - row);
      const size_t gemm = (std::max(up.product->scratch(n, up.depth), down.product->scratch(n, inner)) + 15) / 16 * 16;
      float* work = scratch(gemm + (size_t)(n * floats));
      float* wide = work + gemm;
      float* narrow = gated ? wide + n * up.n : wide;
      Gemm g = product(x + row * up.depth, n, up, wide);
      g.activation = act_up;
      run(g, up, work);
      if (gated) kernels->gated(wide + gate, wide + value, n, inner, up.n, activation, narrow);
      float* out = y + row * width;
      g = product(narrow, n, down, out);
      g.residual = residual ? residual + row * width : nullptr;
      g.ldr = width;
      run(g, down, work);
      if (weight) kernels->layer_norm(out, nullptr, weight, bias, eps, n, width, out);
    });
    return OK;
  });
}

// Without norms, query_norm and key_norm are null.
EXPORT int mlx_embed_rope(float* qkv, const int32_t* positions, const float* cosine, const float* sine, int64_t places,
                          int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_dim, const float* query_norm,
                          const float* key_norm, float eps, float offset) {
  return guarded([&] {
    for (int64_t i = 0; i < rows; i++)
      if (positions[i] < 0 || positions[i] >= places) return BAD_IDS;
    const int64_t width = (heads + 2 * kv_heads) * head_dim, half = head_dim / 2;
    const int64_t rb = block_rows(rows, std::max<int64_t>(1, 32768 / width));
    parallel_for(ceil_div(rows, rb), [&](int64_t job) {
      for (int64_t i = job * rb; i < std::min(rows, (job + 1) * rb); i++) {
        const int64_t place = positions[i] * half;
        float* row = qkv + i * width;
        if (query_norm) {
          float* key = row + heads * head_dim;
          for (int64_t h = 0; h < heads; h++)
            kernels->rms_norm(row + h * head_dim, nullptr, query_norm, eps, offset, 1, head_dim, row + h * head_dim);
          for (int64_t h = 0; h < kv_heads; h++)
            kernels->rms_norm(key + h * head_dim, nullptr, key_norm, eps, offset, 1, head_dim, key + h * head_dim);
        }
        kernels->rope(row, cosine + place, sine + place, heads + kv_heads, head_dim);
      }
    });
    return OK;
  });
}

EXPORT int mlx_embed_mean_pool(const float* x, const int32_t* cu, int64_t count, int64_t total, int64_t width,
                               int64_t skip, int normalize, float* y) {
  return guarded([&] {
    if (!good_sequences(cu, count, total)) return BAD_SEQUENCES;
    parallel_for(count, [&](int64_t s) {
      // A text that is all prompt keeps its tokens rather than none.
      const int64_t length = cu[s + 1] - cu[s], from = length > skip ? skip : 0;
      kernels->mean(x + (cu[s] + from) * width, length - from, width, normalize, y + s * width);
    });
    return OK;
  });
}

// A post-norm layer (BERT's): weights that are laid out, and the parameters of its two LayerNorms.
struct EncoderLayer {
  const void *qkv, *out, *up, *down;
  const float *attention_weight, *attention_bias, *output_weight, *output_bias;
  float attention_eps, output_eps;
};

// x [total, width] through all layers: y. What one op hands on is in qkv [total, 3 * width], attended and between.
// `narrow`: attention is on bfloat16; the layers' qkv is narrow then. With `wanted` the last layer gives those rows
// alone, `few` of them, in `kept` [few, width]; what is handed on then has room for as many too.
EXPORT int mlx_embed_encoder(const float* x, const EncoderLayer* layers, int64_t depth, int64_t width,
                             const int32_t* cu, int64_t count, int64_t total, int64_t heads, float scale,
                             const float* bias, int64_t bias_length, int activation, int narrow, const int32_t* wanted,
                             int64_t few, float* qkv, float* attended, float* between, float* y, float* kept) {
  const int64_t head_dim = width / heads;
  const Seen all = {heads, -1, false};
  uint16_t* qkv16 = reinterpret_cast<uint16_t*>(qkv);
  for (int64_t i = 0; wanted && i < few; i++)
    if (wanted[i] < 0 || wanted[i] >= total) return BAD_IDS;
  int status = OK;
  for (int64_t l = 0; l < depth && !status; l++) {
    const EncoderLayer& w = layers[l];
    status = guarded([&] {
      const LaidOut& layer = *static_cast<const LaidOut*>(w.qkv);
      linear(x, total, layer, IDENTITY, nullptr, narrow ? nullptr : qkv, narrow ? qkv16 : nullptr);
      if (narrow)
        return attend<uint16_t>(attending16(), qkv16, cu, count, total, heads, head_dim, scale, bias, bias_length, all,
                                attended);
      return attend(attending(), qkv, cu, count, total, heads, head_dim, scale, bias, bias_length, all, attended);
    });
    if (!status && wanted && l == depth - 1) {
      for (int64_t i = 0; i < few; i++) {  // qkv is of no more use, and between is not in use yet
        std::copy_n(attended + wanted[i] * width, width, between + i * width);
        std::copy_n(x + wanted[i] * width, width, qkv + i * width);
      }
      std::swap(attended, between);
      x = qkv;
      y = kept;
      total = few;
    }
    if (!status)
      status = mlx_embed_output_norm(attended, total, w.out, x, w.attention_weight, w.attention_bias, w.attention_eps,
                                     between);
    if (!status)
      status = mlx_embed_feed_forward(between, total, w.up, w.down, activation, 0, between, w.output_weight,
                                      w.output_bias, w.output_eps, y);
    x = y;
  }
  return status;
}

#include "disentangled_attention_op.inl"
#include "heads.inl"
#include "top_k_scores_op.inl"
