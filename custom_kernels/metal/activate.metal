// out[row, i] = act(x[row, i]) of x [rows, WIDTH]; or, of x [rows, 2 * WIDTH], act(a) * b, where a is the first half of
// the row (GATE 1) or the second (GATE 2) and b the other one. A thread takes EACH elements of a row.
// Template: T, WIDTH, EACH (a divisor of WIDTH), GATE, ACTIVATION (0 erf GELU, 1 tanh GELU, 2 ReLU, 3 SiLU).
constexpr int IN = GATE != 0 ? 2 * WIDTH : WIDTH;

const int column = int(thread_position_in_grid.x) * EACH;
const size_t row = thread_position_in_grid.y;
const size_t active = row * IN + (GATE == 2 ? WIDTH : 0) + column;
const size_t other = row * IN + (GATE == 1 ? WIDTH : 0) + column;

#pragma clang loop unroll(full)
for (int i = 0; i < EACH; ++i) {
  const float v = float(x[active + i]);
  float y;
  if (ACTIVATION == 0) {
    // Abramowitz and Stegun 7.1.26: Metal has no erf. Within 1.5e-7.
    const float z = metal::abs(v) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    const float tail =
        t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f)))) *
        metal::precise::exp(-z * z);
    y = v < 0.0f ? 0.5f * v * tail : v - 0.5f * v * tail;
  } else if (ACTIVATION == 1) {
    // x / (1 + exp(-2 u)) is 0.5 x (1 + tanh(u)).
    y = v / (1.0f + metal::precise::exp(-1.5957691f * (v + 0.044715f * v * v * v)));
  } else if (ACTIVATION == 2) {
    y = metal::max(v, 0.0f);
  } else {
    y = v / (1.0f + metal::precise::exp(-v));
  }
  if (GATE != 0) {
    y *= float(x[other + i]);
  }
  out[row * WIDTH + column + i] = T(y);
}
