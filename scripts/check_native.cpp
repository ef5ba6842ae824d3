// Drives every op of custom_kernels/cpu through its C interface against plain double-precision loops, for the
// sanitizers, valgrind and qemu: see check_native.sh and test_aarch64.sh.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

extern "C" {
const char* mlx_embed_choose(const char*);
const char* mlx_embed_product(int);
int mlx_embed_attends(int);
void mlx_embed_multiply_by(void*);
void mlx_embed_set_threads(int64_t);
float* mlx_embed_allocate(int64_t);
void mlx_embed_release(float*);
void* mlx_embed_lay_out(const float*, const float*, const float*, int64_t, int64_t, int);
void mlx_embed_watch(void*, float*);
void mlx_embed_discard(void*);
void mlx_embed_exchange(void*, void*);
int mlx_embed_linear(const float*, int64_t, const void*, int, const float*, float*);
int mlx_embed_layer_norm(const float*, const float*, const float*, const float*, float, int64_t, int64_t, float*);
int mlx_embed_embedding_norm(const float* const*, const int64_t*, const int32_t* const*, int64_t, const float*,
                             const float*, float, int64_t, int64_t, float*);
int mlx_embed_attention(const float*, const int32_t*, int64_t, int64_t, int64_t, int64_t, int64_t, float, const float*,
                        int64_t, int64_t, int, int, float*);
int mlx_embed_disentangled_attention(const float*, const int32_t*, int64_t, int64_t, int64_t, int64_t, float,
                                     const float*, const float*, int64_t, const int32_t*, int64_t, int, float*);
int mlx_embed_rms_norm(const float*, const float*, const float*, float, float, int64_t, int64_t, float*);
int mlx_embed_output_norm(const float*, int64_t, const void*, const float*, const float*, const float*, float, float*);
int mlx_embed_feed_forward(const float*, int64_t, const void*, const void*, int, int, const float*, const float*,
                           const float*, float, float*);
int mlx_embed_rope(float*, const int32_t*, const float*, const float*, int64_t, int64_t, int64_t, int64_t, int64_t,
                   const float*, const float*, float, float);
int mlx_embed_mean_pool(const float*, const int32_t*, int64_t, int64_t, int64_t, int64_t, int, float*);
int mlx_embed_gather_mean(const void*, int, int64_t, int64_t, const int32_t*, const float*, int64_t, const int32_t*,
                          const int32_t*, int64_t, int64_t, float*);
int mlx_embed_linear_max(const float*, const int32_t*, int64_t, int64_t, const void*, float*);
int mlx_embed_top_k_scores(const float*, int64_t, const void*, int, int64_t, int64_t, const uint8_t*, const float*,
                           int64_t, float*);
int mlx_embed_inner_products(const float*, int64_t, const float*, int64_t, const int32_t*, int64_t, float*);
struct EncoderLayer {
  const void *qkv, *out, *up, *down;
  const float *attention_weight, *attention_bias, *output_weight, *output_bias;
  float attention_eps, output_eps;
};
int mlx_embed_encoder(const float*, const EncoderLayer*, int64_t, int64_t, const int32_t*, int64_t, int64_t, int64_t,
                      float, const float*, int64_t, int, int, float*, float*, float*, float*);
}

enum Kind { FLOAT32, BFLOAT16, INT8 };
static Kind kind = FLOAT32;                                                      // of every layer that is laid out
static bool narrow() { return kind != FLOAT32 && mlx_embed_attends(BFLOAT16); }  // whether attention is on bfloat16

static std::atomic<int> failures{0}, checks{0};

static Floats normal(size_t n, unsigned seed, float scale = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> draw(0, scale);
  Floats v(n);
  for (float& x : v) x = draw(engine);
  return v;
}
static Floats unset(size_t n) { return Floats(n, NAN); }

