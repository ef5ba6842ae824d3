// softmax(scale Q K^T + bias) V on the tensor cores, straight from qkv [T, (heads + 2 * heads / GROUP) * D], query, key
// and value side by side, to out [T, heads * D].
// A block takes QUERIES queries of one sequence and of TEAM heads that share their keys, TILES * 16 a warp, and walks
// over the keys, KEYS at a time, with the running maximum and sum of the online softmax in registers; the next keys are
// on their way meanwhile. `bias` [heads, 2 * reach + 1] is by distance: column - row is at place column - row + reach
// of the head's. With ROTATE, query and key are turned by their places in the sequence as they are loaded: elements i
// and i + D / 2 of a head are a pair, and `cosines` and `sines` [places, D / 2] the angles. With NORM each head is
// divided by the root of its mean square before, and multiplied with offset + its weights. Compiled in: T of 16 bits,
// BFLOAT, B (the bias's type), N (of the norms' weights), A (of the angles, float or float16), D (a multiple of 16;
// with ROTATE of 32), HEADS, GROUP (so many of them share one of key and value), WARPS, TILES, KEYS, TEAM, HAS_BIAS,
// HAS_WINDOW, CAUSAL, ROTATE, NORM, KEPT (whether queries stay in shared memory).
#include "shared/attention.cuh"
#include "shared/halves.cuh"
#include "shared/sequences.cuh"

constexpr int TEAM_WARPS = WARPS / TEAM;  // of one head
constexpr int QUERIES = TEAM_WARPS * TILES * 16;
constexpr int THREADS = WARPS * 32;
static_assert(KEPT ? QUERIES % KEYS == 0 : WARPS * TILES * 16 <= 4 * KEYS);  // results fit where keys and values were
constexpr int STRIDE = D + 8;  // an odd number of 16-byte units: the 8 rows of a matrix lie in different banks
constexpr int DEPTH = D / 16;
constexpr int UNITS = D / 8;            // of 16 bytes, of a row
constexpr int LINES = THREADS / UNITS;  // rows that all threads bring at a time

// Of 8 pairs, as they lie in memory.
constexpr int PARTS = sizeof(A) / 2;  // of 16 bytes
struct Angles {
  uint4 cosine[PARTS], sine[PARTS];
};

// The first four of 8 cosines or sines, or the second.
__device__ float4 four(const uint4 (&eight)[PARTS], int second) {
  if constexpr (PARTS == 1) {
    const float2 a = unpacked_halves(second ? eight[0].z : eight[0].x);
    const float2 b = unpacked_halves(second ? eight[0].w : eight[0].y);
    return make_float4(a.x, a.y, b.x, b.y);
  }
  const uint4 x = eight[second % PARTS];
  return make_float4(__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z), __uint_as_float(x.w));
}

__device__ float2 two(const A* from) {
  if constexpr (PARTS == 1) return unpacked_halves(*reinterpret_cast<const unsigned*>(from));
  return *reinterpret_cast<const float2*>(from);
}

