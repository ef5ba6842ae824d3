// out[row, i] = act(x[row, i]) of x [rows, WIDTH]; or, of x [rows, 2 * WIDTH], act(a) * b, where a is the first half of
// the row (GATE 1) or the second (GATE 2) and b the other one. A thread takes EACH elements of a row.
// Template: T, WIDTH, EACH (a divisor of WIDTH), GATE, ACTIVATION (as in shared/activations.metal).
constexpr int IN = GATE != 0 ? 2 * WIDTH : WIDTH;

const int column = int(thread_position_in_grid.x) * EACH;
const size_t row = thread_position_in_grid.y;
const size_t active = row * IN + (GATE == 2 ? WIDTH : 0) + column;
const size_t other = row * IN + (GATE == 1 ? WIDTH : 0) + column;

#pragma clang loop unroll(full)
for (int i = 0; i < EACH; ++i) {
  float y = activation<ACTIVATION>(float(x[active + i]));
  if (GATE != 0) {
    y *= float(x[other + i]);
  }
  out[row * WIDTH + column + i] = T(y);
}