static void close(const char* what, const Floats& found, const Floats& wanted, float tolerance = 2e-5f) {
  checks++;
  for (size_t i = 0; i < wanted.size(); i++)
    if (!(fabsf(found[i] - wanted[i]) <= tolerance * (1 + fabsf(wanted[i])))) {
      printf("%s: element %zu is %g, should be %g\n", what, i, found[i], wanted[i]);
      failures++;
      return;
    }
}

static double gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2.0))); }

static Floats linear(const Floats& x, const Floats& w, const Floats& b, int rows, int n, int k, bool act,
                     const Floats& residual) {
  Floats y((size_t)rows * n);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < n; j++) {
      double s = b.empty() ? 0 : b[j];
      for (int c = 0; c < k; c++) s += (double)x[(size_t)i * k + c] * w[(size_t)j * k + c];
      if (act) s = gelu(s);
      y[(size_t)i * n + j] = (float)(s + (residual.empty() ? 0 : residual[(size_t)i * n + j]));
    }
  return y;
}
static float bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  memcpy(&x, &bits, 4);
  return x;
}
// The numbers that a product of this kind is of, instead of those in rows of x; `weight` is rounded symmetrically.
static Floats rounded(Floats x, int rows, int k, bool weight) {
  for (int i = 0; i < rows; i++) {
    float *row = &x[(size_t)i * k], low = 0, high = 0;
    for (int j = 0; j < k; j++) low = std::min(low, row[j]), high = std::max(high, row[j]);
    const float step = weight ? std::max(-low, high) / 127 : (high - low) / 254;
    for (int j = 0; j < k; j++) {
      if (kind == BFLOAT16) row[j] = bfloat16(row[j]);
      if (kind == INT8 && step > 0) row[j] = nearbyintf(row[j] / step) * step;
    }
  }
  return x;
}
static Floats norm(Floats x, const Floats& w, const Floats& b, int width) {
  for (size_t r = 0; r < x.size() / width; r++) {
    double mean = 0, var = 0;
    for (int j = 0; j < width; j++) mean += x[r * width + j] / (double)width;
    for (int j = 0; j < width; j++) var += pow(x[r * width + j] - mean, 2) / width;
    for (int j = 0; j < width; j++)
      x[r * width + j] = (float)((x[r * width + j] - mean) / sqrt(var + 1e-3) * w[j] + b[j]);
  }
  return x;
}

// A tie may be rounded the other way.
static float product_tolerance() { return kind == FLOAT32 ? 2e-5f : kind == BFLOAT16 ? 2e-4f : 1e-2f; }

// Columns that are scaled by the product are those of an array that was scaled before.
static void scaled(int rows, int n, int k) {
  const Floats x = normal((size_t)rows * k, 1), w = normal((size_t)n * k, 2), columns = normal(k, 3);
  Floats by_hand = x, y = unset((size_t)rows * n), wanted = y;
  for (size_t i = 0; i < x.size(); i++) by_hand[i] *= columns[i % k];
  void* layer = mlx_embed_lay_out(w.data(), nullptr, columns.data(), n, k, kind);
  void* plain = mlx_embed_lay_out(w.data(), nullptr, nullptr, n, k, kind);
  mlx_embed_linear(x.data(), rows, layer, 0, nullptr, y.data());
  mlx_embed_linear(by_hand.data(), rows, plain, 0, nullptr, wanted.data());
  close("columns", y, wanted, 0);
  mlx_embed_discard(layer);
  mlx_embed_discard(plain);
}