// Heads of 128 leave room for 12 warps on a multiprocessor, or 16 that keep their queries in shared memory.
constexpr int BLOCKS = D == 128 ? (KEPT ? 512 : 384) / THREADS : 1;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    attention(const T* qkv, const int* cu_seqlens, const B* bias, const A* cosines, const A* sines, const N* query_norm,
              const N* key_norm, T* out, int total, int n, int reach, float scale, int window, float eps,
              float offset) {
  scale *= LOG2E;  // exp(x) is exp2(x * LOG2E)
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  constexpr int teams = HEADS / TEAM;  // side by side, so that the blocks at work share cache lines
  const int team_head = blockIdx.x % teams * TEAM;
  const int head = team_head + warp / TEAM_WARPS;
  const int slot = blockIdx.x / teams;
  const int slots = gridDim.x / teams;

  const Tile tile = tile_of(cu_seqlens, n, total, QUERIES, slot, slots, lane);
  const int begin = cu_seqlens[tile.sequence];
  const int length = cu_seqlens[tile.sequence + 1] - begin;
  // With CAUSAL the tile that is not full is a sequence's first, which has the fewest keys to see.
  const int late = CAUSAL ? (QUERIES - length % QUERIES) % QUERIES : 0;
  const int first = max(tile.index * QUERIES - late, 0), last = min((tile.index + 1) * QUERIES - late, length);
  if (first >= last) return;

  constexpr int width = HEADS * D;  // of the result
  constexpr int kv = HEADS / GROUP * D;
  constexpr int stride = width + 2 * kv;
  const T* queries = qkv + static_cast<long long>(begin) * stride + team_head * D;
  const T* keys = qkv + static_cast<long long>(begin) * stride + width + team_head / GROUP * D;
  const B* bias_at_zero = bias + static_cast<long long>(head) * (2 * reach + 1) + reach;
  const bool aligned = reinterpret_cast<unsigned long long>(qkv) % 16 == 0;  // a slice may start anywhere

  extern __shared__ uint4 memory[];
  T* const key_tile = reinterpret_cast<T*>(memory);  // of both stages
  T* const value_tile = key_tile + 2 * KEYS * STRIDE;
  T* const query_tile = value_tile + 2 * KEYS * STRIDE;     // with KEPT: of all heads of the team
  T* const kept = query_tile + warp * TILES * 16 * STRIDE;  // a warp's own
  __shared__ alignas(16) float query_weight[ROTATE && NORM ? D : 4], key_weight[ROTATE && NORM ? D : 4];
  // Threads side by side have 8 columns each of both halves of a head, and take 4 weights at a time, which lie side by
  // side for them. (Nothing is divided in it: NVRTC adds 8 bytes to some places then, see
  // findings/nvrtc-adds-eight-bytes.sh.)
  const auto place_of = [](int half, int piece, int second) { return ((half * 2 + second) * (D / 16) + piece) * 4; };
  if constexpr (ROTATE && NORM) {
    for (int i = threadIdx.x; i < D; i += THREADS) {
      const int place = place_of(i / (D / 2), i % (D / 2) / 8, i / 4 % 2) + i % 4;
      query_weight[place] = offset + static_cast<float>(query_norm[i]);
      key_weight[place] = offset + static_cast<float>(key_norm[i]);
    }
  }

  // `count` rows on their way to shared memory. Behind the first `left`, with which the sequence ends, come zeros: what
  // lies past its end may be NaN, and 0 * NaN is not 0. A thread brings the same 16 bytes of one row in LINES.
  const int line = threadIdx.x / UNITS, column = threadIdx.x % UNITS * 8;
  const auto bring = [&](T* to, const T* from, int count, int left) {
    if (THREADS % UNITS != 0 && line >= LINES) return;
    to += line * STRIDE + column;
    from += static_cast<long long>(line) * stride + column;
    const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
    if (aligned) {
#pragma unroll
      for (int row = 0; row < count; row += LINES) {
        if (count % LINES == 0 || row + line < count) {
          asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place + row * STRIDE * 2),
                       "l"(from + static_cast<long long>(row) * stride), "r"(row + line < left ? 16 : 0));
        }
      }
    } else {
#pragma unroll 1
      for (int row = 0; row + line < count; row += LINES) {
#pragma unroll 1
        for (int i = 0; i < 8; ++i) {
          to[row * STRIDE + i] = row + line < left ? from[static_cast<long long>(row) * stride + i] : T(0.0f);
        }
      }
    }
  };
  const auto load = [&](int stage, int from) {
    const T* const source = keys + static_cast<long long>(from) * stride;
    bring(key_tile + stage * KEYS * STRIDE, source, KEYS, length - from);
    bring(value_tile + stage * KEYS * STRIDE, source + kv, KEYS, length - from);
    asm volatile("cp.async.commit_group;");
  };

  const auto matrices = [&](unsigned (&to)[4], const T* from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))));
  };
  const auto transposed = [&](unsigned (&to)[4], const T* from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))));
  };

  const auto [start, end] = keys_of(first, last, length, window, KEYS);
  if constexpr (KEPT) {
#pragma unroll
    for (int member = 0; member < TEAM; ++member) {
      const T* const source = queries + static_cast<long long>(first) * stride + member * D;
      bring(query_tile + member * QUERIES * STRIDE, source, QUERIES, last - first);
    }
  }
  load(0, start);  // and the queries with them
  if (start + KEYS < end) {
    load(1, start + KEYS);
  }

  // In a 16 x 8 fragment this lane holds columns (0, 1) + 2 * (lane % 4) of rows lane / 4 and lane / 4 + 8.
  const int warp_first = first + warp % TEAM_WARPS * TILES * 16;
  const int fragment_row = lane / 4;
  const int fragment_column = lane % 4 * 2;
  unsigned query[TILES][KEPT ? 1 : DEPTH][4];
