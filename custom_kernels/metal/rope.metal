// A thread turns one pair of one token: elements i and i + HALF of a head, a query's or key's. A value's pair passes.
// Template: T, HEADS, HALF.
const int place = int(thread_position_in_grid.x);
const size_t token = thread_position_in_grid.y;
const int head = place / HALF;
const int i = place % HALF;
const size_t at = token * (6 * HEADS * HALF) + head * (2 * HALF) + i;

T first = qkv[at];
T second = qkv[at + HALF];
if (head < 2 * HEADS) {
  const size_t angle = size_t(positions[token]) * HALF + i;
  const float x = float(first);
  const float y = float(second);
  first = T(x * cosines[angle] - y * sines[angle]);
  second = T(y * cosines[angle] + x * sines[angle]);
}
out[at] = first;
out[at + HALF] = second;
