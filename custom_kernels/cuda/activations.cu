// The activations by number, 0 erf GELU, 1 tanh GELU, 2 ReLU and 3 SiLU: their places in ACTIVATIONS.
template <int KIND>
__device__ float activation(float x) {
  if constexpr (KIND == 0) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
  if constexpr (KIND == 1) return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
  if constexpr (KIND == 2) return fmaxf(x, 0.0f);
  return x / (1.0f + __expf(-x));
}