static void products(int rows, int n, int k) {
  const Floats x = normal((size_t)rows * k, 1), w = normal((size_t)n * k, 2, 1 / sqrtf(k)), b = normal(n, 3);
  const Floats residual = normal((size_t)rows * n, 4), gamma = normal(n, 5), beta = normal(n, 6);
  const Floats seen = rounded(x, rows, k, false), weight = rounded(w, n, k, true);
  const float tolerance = product_tolerance();
  void* layer = mlx_embed_lay_out(w.data(), b.data(), nullptr, n, k, kind);
  Floats y = unset((size_t)rows * n);
  mlx_embed_linear(x.data(), rows, layer, 1, residual.data(), y.data());
  close("linear", y, linear(seen, weight, b, rows, n, k, true, residual), tolerance);
  void* other = mlx_embed_lay_out(Floats(w.size()).data(), nullptr, nullptr, n, k, kind);
  mlx_embed_exchange(layer, other);
  Floats again = unset(y.size());
  mlx_embed_linear(x.data(), rows, other, 1, residual.data(), again.data());
  close("exchange", again, y, 0);
  mlx_embed_exchange(layer, other);
  mlx_embed_discard(other);
  Floats most(k), wanted(k);
  for (size_t i = 0; i < x.size(); i++) wanted[i % k] = std::max(wanted[i % k], fabsf(x[i]));
  mlx_embed_watch(layer, most.data());
  mlx_embed_linear(x.data(), rows, layer, 0, nullptr, y.data());
  mlx_embed_watch(layer, nullptr);
  close("watch", most, wanted, 0);
  if (kind == INT8) scaled(rows, n, k);
  y = unset(y.size());
  mlx_embed_output_norm(x.data(), rows, layer, residual.data(), gamma.data(), beta.data(), 1e-3f, y.data());
  const Floats sum = linear(seen, weight, b, rows, n, k, false, residual);
  close("output_norm", y, norm(sum, gamma, beta, n), std::max(2e-4f, 5 * tolerance * (kind != FLOAT32)));
  y = unset(y.size());
  mlx_embed_layer_norm(sum.data(), residual.data(), gamma.data(), beta.data(), 1e-3f, rows, n, y.data());
  Floats twice = sum;
  for (size_t i = 0; i < twice.size(); i++) twice[i] += residual[i];
  close("layer_norm", y, norm(twice, gamma, beta, n), 2e-4f);
  mlx_embed_discard(layer);
}

static void feed_forward(int rows, int width, int inner, int gated) {
  const int wide = gated ? 2 * inner : inner;
  const Floats x = normal((size_t)rows * width, 1), up = normal((size_t)wide * width, 2, 0.1f);
  const Floats down = normal((size_t)width * inner, 3, 0.1f), b = normal(wide, 4);
  void *up_layer = mlx_embed_lay_out(up.data(), b.data(), nullptr, wide, width, kind),
       *down_layer = mlx_embed_lay_out(down.data(), nullptr, nullptr, width, inner, kind);
  Floats y = unset(x.size());
  mlx_embed_feed_forward(x.data(), rows, up_layer, down_layer, 1, gated, x.data(), nullptr, nullptr, 0, y.data());
  const Floats h = linear(x, up, b, rows, wide, width, !gated, {});
  Floats a((size_t)rows * inner);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < inner; j++) {
      const float *row = &h[(size_t)i * wide], first = row[j], second = gated ? row[inner + j] : 0;
      a[(size_t)i * inner + j] = gated == 0   ? first
                                 : gated == 1 ? (float)gelu(first) * second
                                              : (float)gelu(second) * first;
    }
  close("feed_forward", y, linear(a, down, {}, rows, width, inner, false, x), kind == FLOAT32 ? 1e-4f : 5e-2f);
  mlx_embed_discard(up_layer);
  mlx_embed_discard(down_layer);
}