#pragma unroll
  for (int m = 0; m < TILES && !KEPT; ++m) {
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = warp_first + m * 16 + fragment_row + i % 2 * 8;
        const T* from = queries + static_cast<long long>(row) * stride + (head - team_head) * D + k * 16 +
                        fragment_column + i / 2 * 8;
        query[m][k][i] = 0;
        if (row < last) {
          if (aligned) {
            query[m][k][i] = *reinterpret_cast<const unsigned*>(from);
          } else {
            query[m][k][i] = rounded(static_cast<float>(from[0]), static_cast<float>(from[1]));
          }
        }
      }
    }
  }

  if constexpr (ROTATE && !KEPT) {
    if constexpr (NORM) __syncthreads();  // the weights are there
#pragma unroll
    for (int m = 0; m < TILES; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // a lane holds parts of two rows, the rest of which three others hold
        const int row = min(warp_first + m * 16 + fragment_row + half * 8, length - 1);
        float norm = 1.0f;
        if constexpr (NORM) {
          float square = 0.0f;
#pragma unroll
          for (int k = 0; k < DEPTH; ++k) {
            const float2 x = unpacked(query[m][k][half]), y = unpacked(query[m][k][half + 2]);
            square += x.x * x.x + x.y * x.y + y.x * y.x + y.y * y.y;
          }
          square += __shfl_xor_sync(0xffffffff, square, 1);
          square += __shfl_xor_sync(0xffffffff, square, 2);
          norm = rsqrtf(square / D + eps);
        }
#pragma unroll
        for (int k = 0; k < DEPTH / 2; ++k) {
#pragma unroll
          for (int i = half; i < 4; i += 2) {
            const int column = k * 16 + fragment_column + i / 2 * 8;
            float2 x = unpacked(query[m][k][i]), y = unpacked(query[m][k + DEPTH / 2][i]);
            if constexpr (NORM) {
              const float* const weights = query_weight + fragment_column % 4;
              const int piece = k * 2 + i / 2, second = fragment_column / 4;
              const float2 u = *reinterpret_cast<const float2*>(weights + place_of(0, piece, second));
              const float2 v = *reinterpret_cast<const float2*>(weights + place_of(1, piece, second));
              x = make_float2(x.x * (norm * u.x), x.y * (norm * u.y));
              y = make_float2(y.x * (norm * v.x), y.y * (norm * v.y));
            }
            const long long angle = static_cast<long long>(row) * (D / 2) + column;
            const float2 c = two(cosines + angle), s = two(sines + angle);
            query[m][k][i] = rounded(x.x * c.x - y.x * s.x, x.y * c.y - y.y * s.y);
            query[m][k + DEPTH / 2][i] = rounded(y.x * c.x + x.x * s.x, y.y * c.y + x.y * s.y);
          }
        }
      }
    }
  }

  // Vectors of KEYS places, the first at place `from`, normalised and turned where they lie: SHARE threads a vector,
  // each for pieces of 8 pairs. A thread that has one piece alone asks for its angles before it waits for the vectors.
  constexpr int SHARE = THREADS / KEYS;
  constexpr bool AHEAD = D / 16 == SHARE;
  const int part = threadIdx.x % SHARE;
  const auto angles_of = [&](int from, int piece) {
    const int row = min(from + static_cast<int>(threadIdx.x) / SHARE, length - 1);
    const long long angle = static_cast<long long>(row) * (D / 2) + piece * 8;
    Angles of;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
      of.cosine[i] = *reinterpret_cast<const uint4*>(cosines + angle + i * 4);
      of.sine[i] = *reinterpret_cast<const uint4*>(sines + angle + i * 4);
    }
    return of;
  };
  const auto turn = [&](T* vectors, int from, const float* weight, const Angles& first_angles) {
    T* const vector = vectors + threadIdx.x / SHARE * STRIDE;
    float norm = 1.0f;
    if constexpr (NORM) {
      float square = 0.0f;
#pragma unroll
      for (int piece = part; piece < D / 16; piece += SHARE) {
        const uint4 low = *reinterpret_cast<const uint4*>(vector + piece * 8);
        const uint4 high = *reinterpret_cast<const uint4*>(vector + piece * 8 + D / 2);
        const unsigned x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float2 a = unpacked(x[i]);
          square += a.x * a.x + a.y * a.y;
        }
      }
#pragma unroll
      for (int step = SHARE / 2; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffff, square, step);
      norm = rsqrtf(square / D + eps);
    }
