// The activations by number, 0 erf GELU, 1 tanh GELU, 2 ReLU and 3 SiLU: their places in ACTIVATIONS.
template <int KIND>
METAL_FUNC float activation(float x) {
  if (KIND == 0) {
    // x times the normal distribution. Metal has no erf; this one is Abramowitz and Stegun's 7.1.26, within 1.5e-7.
    const float z = metal::abs(x) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = -1.453152027f + t * 1.061405429f;
    p = 1.421413741f + t * p;
    p = -0.284496736f + t * p;
    p = 0.254829592f + t * p;
    const float above = 0.5f * t * p * metal::precise::exp(-z * z);
    return x * (x < 0.0f ? above : 1.0f - above);
  }
  if (KIND == 1) {
    // x / (1 + exp(-2 u)) is 0.5 x (1 + tanh(u)).
    return x / (1.0f + metal::precise::exp(-1.59576912f * (x + 0.044715f * x * x * x)));
  }
  if (KIND == 2) {
    return x < 0.0f ? 0.0f : x;  // a NaN stays one
  }
  return x / (1.0f + metal::precise::exp(-x));
}
