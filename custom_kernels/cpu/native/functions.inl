// exp, erf and the activations on vectors. A part of kernels.inl and narrow.inl.

ALWAYS_INLINE Vec exponential(Vec x) {
  x = vmin(splat(88.3f), vmax(splat(-87.3f), x));
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec t = x * 1.44269504088896341f + magic;
  Vec k = t - magic;
  Vec r = x - k * 0.693359375f;
  r = r - k * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (Vec)((Ints)p + ((Ints)t << 23));
}
constexpr float LOG2_E = 1.44269504088896341f;
// 2^x for x <= 127, exact to 2e-7 of itself, and 0 below the least normal number.
ALWAYS_INLINE Vec power_of_two(Vec x) {
#if defined(__AVX512F__)
  x = vmax(splat(-200.0f), x);
  const Vec k = (Vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vec whole = x, magic = splat(12582912.0f);
  x = vmax(splat(-126.0f), x);
  const Vec t = x + magic, k = t - magic;
#endif
  const Vec r = x - k;
  Vec p = splat(1.3276473e-3f);
  p = p * r + 9.6755419e-3f;
  p = p * r + 5.5507131e-2f;
  p = p * r + 0.24022120f;
  p = p * r + 0.69314694f;
  p = p * r + 1.0000001f;
#if defined(__AVX512F__)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)k);
#else
  p = (Vec)((Ints)p + ((Ints)t << 23));
  return whole < splat(-126.0f) ? Vec{} : p;
#endif
}
ALWAYS_INLINE Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  Vec r = (Vec)_mm512_rcp14_ps((__m512)x);
  return r * (2.0f - x * r);
#else
  return 1.0f / x;
#endif
}
// Rational in x^2 on |x| <= 4, beyond which erf rounds to 1.
ALWAYS_INLINE Vec error_function(Vec x) {
  const Vec whole = x;
  x = vmin(splat(4.0f), vmax(splat(-4.0f), x));
  Vec z = x * x;
  Vec p = splat(-2.72614225801306e-10f);
  p = p * z + 2.77068142495902e-08f;
  p = p * z + -2.10102402082508e-06f;
  p = p * z + -5.69250639462346e-05f;
  p = p * z + -7.34990630326855e-04f;
  p = p * z + -2.95459980854025e-03f;
  p = p * z + -1.60960333262415e-02f;
  Vec q = splat(-1.45660718464996e-05f);
  q = q * z + -2.13374055278905e-04f;
  q = q * z + -1.68282697438203e-03f;
  q = q * z + -7.37332916720468e-03f;
  q = q * z + -1.42647390514189e-02f;
  Vec y = x * p * reciprocal(q);
  y = whole < splat(-4.0f) ? splat(-1.0f) : y;
  return whole > splat(4.0f) ? splat(1.0f) : y;
}
ALWAYS_INLINE Vec sigmoid_times(Vec x, Vec y) { return x * reciprocal(1.0f + exponential(-y)); }

#if defined(NARROW)
// gelu(x) within 1.3e-4, for what is rounded to 8 bits next, and 0 or x beyond 4. An odd polynomial of x stands for the
// normal distribution, fitted by Lawson's iteration on |x| <= 4, where it is 0 or 1 to the last bit; half the
// instructions of the rational below.
ALWAYS_INLINE Vec short_gelu(Vec x) {
  const Vec y = vmin(splat(4.0f), vmax(splat(-4.0f), x)), z = y * y;
  Vec p = splat(-4.40715076e-10f);
  p = p * z + 5.07028979e-08f;
  p = p * z + -2.31459103e-06f;
  p = p * z + 5.74612823e-05f;
  p = p * z + -8.832686e-04f;
  p = p * z + 9.04161017e-03f;
  p = p * z + -6.50675371e-02f;
  p = p * z + 3.9818871e-01f;
  return x * (y * p + 0.5f);
}
#endif

template <int A> ALWAYS_INLINE Vec activate(Vec x) {
#if defined(NARROW)
  if constexpr (A == GELU) return short_gelu(x);
#endif
  if constexpr (A == GELU) return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f));
  if constexpr (A == GELU_TANH)  // (1 + tanh(y)) / 2 is sigmoid(2 y)
    return sigmoid_times(x, x * (1.59576912160573071f + 0.07135481282636868f * (x * x)));
  if constexpr (A == RELU) return vmax(Vec{}, x);
  if constexpr (A == SILU) return sigmoid_times(x, x);
  return x;
}