// A head of key and value for each `group` of the query's.
static void attention(const Ints& lengths, int heads, int d, bool biased, int window, int group = 1,
                      bool causal = false) {
  Ints cu{0};
  for (int n : lengths) cu.push_back(cu.back() + n);
  const int total = cu.back(), hidden = heads * d, most = *std::max_element(lengths.begin(), lengths.end()) + 1;
  const int kv = hidden / group, width = hidden + 2 * kv;
  const Floats qkv = normal((size_t)total * width, 7), bias = normal((size_t)heads * (2 * most - 1), 8);
  const bool on_bfloat16 = narrow() && d % 2 == 0;
  Floats y = unset((size_t)total * hidden), wanted((size_t)total * hidden);
  mlx_embed_attention(qkv.data(), cu.data(), (int64_t)lengths.size(), total, heads, heads / group, d, 0.2f,
                      biased ? bias.data() : nullptr, most, window, causal, on_bfloat16, y.data());
  std::vector<double> p;
  for (size_t s = 0; s < lengths.size(); s++)
    for (int h = 0; h < heads; h++)
      for (int i = 0; i < lengths[s]; i++) {
        const float* q = &qkv[(size_t)(cu[s] + i) * width + h * d];
        p.assign(lengths[s], 0);
        double sum = 0;
        for (int j = 0; j < lengths[s]; j++) {
          if ((window >= 0 && abs(i - j) > window) || (causal && j > i)) continue;
          const float* k = &qkv[(size_t)(cu[s] + j) * width + hidden + h / group * d];
          double score = 0;
          for (int c = 0; c < d; c++) score += (double)q[c] * k[c];
          sum += p[j] = exp(score * 0.2 + (biased ? bias[(size_t)h * (2 * most - 1) + j - i + most - 1] : 0));
        }
        for (int c = 0; c < d; c++) {
          double out = 0;
          for (int j = 0; j < lengths[s]; j++)
            out += p[j] / sum * qkv[(size_t)(cu[s] + j) * width + hidden + kv + h / group * d + c];
          wanted[(size_t)(cu[s] + i) * hidden + h * d + c] = (float)out;
        }
      }
  close("attention", y, wanted, on_bfloat16 ? 2e-2f : 2e-5f);
}

static void disentangled(const Ints& lengths, int heads, int d, bool to_key, bool to_query) {
  Ints cu{0}, place;
  for (int n : lengths) cu.push_back(cu.back() + n);
  const int total = cu.back(), hidden = heads * d, far = *std::max_element(lengths.begin(), lengths.end()) + 1,
            used = 5;
  for (int i = 0; i < 2 * far + 1; i++) place.push_back(i * i % used);
  const Floats qkv = normal((size_t)total * 3 * hidden, 27), p = normal((size_t)used * hidden, 28),
               r = normal((size_t)used * hidden, 29);
  const bool on_bfloat16 = narrow() && d % 2 == 0;
  Floats y = unset((size_t)total * hidden), wanted((size_t)total * hidden);
  mlx_embed_disentangled_attention(qkv.data(), cu.data(), (int64_t)lengths.size(), total, heads, d, 0.2f,
                                   to_key ? p.data() : nullptr, to_query ? r.data() : nullptr, used, place.data(), far,
                                   on_bfloat16, y.data());
  std::vector<double> weight;
  for (size_t s = 0; s < lengths.size(); s++)
    for (int h = 0; h < heads; h++)
      for (int i = 0; i < lengths[s]; i++) {
        const float* q = &qkv[(size_t)(cu[s] + i) * 3 * hidden + h * d];
        weight.assign(lengths[s], 0);
        double sum = 0;
        for (int j = 0; j < lengths[s]; j++) {
          const float* k = &qkv[(size_t)(cu[s] + j) * 3 * hidden + hidden + h * d];
          const size_t row = (size_t)place[far + i - j] * hidden + h * d;
          double score = 0;
          for (int c = 0; c < d; c++)
            score += (double)q[c] * k[c] + (to_key ? q[c] * p[row + c] : 0.0f) + (to_query ? k[c] * r[row + c] : 0.0f);
          sum += weight[j] = exp(score * 0.2);
        }
        for (int c = 0; c < d; c++) {
          double out = 0;
          for (int j = 0; j < lengths[s]; j++)
            out += weight[j] / sum * qkv[(size_t)(cu[s] + j) * 3 * hidden + 2 * hidden + h * d + c];
          wanted[(size_t)(cu[s] + i) * hidden + h * d + c] = (float)out;
        }
      }
  close("disentangled_attention", y, wanted, on_bfloat16 ? 4e-2f : 2e-5f);
}

