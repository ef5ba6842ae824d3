// The activations by number, 0 erf GELU, 1 tanh GELU, 2 ReLU and 3 SiLU: their places in ACTIVATIONS.
template <int KIND>
__device__ float activation(float x) {
  if constexpr (KIND == 0) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
  if constexpr (KIND == 1) return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
  if constexpr (KIND == 2) return x < 0.0f ? 0.0f : x;  // a NaN stays one
  return x / (1.0f + __expf(-x));
}

// The same for results of 16 bits: all but ReLU are x / (1 + 2^power). Of GELU power is x p(x^2), where p is fitted to
// log2(Phi(-x) / Phi(x)) / x: within 1e-5 everywhere, and within a quarter of what rounding to float16 may cost.
template <int KIND>
__device__ float short_activation(float x) {
  if constexpr (KIND == 2) return activation<KIND>(x);
  float power = -1.44269504f * x;
  const float u = x * x;
  if constexpr (KIND == 0) {
    float p = 2.095291e-7f + u * -2.3008676e-9f;
    p = -7.4562939e-6f + u * p;
    p = 1.1628397e-4f + u * p;
    p = 3.2050439e-4f + u * p;
    p = -0.10534615f + u * p;
    p = -2.3018641f + u * p;
    power = x * p;
  }
  if constexpr (KIND == 1) power *= 1.59576912f * (1.0f + 0.044715f * u);
  float y, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(power));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + y));
  return x * inverse;
}
