// What each instruction set offers: one table of functions over float32, filled by kernels.inl.
#pragma once
#include <stddef.h>
#include <stdint.h>

// What a table's rows are kept in.
enum RowType { ROWS_FLOAT32 = 0, ROWS_FLOAT16 = 1, ROWS_INT8 = 2 };

enum Activation { IDENTITY = 0, GELU = 1, GELU_TANH = 2, RELU = 3, SILU = 4 };

// C[m, n] = epilogue(A[m, depth] * B), B laid out in panels of `panel` columns, each [depth][panel].
struct Gemm {
  const float* a;
  const float* b;
  const float* bias;      // padded to whole panels, or null
  const float* residual;  // [m, ldr], or null
  float* c;
  int64_t lda, ldr, ldc;
  int64_t m, n, depth;
  int64_t panel_begin, panel_end;
  int activation;
};

// One head of one sequence, queries [row_begin, row_end) of `length`.
struct Attention {
  const float *q, *k, *v;  // first token, this head; rows `stride` apart
  const float* bias;       // this head's at distance 0, key - query = 0, or null
  float* out;              // rows `out_stride` apart
  int64_t stride, out_stride, length, head_dim, row_begin, row_end;
  int64_t window;  // keys with |i - j| <= window; negative: all
  float scale;
};

struct Kernels {
  const char* name;
  int64_t tile_rows, panel;
  void (*lay_out)(const float* weight, int64_t n, int64_t depth, float* out);
  size_t (*gemm_scratch)(int64_t m, int64_t depth);  // in floats, as all scratch sizes
  void (*gemm)(const Gemm&, float* scratch);
  size_t (*attention_scratch)(int64_t rows, int64_t length, int64_t head_dim);
  void (*attention)(const Attention&, float* scratch);
  // weight null: only the sum. residual and bias may be null; y may be x.
  void (*layer_norm)(const float* x, const float* residual, const float* weight, const float* bias, float eps,
                     int64_t rows, int64_t width, float* y);
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
};

extern "C" {
extern const Kernels mlx_embed_baseline;
#if defined(__x86_64__)
extern const Kernels mlx_embed_avx2;
extern const Kernels mlx_embed_avx512;
#endif
}
