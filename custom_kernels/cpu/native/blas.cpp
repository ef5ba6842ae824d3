// Stands in for the cblas that MLX's Linux wheel brings, a reference BLAS of 2 GFLOP/s. Loaded with RTLD_GLOBAL before
// mlx.core, so that the dynamic linker finds these names first, and passes each call on to the BLAS that blas.py found.
// That one is loaded at the first product: to start and end its threads takes longer than to load a small model, which
// may have no product for it.
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <string>

namespace {
template <class T>
using Product = void (*)(int, int, int, int, int, int, T, const T*, int, const T*, int, T, T*, int);

std::string path;
int wanted_threads;
std::atomic<long> calls{0};

// What runs where the BLAS turns out not to load.
template <class T>
void plain(int layout, int transpose_a, int transpose_b, int m, int n, int k, T alpha, const T* a, int lda, const T* b,
           int ldb, T beta, T* c, int ldc) {
  constexpr int COLUMN_MAJOR = 102, NO_TRANSPOSE = 111;
  if (layout == COLUMN_MAJOR) return plain(101, transpose_b, transpose_a, n, m, k, alpha, b, ldb, a, lda, beta, c, ldc);
  const auto at = [](const T* x, int ld, int transpose, long row, long column) {
    return transpose == NO_TRANSPOSE ? x[row * ld + column] : x[column * ld + row];
  };
  for (long i = 0; i < m; i++)
    for (long j = 0; j < n; j++) {
      T sum = 0;
      for (long l = 0; l < k; l++) sum += at(a, lda, transpose_a, i, l) * at(b, ldb, transpose_b, l, j);
      T& out = c[i * ldc + j];
      out = alpha * sum + (beta == T(0) ? T(0) : beta * out);
    }
}

struct Blas {
  Product<float> sgemm = plain<float>;
  Product<double> dgemm = plain<double>;
  int (*threads)() = [] { return 1; };

  Blas() {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    void* s = library ? dlsym(library, "scipy_cblas_sgemm") : nullptr;
    void* d = library ? dlsym(library, "scipy_cblas_dgemm") : nullptr;
    void* set = library ? dlsym(library, "scipy_openblas_set_num_threads") : nullptr;
    void* get = library ? dlsym(library, "scipy_openblas_get_num_threads") : nullptr;
    if (!s || !d || !set || !get) {
      const char* reason = dlerror();
      std::fprintf(stderr, "mlx_embed: products of MLX's CPU ops are slow: %s\n", reason ? reason : path.c_str());
      return;
    }
    sgemm = (Product<float>)s;
    dgemm = (Product<double>)d;
    threads = (int (*)())get;
    if (wanted_threads > 0) ((void (*)(int))set)(wanted_threads);
  }
};

const Blas& blas() {
  static const Blas loaded;
  return loaded;
}
}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Where the BLAS is, and how many threads it is to use; 0 is as many as its own variables or the machine say.
EXPORT void mlx_embed_blas(const char* place, int threads) {
  path = place;
  wanted_threads = threads;
}
EXPORT long mlx_embed_blas_calls() { return calls.load(); }
EXPORT int mlx_embed_blas_threads() { return blas().threads(); }

EXPORT void cblas_sgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float* a,
                        int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  calls.fetch_add(1, std::memory_order_relaxed);
  blas().sgemm(layout, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
EXPORT void cblas_dgemm(int layout, int transpose_a, int transpose_b, int m, int n, int k, double alpha,
                        const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  calls.fetch_add(1, std::memory_order_relaxed);
  blas().dgemm(layout, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