static void rows(int width) {
  const int count = 19, vocabulary = 11;
  const Floats table = normal((size_t)vocabulary * width, 9), gamma = normal(width, 10), beta = normal(width, 11);
  Ints ids(count);
  for (int i = 0; i < count; i++) ids[i] = i * 7 % vocabulary;
  const float* tables[] = {table.data(), table.data()};
  const int32_t* places[] = {ids.data(), ids.data()};
  const int64_t sizes[] = {vocabulary, vocabulary};
  Floats sum((size_t)count * width), y = unset(sum.size());
  for (int i = 0; i < count; i++)
    for (int j = 0; j < width; j++) sum[(size_t)i * width + j] = 2 * table[(size_t)ids[i] * width + j];
  mlx_embed_embedding_norm(tables, sizes, places, 2, gamma.data(), beta.data(), 1e-3f, count, width, y.data());
  close("embedding_norm", y, norm(sum, gamma, beta, width), 2e-4f);
  const int64_t small[] = {vocabulary, vocabulary - 1};
  checks++;
  if (mlx_embed_embedding_norm(tables, small, places, 2, nullptr, nullptr, 0, count, width, y.data()) != 3) failures++;

  const Ints cu{0, 4, 4, count};
  Floats pooled = unset(3 * (size_t)width), wanted(3 * (size_t)width);
  mlx_embed_mean_pool(sum.data(), cu.data(), 3, count, width, 2, 0, pooled.data());
  for (int s = 0; s < 3; s++)
    for (int i = cu[s] + 2; i < cu[s + 1]; i++)
      for (int j = 0; j < width; j++) wanted[s * width + j] += sum[(size_t)i * width + j] / (cu[s + 1] - cu[s] - 2);
  close("mean_pool", pooled, wanted);

  const int d = 2 * width;
  Floats qkv = normal((size_t)count * 3 * d, 12), turned = qkv;
  for (int i = 0; i < count; i++)
    for (int part = 0; part < 2; part++)
      for (int j = 0; j < width; j++) {
        float *a = &turned[((size_t)i * 3 + part) * d + j], *b = a + width, x = *a, z = *b;
        const float c = table[(size_t)ids[i] * width + j], s = table[(size_t)ids[i] * width + j];
        *a = x * c - z * s;
        *b = z * c + x * s;
      }
  mlx_embed_rope(qkv.data(), ids.data(), table.data(), table.data(), vocabulary, count, 1, 1, d, nullptr, nullptr, 0,
                 0);
  close("rope", qkv, turned);

  Floats y_rms = unset(sum.size()), wanted_rms(sum.size());
  mlx_embed_rms_norm(sum.data(), sum.data(), gamma.data(), 1e-3f, 1, count, width, y_rms.data());
  for (int i = 0; i < count; i++) {
    const float* x = &sum[(size_t)i * width];
    double square = 0;
    for (int j = 0; j < width; j++) square += (double)x[j] * x[j];
    for (int j = 0; j < width; j++)
      wanted_rms[(size_t)i * width + j] = (float)(x[j] / sqrt(square / width + 1e-3) * (1 + gamma[j]) + x[j]);
  }
  close("rms_norm", y_rms, wanted_rms);
}

