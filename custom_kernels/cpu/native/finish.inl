// What follows a product: bias, activation and residual. A part of kernels.inl and narrow.inl.

template <int A>
void finish(float* c, int64_t ldc, const float* bias, const float* residual, int64_t ldr, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < n; j += VL) {
      int64_t valid = smaller(VL, n - j);
      float* p = c + i * ldc + j;
      const float* r = residual ? residual + i * ldr + j : nullptr;
      if (valid == VL) {
        Vec v = load(p);
        if (bias) v += load(bias + j);
        v = activate<A>(v);
        store(p, r ? v + load(r) : v);
      } else {
        Vec v = load_n(p, valid);
        if (bias) v += load(bias + j);
        v = activate<A>(v);
        store_n(p, r ? v + load_n(r, valid) : v, valid);
      }
    }
}
typedef void (*Finish)(float*, int64_t, const float*, const float*, int64_t, int64_t, int64_t);
constexpr Finish FINISH[] = {finish<IDENTITY>, finish<GELU>, finish<GELU_TANH>, finish<RELU>, finish<SILU>};