#pragma unroll
    for (int piece = part; piece < D / 16; piece += SHARE) {
      const Angles angles = AHEAD ? first_angles : angles_of(from, piece);
      uint4* const low = reinterpret_cast<uint4*>(vector + piece * 8);
      uint4* const high = reinterpret_cast<uint4*>(vector + piece * 8 + D / 2);
      unsigned x[4] = {low->x, low->y, low->z, low->w}, y[4] = {high->x, high->y, high->z, high->w};
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const float4 c = four(angles.cosine, i / 2), s = four(angles.sine, i / 2);
        float2 a = unpacked(x[i]), b = unpacked(y[i]), e = unpacked(x[i + 1]), f = unpacked(y[i + 1]);
        if constexpr (NORM) {
          const float4 u = *reinterpret_cast<const float4*>(weight + place_of(0, piece, i / 2));
          const float4 v = *reinterpret_cast<const float4*>(weight + place_of(1, piece, i / 2));
          a = make_float2(a.x * (norm * u.x), a.y * (norm * u.y));
          e = make_float2(e.x * (norm * u.z), e.y * (norm * u.w));
          b = make_float2(b.x * (norm * v.x), b.y * (norm * v.y));
          f = make_float2(f.x * (norm * v.z), f.y * (norm * v.w));
        }
        x[i] = rounded(a.x * c.x - b.x * s.x, a.y * c.y - b.y * s.y);
        y[i] = rounded(b.x * c.x + a.x * s.x, b.y * c.y + a.y * s.y);
        x[i + 1] = rounded(e.x * c.z - f.x * s.z, e.y * c.w - f.y * s.w);
        y[i + 1] = rounded(f.x * c.z + e.x * s.z, f.y * c.w + e.y * s.w);
      }
      *low = make_uint4(x[0], x[1], x[2], x[3]);
      *high = make_uint4(y[0], y[1], y[2], y[3]);
    }
  };

  if constexpr (ROTATE && KEPT) {
    Angles angles[QUERIES / KEYS];
#pragma unroll
    for (int i = 0; i < QUERIES / KEYS; ++i) {
      if constexpr (AHEAD) angles[i] = angles_of(first + i * KEYS, part);
    }
    if (start + KEYS < end) {
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < QUERIES / KEYS; ++i) {
#pragma unroll
      for (int member = 0; member < TEAM; ++member) {
        turn(query_tile + (member * QUERIES + i * KEYS) * STRIDE, first + i * KEYS, query_weight, angles[i]);
      }
    }
  }

  float result[TILES][D / 8][4] = {};
  float maximum[TILES][2];
  float sum[TILES][2];
#pragma unroll
  for (int m = 0; m < TILES; ++m) {
    maximum[m][0] = maximum[m][1] = -1e30f;  // finite, so that a tile with no key for a row leaves no NaN
    sum[m][0] = sum[m][1] = 0.0f;
  }

  int stage = 0;
  for (int from = start; from < end; from += KEYS, stage ^= 1) {
    Angles angles;
    if constexpr (ROTATE && AHEAD) angles = angles_of(from, part);
    if (from + KEYS < end) {
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    if constexpr (ROTATE) {
      turn(key_tile + stage * KEYS * STRIDE, from, key_weight, angles);
      __syncthreads();
    }
    if (warp_first < last && (!CAUSAL || from < warp_first + TILES * 16)) {
      float score[TILES][KEYS / 8][4] = {};
#pragma unroll
      for (int k = 0; k < DEPTH; ++k) {
        if constexpr (KEPT) {
#pragma unroll
          for (int m = 0; m < TILES; ++m) {
            matrices(query[m][0], kept + (m * 16 + lane % 16) * STRIDE + k * 16 + lane / 16 * 8);
          }
        }
#pragma unroll
        for (int j = 0; j < KEYS / 16; ++j) {
          unsigned b[4];
          matrices(b,
                   key_tile + (stage * KEYS + j * 16 + lane % 8 + lane / 16 * 8) * STRIDE + k * 16 + lane / 8 % 2 * 8);
#pragma unroll
          for (int m = 0; m < TILES; ++m) {
            const unsigned (&a)[4] = query[m][KEPT ? 0 : k];
            multiply(score[m][2 * j], a[0], a[1], a[2], a[3], b[0], b[1]);
            multiply(score[m][2 * j + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
          }
        }
      }

      if (HAS_BIAS || HAS_WINDOW || from + KEYS > length || (CAUSAL && from + KEYS > warp_first)) {
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
          for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const int row = warp_first + m * 16 + fragment_row + i / 2 * 8;
              const int column = from + j * 8 + fragment_column + i % 2;
              const bool attended = attends(row, column, length, window);
              if constexpr (HAS_BIAS) {
                score[m][j][i] *= scale;
                if (attended && row < last) {
                  score[m][j][i] += static_cast<float>(bias_at_zero[column - row]) * LOG2E;
                }
              }
              score[m][j][i] = attended ? score[m][j][i] : -__int_as_float(0x7f800000);
            }
          }
        }
      }

      const float factor = HAS_BIAS ? 1.0f : scale;  // what is left to multiply the scores with
#pragma unroll
      for (int m = 0; m < TILES; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float highest = maximum[m][half];
#pragma unroll
          for (int j = 0; j < KEYS / 8; ++j) {
            highest = fmaxf(highest, fmaxf(score[m][j][2 * half], score[m][j][2 * half + 1]));
          }
          highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 1));
          highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 2));
          const float shrink = exp2_fast((maximum[m][half] - highest) * factor);
          maximum[m][half] = highest;
          const float offset = highest * factor;
          float added = 0.0f;
