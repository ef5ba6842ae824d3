// The product by a BLAS of the system: one call, and then what follows it. A part of kernels.inl.

size_t laid_out_plainly(int64_t n, int64_t depth) { return (size_t)(n * depth); }
void lay_out_plainly(const float* weight, int64_t n, int64_t depth, float* out) {
  __builtin_memcpy(out, weight, (size_t)(n * depth) * sizeof(float));
}
size_t no_scratch(int64_t, int64_t) { return 0; }

void gemm_by_sgemm(const Gemm& g, float*) {
  constexpr int ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112;
  const int64_t column = g.panel_begin * NR, n = smaller(g.panel_end * NR, g.n) - column;
  if (g.m == 0) return;
  float* c = g.c + column;
  mlx_embed_sgemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, (int)g.m, (int)n, (int)g.depth, 1.0f, g.a, (int)g.lda,
                  g.b + column * g.depth, (int)g.depth, 0.0f, c, (int)g.ldc);
  if (g.bias || g.activation || g.residual)
    FINISH[g.activation](c, g.ldc, g.bias ? g.bias + column : nullptr, g.residual ? g.residual + column : nullptr,
                         g.ldr, g.m, n);
}
