// Stands in for the cblas that MLX's Linux wheel brings, a reference BLAS of 2 GFLOP/s. Loaded with RTLD_GLOBAL before
// mlx.core, so that the dynamic linker finds these names first, and passes each call on to the BLAS that blas.py found.
#include <atomic>

namespace {
using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
using Dgemm = void (*)(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*,
                       int);
Sgemm sgemm;
Dgemm dgemm;
std::atomic<long> calls{0};
}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void mlx_embed_blas(Sgemm s, Dgemm d) {
  sgemm = s;
  dgemm = d;
}
EXPORT long mlx_embed_blas_calls() { return calls.load(); }

EXPORT void cblas_sgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float* a,
                        int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  calls.fetch_add(1, std::memory_order_relaxed);
  sgemm(layout, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
EXPORT void cblas_dgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k, double alpha,
                        const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  calls.fetch_add(1, std::memory_order_relaxed);
  dgemm(layout, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