// Vectors of exactly the table's size, whose last row is read to its end and no further.
static void lookups(int width) {
  const int rows = 5, vocabulary = 7, count = 23;
  const std::vector<int8_t> bytes((size_t)rows * width, 3);
  const std::vector<uint16_t> halves((size_t)rows * width, 0x3c00);  // 1
  const Floats floats((size_t)rows * width, 2), weights(vocabulary, 2);
  Ints ids(count), mapping{4, 0, -1, 3, 2, 1, 4};
  for (int i = 0; i < count; i++) ids[i] = i % vocabulary;
  const Ints cu{0, 6, 6, count};
  const void* tables[] = {floats.data(), halves.data(), bytes.data()};
  const int types[] = {0, 1, 3};
  const float means[] = {4, 2, 6};
  for (int i = 0; i < 3; i++) {
    Floats y = unset(3 * (size_t)width), wanted(3 * (size_t)width, means[i]);
    std::fill(wanted.begin() + width, wanted.begin() + 2 * width, 0.0f);
    mlx_embed_gather_mean(tables[i], types[i], rows, width, mapping.data(), weights.data(), vocabulary, ids.data(),
                          cu.data(), 3, count, y.data());
    close("gather_mean", y, wanted);
  }
  checks++;
  Floats y = unset(3 * (size_t)width);
  if (mlx_embed_gather_mean(floats.data(), 0, rows, width, nullptr, nullptr, rows, ids.data(), cu.data(), 3, count,
                            y.data()) != 3)
    failures++;
}

static void greatest(const Ints& lengths, int n, int k) {
  Ints cu{0};
  for (int length : lengths) cu.push_back(cu.back() + length);
  const int total = cu.back(), count = (int)lengths.size();
  const Floats x = normal((size_t)total * k, 1), w = normal((size_t)n * k, 2, 0.3f), b = normal(n, 3);
  const Floats products = linear(rounded(x, total, k, false), rounded(w, n, k, true), b, total, n, k, false, {});
  Floats y = unset((size_t)count * n), wanted((size_t)count * n);
  for (int s = 0; s < count; s++)
    for (int j = 0; j < n; j++) {
      float most = products[(size_t)cu[s] * n + j];
      for (int i = cu[s]; i < cu[s + 1]; i++) most = std::max(most, products[(size_t)i * n + j]);
      wanted[(size_t)s * n + j] = most;
    }
  void* layer = mlx_embed_lay_out(w.data(), b.data(), nullptr, n, k, kind);
  mlx_embed_linear_max(x.data(), cu.data(), count, total, layer, y.data());
  close("linear_max", y, wanted, product_tolerance());
  mlx_embed_discard(layer);
}

// Two layers in one call are the same as op by op.
static void encoder(const Ints& lengths, int width, int inner, int heads) {
  Ints cu{0};
  for (int n : lengths) cu.push_back(cu.back() + n);
  const int64_t total = cu.back(), count = (int64_t)lengths.size();
  const size_t size = (size_t)(total * width);
  const Floats gamma = normal(width, 1), beta = normal(width, 2), x = normal(size, 3);
  EncoderLayer layers[2];
  for (unsigned i = 0; i < 2; i++) {
    const auto layer = [&](int n, int depth, unsigned seed) {
      return mlx_embed_lay_out(normal((size_t)n * depth, seed + i, 0.2f).data(), nullptr, nullptr, n, depth, kind);
    };
    layers[i] = {layer(3 * width, width, 10),
                 layer(width, width, 20),
                 layer(inner, width, 30),
                 layer(width, inner, 40),
                 gamma.data(),
                 beta.data(),
                 beta.data(),
                 nullptr,
                 1e-3f,
                 1e-2f};
  }
  Floats qkv = unset(3 * size), attended = unset(size), between = unset(size), y = unset(size), wanted = x;
  mlx_embed_encoder(x.data(), layers, 2, width, cu.data(), count, total, heads, 0.3f, nullptr, 0, 1, narrow(),
                    qkv.data(), attended.data(), between.data(), y.data());
  for (const EncoderLayer& w : layers) {
    mlx_embed_linear(wanted.data(), total, w.qkv, 0, nullptr, qkv.data());
    mlx_embed_attention(qkv.data(), cu.data(), count, total, heads, heads, width / heads, 0.3f, nullptr, 0, -1, 0,
                        narrow(), attended.data());
    mlx_embed_output_norm(attended.data(), total, w.out, wanted.data(), gamma.data(), beta.data(), 1e-3f,
                          between.data());
    mlx_embed_feed_forward(between.data(), total, w.up, w.down, 1, 0, between.data(), beta.data(), nullptr, 1e-2f,
                           wanted.data());
  }
  close("encoder", y, wanted, 1e-6f);
  for (const EncoderLayer& w : layers)
    for (const void* part : {w.qkv, w.out, w.up, w.down}) mlx_embed_discard(const_cast<void*>(part));
}