#pragma unroll
          for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
              score[m][j][i] = exp2_fast(fmaf(score[m][j][i], factor, -offset));
              added += score[m][j][i];
            }
          }
          sum[m][half] = sum[m][half] * shrink + added;
#pragma unroll
          for (int d = 0; d < D / 8; ++d) {
            result[m][d][2 * half] *= shrink;
            result[m][d][2 * half + 1] *= shrink;
          }
        }
      }

#pragma unroll
      for (int j = 0; j < KEYS / 16; ++j) {
        unsigned weights[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const auto& pairs = score[m][2 * j + i / 2];
            weights[m][i] = rounded(pairs[i % 2 * 2], pairs[i % 2 * 2 + 1]);
          }
        }
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          unsigned b[4];
          transposed(b, value_tile + (stage * KEYS + j * 16 + lane % 16) * STRIDE + d * 16 + lane / 16 * 8);
#pragma unroll
          for (int m = 0; m < TILES; ++m) {
            multiply(result[m][2 * d], weights[m][0], weights[m][1], weights[m][2], weights[m][3], b[0], b[1]);
            multiply(result[m][2 * d + 1], weights[m][0], weights[m][1], weights[m][2], weights[m][3], b[2], b[3]);
          }
        }
      }
    }
    if (from + 2 * KEYS < end) {
      __syncthreads();  // every warp is done with this stage
      load(stage, from + 2 * KEYS);
    }
  }

  // By way of shared memory, where each warp has room for its own rows, so that whole rows are written at a time.
  T* const rows = KEPT ? kept : key_tile + warp * TILES * 16 * STRIDE;
  if constexpr (KEPT) {
    __syncwarp();  // this warp is done with its queries
  } else {
    __syncthreads();  // every warp is done with keys and values
  }
#pragma unroll
  for (int m = 0; m < TILES; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float whole = sum[m][half];
      whole += __shfl_xor_sync(0xffffffff, whole, 1);
      whole += __shfl_xor_sync(0xffffffff, whole, 2);
      const float inverse = 1.0f / whole;
      T* const to = rows + (m * 16 + fragment_row + half * 8) * STRIDE + fragment_column;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        *reinterpret_cast<unsigned*>(to + d * 8) =
            rounded(result[m][d][2 * half] * inverse, result[m][d][2 * half + 1] * inverse);
      }
    }
  }
  __syncwarp();
  constexpr int AT_ONCE = 32 / UNITS;
  const int mine = lane / UNITS, from = lane % UNITS * 8;
#pragma unroll
  for (int first_row = 0; first_row < TILES * 16; first_row += AT_ONCE) {
    const int row = first_row + mine;
    if ((32 % UNITS == 0 || (mine < AT_ONCE && row < TILES * 16)) && warp_first + row < last) {
      *reinterpret_cast<uint4*>(out + static_cast<long long>(begin + warp_first + row) * width + head * D + from) =
          *reinterpret_cast<const uint4*>(rows + row * STRIDE + from);
    }
  }
}
