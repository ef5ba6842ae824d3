// What works row by row: LayerNorm, RMSNorm, lookups, gates, rotations and means. A part of kernels.inl.

void layer_norm(const float* x, const float* residual, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t width, float* y) {
  const int64_t whole = width / VL * VL, rest = width - whole;
  for (int64_t i = 0; i < rows; i++, x += width, y += width) {
    const float* h = x;
    if (residual) {
      for (int64_t j = 0; j < width; j += VL)
        store_up_to(y + j, load_up_to(x + j, width - j) + load_up_to(residual + j, width - j), width - j);
      residual += width;
      h = y;
    }
    if (!weight) {
      if (h != y)
        for (int64_t j = 0; j < width; j += VL) store_up_to(y + j, load_up_to(h + j, width - j), width - j);
      continue;
    }
    Vec total = {};
    for (int64_t j = 0; j < whole; j += VL) total += load(h + j);
    if (rest) total += load_n(h + whole, rest);
    const float mean = sum(total) / (float)width;
    // The mean of the centred values is what rounding left in the first one, which matters in rows far from zero.
    Vec left = {}, squares = {};
    for (int64_t j = 0; j < whole; j += VL) {
      Vec v = load(h + j) - mean;
      left += v;
      squares += v * v;
    }
    if (rest) {
      Vec v = first_n(load_n(h + whole, rest) - mean, rest, Vec{});
      left += v;
      squares += v * v;
    }
    const float shift = sum(left) / (float)width, variance = sum(squares) / (float)width - shift * shift;
    const float scale = 1.0f / __builtin_sqrtf((variance > 0.0f ? variance : 0.0f) + eps);
    for (int64_t j = 0; j < width; j += VL) {
      const int64_t n = width - j;
      Vec v = (load_up_to(h + j, n) - mean - shift) * scale * load_up_to(weight + j, n);
      if (bias) v += load_up_to(bias + j, n);
      store_up_to(y + j, v, n);
    }
  }
}

void rms_norm(const float* x, const float* residual, const float* weight, float eps, float offset, int64_t rows,
              int64_t width, float* y) {
  for (int64_t i = 0; i < rows; i++, x += width, y += width) {
    Vec squares = {};
    for (int64_t j = 0; j < width; j += VL) {
      const Vec v = load_up_to(x + j, width - j);
      squares += v * v;
    }
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)width + eps);
    for (int64_t j = 0; j < width; j += VL) {
      const int64_t n = width - j;
      Vec v = load_up_to(x + j, n) * scale * (load_up_to(weight + j, n) + offset);
      if (residual) v += load_up_to(residual + j, n);
      store_up_to(y + j, v, n);
    }
    if (residual) residual += width;
  }
}

void gather(const float* const* tables, const int32_t* const* ids, int64_t count, int64_t rows, int64_t width,
            float* y) {
  for (int64_t i = 0; i < rows; i++, y += width)
    for (int64_t j = 0; j < width; j += VL) {
      Vec v = {};
      for (int64_t t = 0; t < count; t++) v += load_up_to(tables[t] + ids[t][i] * width + j, width - j);
      store_up_to(y + j, v, width - j);
    }
}

template <int A>
ALWAYS_INLINE void gate_rows(const float* gate, const float* value, int64_t rows, int64_t width, int64_t stride,
                             float* y) {
  for (int64_t i = 0; i < rows; i++, gate += stride, value += stride, y += width)
    for (int64_t j = 0; j < width; j += VL) {
      const int64_t n = width - j;
      store_up_to(y + j, activate<A>(load_up_to(gate + j, n)) * load_up_to(value + j, n), n);
    }
}
void gated(const float* gate, const float* value, int64_t rows, int64_t width, int64_t stride, int activation,
           float* y) {
  switch (activation) {
    case GELU: return gate_rows<GELU>(gate, value, rows, width, stride, y);
    case GELU_TANH: return gate_rows<GELU_TANH>(gate, value, rows, width, stride, y);
    case RELU: return gate_rows<RELU>(gate, value, rows, width, stride, y);
    case SILU: return gate_rows<SILU>(gate, value, rows, width, stride, y);
    default: return gate_rows<IDENTITY>(gate, value, rows, width, stride, y);
  }
}

void rope(float* x, const float* cosine, const float* sine, int64_t heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; h++, x += head_dim)
    for (int64_t j = 0; j < half; j += VL) {
      const int64_t n = half - j;
      Vec a = load_up_to(x + j, n), b = load_up_to(x + half + j, n);
      Vec c = load_up_to(cosine + j, n), s = load_up_to(sine + j, n);
      store_up_to(x + j, a * c - b * s, n);
      store_up_to(x + half + j, b * c + a * s, n);
    }
}

void mean(const float* x, int64_t rows, int64_t width, int normalize, float* y) {
  const float share = rows ? 1.0f / (float)rows : 0.0f;
  Vec squares = {};
  for (int64_t j = 0; j < width; j += VL) {
    const int64_t n = width - j;
    Vec v = {};
    for (int64_t i = 0; i < rows; i++) v += load_up_to(x + i * width + j, n);
    v = v * share;
    squares += v * v;
    store_up_to(y + j, v, n);
  }
  if (!normalize) return;
  const float norm = __builtin_sqrtf(sum(squares)), inverse = 1.0f / (norm < 1e-12f ? 1e-12f : norm);
  for (int64_t j = 0; j < width; j += VL) store_up_to(y + j, load_up_to(y + j, width - j) * inverse, width - j);
}