// Whole numbers, whose sums are exact, so that equal scores are equal; every other row counts.
static void top_k(int n, int count, int width, int k) {
  std::mt19937 engine(7);
  std::uniform_int_distribution<int> draw(-3, 3);
  Floats queries((size_t)n * width), rows((size_t)count * width), scales((size_t)count), found((size_t)n * 2 * k);
  for (Floats* some : {&queries, &rows})
    for (float& x : *some) x = (float)draw(engine);
  std::vector<uint8_t> mask((size_t)(count + 7) / 8, 0x55);
  std::vector<uint16_t> half(rows.size()), brain(rows.size());
  std::vector<int8_t> codes(rows.size());
  const uint16_t halves[] = {0xC200, 0xC000, 0xBC00, 0, 0x3C00, 0x4000, 0x4200};
  for (size_t i = 0; i < rows.size(); i++) {
    half[i] = halves[(int)rows[i] + 3];
    uint32_t bits;
    memcpy(&bits, &rows[i], 4);
    brain[i] = (uint16_t)(bits >> 16);
    codes[i] = (int8_t)rows[i];
  }
  for (size_t i = 0; i < scales.size(); i++) scales[i] = i % 3 ? 1.0f : 2.0f;
  Floats wanted;
  Ints places;
  Floats products;
  for (int q = 0; q < n; q++) {
    std::vector<std::pair<float, int>> all;
    for (int r = 0; r < count; r++) {
      float sum = 0;
      for (int j = 0; j < width; j++) sum += queries[(size_t)q * width + j] * rows[(size_t)r * width + j];
      if (r % 2 == 0) all.push_back({-sum * scales[r], r});
      if (r < k) places.push_back(r == 1 ? -1 : r), products.push_back(r == 1 ? -1e30f : sum);
    }
    std::sort(all.begin(), all.end());
    for (int part : {0, 1})
      for (int i = 0; i < k; i++) {
        const bool there = i < (int)all.size();
        wanted.push_back(part ? (there ? (float)all[i].second : -1) : there ? -all[i].first : -1e30f);
      }
  }
  const auto finite = [](Floats& x) {
    for (float& value : x) value = std::max(value, -1e30f);
  };
  const void* types[] = {rows.data(), half.data(), brain.data(), codes.data()};
  for (int type = 0; type < 4; type++) {
    found = unset(found.size());
    mlx_embed_top_k_scores(queries.data(), n, types[type], type, count, width, mask.data(), scales.data(), k,
                           found.data());
    finite(found);
    close("top_k_scores", found, wanted, 0);
  }
  const int64_t asked = std::min(k, count);
  Floats exact = unset((size_t)(n * asked));
  mlx_embed_inner_products(queries.data(), n, rows.data(), width, places.data(), asked, exact.data());
  finite(exact);
  close("inner_products", exact, products, 0);
}

// What multiplies blocks or tiles gives the sums of what multiplies words, to the bit where sums are exact, or in one
// order. On AMX those of bfloat16 are in another.
static void blocks_are_dots(const char* most) {
  const int rows = 37, n = 50, k = 800;
  const Floats x = normal((size_t)rows * k, 1), w = normal((size_t)n * k, 2, 0.1f), b = normal(n, 3);
  const auto product = [&] {
    void* layer = mlx_embed_lay_out(w.data(), b.data(), nullptr, n, k, kind);
    Floats y = unset((size_t)rows * n);
    mlx_embed_linear(x.data(), rows, layer, 0, nullptr, y.data());
    mlx_embed_discard(layer);
    return y;
  };
  mlx_embed_choose("");
  const Floats found = product();
  mlx_embed_choose(most);
  close("blocks", found, product(), kind == BFLOAT16 && !strcmp(most, "avx512_bf16") ? 2e-5f : 0);
}

