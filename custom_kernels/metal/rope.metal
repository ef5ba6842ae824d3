// A simdgroup turns one head of one token: elements i and i + HALF are a pair. With norms, the head of a query or key
// is divided by the root of its mean square first, and multiplied with its weights. A value's head passes.
// Template: T, HEADS, KV_HEADS, HALF, NORM. `numbers` are the norms' eps and offset.
constexpr int STEPS = (HALF + 31) / 32;

const int lane = int(thread_index_in_simdgroup);
const int head = int(thread_position_in_grid.y);
const size_t token = thread_position_in_grid.z;
const size_t at = (token * (HEADS + 2 * KV_HEADS) + head) * (2 * HALF);

if (head >= HEADS + KV_HEADS) {
  for (int i = lane; i < 2 * HALF; i += 32) {
    out[at + i] = qkv[at + i];
  }
  return;
}
float first[STEPS];
float second[STEPS];
float square = 0.0f;
#pragma clang loop unroll(full)
for (int s = 0; s < STEPS; ++s) {
  const int i = s * 32 + lane;
  first[s] = i < HALF ? float(qkv[at + i]) : 0.0f;
  second[s] = i < HALF ? float(qkv[at + i + HALF]) : 0.0f;
  square += first[s] * first[s] + second[s] * second[s];
}
float scale = 1.0f;
if (NORM) {
  scale = metal::precise::rsqrt(simd_sum(square) / (2 * HALF) + numbers[0]);
}
const size_t angle = size_t(positions[token]) * HALF;
#pragma clang loop unroll(full)
for (int s = 0; s < STEPS; ++s) {
  const int i = s * 32 + lane;
  if (i < HALF) {
    float x = first[s];
    float y = second[s];
    if (NORM) {
      x *= scale * (numbers[1] + float(head < HEADS ? query_norm[i] : key_norm[i]));
      y *= scale * (numbers[1] + float(head < HEADS ? query_norm[i + HALF] : key_norm[i + HALF]));
    }
    const float c = cosines[angle + i];
    const float d = sines[angle + i];
    out[at + i] = T(x * c - y * d);
    out[at + i + HALF] = T(y * c + x * d);
  }
}
