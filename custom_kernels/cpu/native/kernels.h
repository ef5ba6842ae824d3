// What each instruction set offers: a table of functions over float32, filled by kernels.inl, and tables of products of
// narrower numbers, filled by narrow.inl.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum Activation { IDENTITY = 0, GELU = 1, GELU_TANH = 2, RELU = 3, SILU = 4 };

// What a weight is kept and multiplied in. Sums are float32 of either; those of INT8 are exact before they are scaled.
enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, KINDS = 3 };

// C[m, n] = epilogue(A[m, depth] * B), B as the same product's `lay_out` has made it.
struct Gemm {
  const float* a;
  const float* b;
  const float* bias;      // padded to whole panels, or null
  const float* residual;  // [m, ldr], or null
  const float* columns;   // of INT8: what a row of A is multiplied by, padded to whole vectors, or null
  float* c;
  uint16_t* c16;  // instead of c, where not null: C rounded to bfloat16; of narrow products alone
  int64_t lda, ldr, ldc;
  int64_t m, n, depth;
  int64_t panel_begin, panel_end;
  int activation;
};

// The product of one kind. B is laid out in panels of `panel` columns.
struct Product {
  const char* name;  // null where the compiler did not have the instructions
  int64_t panel;
  size_t (*laid_out)(int64_t n, int64_t depth);  // in floats, as all sizes
  void (*lay_out)(const float* weight, int64_t n, int64_t depth, float* out);
  size_t (*scratch)(int64_t m, int64_t depth);
  void (*gemm)(const Gemm&, float* scratch);
};

// One head of one sequence, queries [row_begin, row_end) of `length`, of float or bfloat16 (uint16_t).
template <class T> struct AttentionOf {
  const T *q, *k, *v;  // first token, this head; rows `stride` apart
  const float* bias;   // query i's and key j's is at i * bias_step + j; or null
  float* out;          // rows `out_stride` apart
  int64_t stride, out_stride, bias_step, length, head_dim, row_begin, row_end;
  int64_t before, after;  // query i sees keys i - before to i + after; `length` is far enough for all
  float scale;
};
typedef AttentionOf<float> Attention;
typedef AttentionOf<uint16_t> Attention16;

// What a head's queries and keys are multiplied by at each distance, as `lay_out` of DistancesOf has made it of the
// distances key - query, and of query - key; null for nothing. Distance 0 is at `zero`.
struct Distances {
  const float *to_key, *to_query;
  int64_t zero;
};
template <class T> struct DistancesOf {
  size_t (*laid_out)(int64_t count, int64_t width);
  void (*lay_out)(const float* table, int64_t stride, const int32_t* rows, int64_t count, int64_t width, float* out);
  size_t (*scratch)(int64_t rows, int64_t length, int64_t head_dim);
  void (*add)(const Distances&, AttentionOf<T>&, float* scratch);  // sets the bias, which lies in scratch
};

enum RowType { ROWS_FLOAT32 = 0, ROWS_FLOAT16 = 1, ROWS_BFLOAT16 = 2, ROWS_INT8 = 3 };

// The best k of each query among rows [begin, end), begin a multiple of 64. The heaps begin as k times -infinity.
struct TopK {
  const float* queries;  // [n, width]
  const void* rows;      // [end, width] of `type`
  const float* scales;   // a factor a row, or null
  const uint8_t* mask;   // a bit a row, or null
  int64_t n, width, begin, end, k;
  int type;
  float* scores;  // [n, k], heaps with the worst in front
  int32_t* places;
};

struct Kernels {
  Product product, by_sgemm;
  size_t (*attention_scratch)(int64_t rows, int64_t length, int64_t head_dim);
  void (*attention)(const Attention&, float* scratch);
  DistancesOf<float> distances;
  // weight null: only the sum. residual and bias may be null; y may be x.
  void (*layer_norm)(const float* x, const float* residual, const float* weight, const float* bias, float eps,
                     int64_t rows, int64_t width, float* y);
  // y = x / sqrt(mean(x^2) + eps) * (offset + weight) + residual, which may be null; y may be x.
  void (*rms_norm)(const float* x, const float* residual, const float* weight, float eps, float offset, int64_t rows,
                   int64_t width, float* y);
  // rows[i] of each table added up into y.
  void (*gather)(const float* const* tables, const int32_t* const* ids, int64_t count, int64_t rows, int64_t width,
                 float* y);
  // y[rows, width] = act(gate) * value, both [rows, stride]
  void (*gated)(const float* gate, const float* value, int64_t rows, int64_t width, int64_t stride, int activation,
                float* y);
  void (*rope)(float* x, const float* cosine, const float* sine, int64_t heads, int64_t head_dim);
  void (*mean)(const float* x, int64_t rows, int64_t width, int normalize, float* y);
  // The average of a table's rows, each times its weight, if there are weights: y[width]. `type` is a RowType.
  void (*gather_mean)(const void* table, int type, const int32_t* rows, const float* weights, int64_t count,
                      int64_t width, float* y);
  // y[width] = max(y, each of x [rows, width])
  void (*greatest)(const float* x, int64_t rows, int64_t width, float* y);
  double (*inner_product)(const float* a, const float* b, int64_t width);
  size_t (*top_k_scratch)(int64_t width);
  void (*top_k)(const TopK&, float* scratch);
};

// Attention on bfloat16.
struct Halves {
  size_t (*attention_scratch)(int64_t rows, int64_t length, int64_t head_dim);
  void (*attention)(const Attention16&, float* scratch);  // head_dim is even
  void (*round)(const float* x, int64_t count, uint16_t* y);
  DistancesOf<uint16_t> distances;
};

// cblas_sgemm of some BLAS, for `by_sgemm`; null until there is one.
typedef void (*Sgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float* a,
                      int lda, const float* b, int ldb, float beta, float* c, int ldc);

extern "C" {
extern Sgemm mlx_embed_sgemm;
extern const Kernels mlx_embed_baseline;
#if defined(__x86_64__)
extern const Kernels mlx_embed_avx2, mlx_embed_avx512;
extern const Product mlx_embed_avx512_bf16, mlx_embed_avx512_vnni, mlx_embed_avx2_vnni;
extern const Product mlx_embed_amx_bf16, mlx_embed_amx_int8;
extern const Halves mlx_embed_avx512_bf16_attention;
#elif defined(__aarch64__)
extern const Product mlx_embed_neon_bf16, mlx_embed_neon_dot, mlx_embed_neon_bfmmla, mlx_embed_neon_smmla;
extern const Halves mlx_embed_neon_bf16_attention;
#endif
}
