// What kernels of attention have in common. Compiled in: HAS_WINDOW, CAUSAL.
constexpr float LOG2E = 1.4426950408889634f;

__device__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Whether the query at place `row` of a sequence attends to the key at `column`, which has to be before `end`.
__device__ bool attends(int row, int column, int end, int window) {
  bool attended = column < end;
  if constexpr (HAS_WINDOW) attended = attended && abs(row - column) <= window;
  if constexpr (CAUSAL) attended = attended && column <= row;
  return attended;
}

// The keys that any query from `first` up to `last` attends to, from a multiple of `step` on.
struct Keys {
  int start, end;
};

__device__ Keys keys_of(int first, int last, int length, int window, int step) {
  Keys keys = {0, length};
  if constexpr (HAS_WINDOW) keys = {max(first - window, 0) / step * step, min(last + window, length)};
  if constexpr (CAUSAL) keys.end = last;
  return keys;
}