static void everything() {
  for (int n : {1, 2, 9}) top_k(n, 1, 5, 3), top_k(n, 77, 33, 10), top_k(n, 2500, 20, 40);
  for (int n : {1, 33, 50}) products(5, n, 37), products(130, n, 400);
  products(0, 5, 5);
  for (int gated : {0, 1, 2}) feed_forward(3, 20, 45, gated), feed_forward(120, 20, 45, gated);
  for (int d : {1, 8, 33}) attention({0, 1, 40, 13}, 2, d, d == 8, -1);
  attention({600, 3}, 1, 32, true, -1);
  attention({530}, 1, 16, false, 20);
  attention({530, 0, 37}, 4, 16, false, -1, 2, true);
  attention({70}, 3, 8, false, 11, 3, true);
  for (int d : {1, 33}) disentangled({0, 1, 40, 13}, 2, d, true, true);
  disentangled({150, 3}, 2, 16, true, false), disentangled({530}, 1, 8, false, true);
  for (int width : {1, 30, 33}) rows(width);
  for (int width : {1, 30, 130}) lookups(width);
  for (int n : {1, 33, 300}) greatest({3, 1, 120, 40}, n, 37);
  encoder({5, 0, 9}, 24, 40, 2);
  encoder({150, 20}, 24, 40, 3);
}

static void all_threads() {
  for (int threads : {1, 3}) {
    mlx_embed_set_threads(threads);
    everything();
  }
  std::thread other([] { attention({200, 31}, 2, 24, false, -1); });
  attention({100, 77}, 2, 24, true, -1);
  other.join();
#if !defined(__SANITIZE_THREAD__) && !defined(NO_FORK)
  if (const pid_t child = fork()) {
    int status = 1;
    waitpid(child, &status, 0);
    if (status) printf("a forked child failed\n"), failures++;
  } else {
    failures = 0;
    products(130, 50, 400);
    _exit(failures);
  }
#endif
}

// As a BLAS has it, of what the kernels ask for: C = A B^T, row by row.
static void sgemm(int, int, int, int m, int n, int k, float, const float* a, int lda, const float* b, int ldb, float,
                  float* c, int ldc) {
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double sum = 0;
      for (int d = 0; d < k; d++) sum += (double)a[(size_t)i * lda + d] * b[(size_t)j * ldb + d];
      c[(size_t)i * ldc + j] = (float)sum;
    }
}

int main() {
  std::vector<const char*> seen;
  for (const char* most : {"", "avx512_bf16", "neon_dot", "avx2_vnni", "baseline"}) {
    mlx_embed_choose(most);
    for (Kind each : {FLOAT32, BFLOAT16, INT8}) {
      const char* name = mlx_embed_product(kind = each);
      if (!*name || std::any_of(seen.begin(), seen.end(), [&](const char* s) { return !strcmp(s, name); })) continue;
      seen.push_back(name);
      all_threads();
      // Without AVX-512, as under valgrind, the cap leaves float32's other products alone, which are no such pair.
      if (kind != FLOAT32 && (!strcmp(most, "avx512_bf16") || !strcmp(most, "neon_dot"))) blocks_are_dots(most);
      printf("%s: %d checks, %d failed so far\n", name, checks.load(), failures.load());
    }
  }
  kind = FLOAT32;
  mlx_embed_choose("");
  mlx_embed_multiply_by((void*)sgemm);
  all_threads();
  printf("%s: %d checks, %d failed so far\n", mlx_embed_product(kind), checks.load(), failures.load());
  mlx_embed_release(mlx_embed_allocate(1 << 20));
  return failures != 0;
}
