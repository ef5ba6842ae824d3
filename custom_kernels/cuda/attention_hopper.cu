// softmax(scale Q K^T) V as attention.cu has it, on Hopper's tensor cores (wgmma), which long texts keep busy.
// A block stays on its multiprocessor and takes tiles in turn: QUERIES queries of one head and sequence, 64 a
// warpgroup, which walks over the keys, KEYS at a time. One more warpgroup brings them through a ring of STAGES places,
// and the next tile's queries when those before are done with. While the tensor cores multiply the weights of some keys
// with their values, the threads make weights of the next scores. Compiled in: T of 16 bits, BFLOAT, D (64, 128 or
// 256), HEADS, GROUP (so many of them share one of key and value), GROUPS (warpgroups of queries), KEYS, STAGES, FEW
// and MANY (registers of a thread that brings and of one that computes), HAS_WINDOW, CAUSAL, SCORES and RESULTS (the
// instructions).
#include "shared/attention.cuh"
#include "shared/halves.cuh"
#include "shared/hopper.cuh"
#include "shared/sequences.cuh"

constexpr int QUERIES = GROUPS * 64;
constexpr int THREADS = (GROUPS + 1) * 128;
constexpr int UNITS = D / 8;           // of 16 bytes, of a row
constexpr int LINES = 128 / UNITS;     // rows that the threads bring at a time
constexpr int BLOCK_BYTES = 64 * 128;  // of 64 queries, 64 columns of them
constexpr int KEYS_BYTES = KEYS * 128;
constexpr int PLACE_BYTES = KEYS * D * 2;

__device__ void add_scores(float (&sum)[KEYS / 2], unsigned long long rows, unsigned long long columns, int keep) {
  SCORES;
}
__device__ void add_results(float (&sum)[D / 2], const unsigned (&a)[4], unsigned long long columns, int keep) {
  RESULTS;
}

// A place of the ring, and which of its fillings it is.
struct Turn {
  int stage = 0, parity = 0;

  __device__ void advance() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// What a block computes next: queries from `first` on of the sequence that begins at token `begin`.
struct Work {
  int head, begin, length, first;

  __device__ int last() const { return min(first + QUERIES, length); }
  __device__ Keys keys(int window) const { return keys_of(first, last(), length, window, KEYS); }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_hopper(const T* qkv, const int* cu_seqlens, T* out, int total, int n, int slots, float scale,
                     int window) {
  extern __shared__ unsigned char memory[];
  __shared__ Work next_work[1];
  const unsigned queries = (shared_address(memory) + 1023) / 1024 * 1024;
  const unsigned keys = queries + GROUPS * D / 64 * BLOCK_BYTES, values = keys + STAGES * PLACE_BYTES;
  // Of each place of keys a barrier that says that it is full and one that it is empty again; so of values; and of the
  // queries.
  const unsigned full = values + STAGES * PLACE_BYTES, empty = full + (2 * STAGES + 1) * 8;
  constexpr int OF_VALUES = STAGES * 8, OF_QUERIES = 2 * STAGES * 8;
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2 * STAGES; ++s) {
      barrier_initialise(full + s * 8, 128);
      barrier_initialise(empty + s * 8, GROUPS * 4);
    }
    barrier_initialise(full + OF_QUERIES, 129);
    barrier_initialise(empty + OF_QUERIES, GROUPS * 4);
    barriers_are_there();
  }
  __syncthreads();

  constexpr int width = HEADS * D;  // of the result
  constexpr int kv = HEADS / GROUP * D;
  constexpr int stride = width + 2 * kv;
  const int lane = threadIdx.x % 32;
  const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
  Turn turn;
  int parity = 0;  // of the queries

  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FEW));
    const int line = threadIdx.x % 128 / UNITS, unit = threadIdx.x % UNITS;
    const unsigned own = unit / 8 * 128, within = line * 128 + ((unit % 8 ^ line % 8) << 4);
    const bool aligned = reinterpret_cast<unsigned long long>(qkv) % 16 == 0;  // a slice may start anywhere
    // Rows on their way to shared memory, in the order of the tensor cores' 128-byte swizzle. Behind the first `left`,
    // with which the sequence ends, come zeros: what lies past its end may be NaN, and 0 * NaN is not 0.
    const auto bring = [&](unsigned to, const T* from, int rows, int left) {
      to += own * rows + within;
#pragma unroll 8
      for (int i = 0; i < rows / LINES; ++i) {
        const unsigned place = (to ^ (i * LINES % 8 << 4)) + i * LINES * 128;
        const T* const row = from + static_cast<long long>(i * LINES) * stride;
        const bool there = i * LINES + line < left;
        if (aligned) {
          asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(row), "r"(there ? 16 : 0)
                       : "memory");
        } else {
          T* const slowly = reinterpret_cast<T*>(memory + (place - shared_address(memory)));
#pragma unroll 1
          for (int j = 0; j < 8; ++j) slowly[j] = there ? row[j] : T(0.0f);
        }
      }
    };
    // All that has been brought since is for whoever waits for `barrier`. What cp.async has written the tensor cores
    // read with no fence between, as they do in NVIDIA's own kernels (CUTLASS), and nothing else.
    const auto announce = [&](unsigned barrier) {
      if (aligned) return arrive_when_there(barrier);
      asm volatile("fence.proxy.async;" ::: "memory");
      barrier_arrive(barrier);
    };
    for (int next = blockIdx.x; next < slots * HEADS; next += gridDim.x) {
      // Heads side by side, so that the blocks at work share what the cache has.
      const Tile tile = tile_of(cu_seqlens, n, total, QUERIES, next / HEADS, slots, lane);
      Work work;
      work.head = next % HEADS;
      work.begin = cu_seqlens[tile.sequence];
      if (work.begin == total) break;  // a place for a text that there is not, and so are all behind it
      work.length = cu_seqlens[tile.sequence + 1] - work.begin;
      const int tiles = (work.length + QUERIES - 1) / QUERIES;
      if (tile.index >= tiles) continue;
      work.first = (CAUSAL ? tiles - 1 - tile.index : tile.index) * QUERIES;  // those with the most keys first
      const T* const source = qkv + static_cast<long long>(work.begin + line) * stride + work.head * D + unit * 8;
      const T* const source_keys = source + width + (work.head / GROUP - work.head) * D;

      barrier_wait(empty + OF_QUERIES, parity ^ 1);
      parity ^= 1;
      if (threadIdx.x % 128 == 0) {
        next_work[0] = work;
        barrier_arrive(full + OF_QUERIES);
      }
#pragma unroll 1
      for (int g = 0; g < GROUPS; ++g) {
        bring(queries + g * D / 64 * BLOCK_BYTES, source + static_cast<long long>(work.first + g * 64) * stride, 64,
              work.length - work.first - g * 64);
      }
      announce(full + OF_QUERIES);
      const auto [start, end] = work.keys(window);
      for (int from = start; from < end; from += KEYS) {
        const T* const here = source_keys + static_cast<long long>(from) * stride;
#pragma unroll 1
        for (int what = 0; what < 2; ++what) {
          const int barrier = what * OF_VALUES + turn.stage * 8;
          barrier_wait(empty + barrier, turn.parity ^ 1);
          bring((what ? values : keys) + turn.stage * PLACE_BYTES, here + what * kv, KEYS, work.length - from);
          announce(full + barrier);
        }
        turn.advance();
      }
    }
    barrier_wait(empty + OF_QUERIES, parity ^ 1);
    if (threadIdx.x % 128 == 0) {
      next_work[0].first = -1;
      barrier_arrive(full + OF_QUERIES);
    }
    barrier_arrive(full + OF_QUERIES);
    return;
  }

  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MANY));
  scale *= LOG2E;  // exp(x) is exp2(x * LOG2E)
  const int warp = threadIdx.x / 32 % 4;
  const unsigned own_queries = queries + group * D / 64 * BLOCK_BYTES;
  // In a 16 x 8 fragment this lane holds columns (0, 1) + 2 * (lane % 4) of rows lane / 4 and lane / 4 + 8.
  const int fragment_row = lane / 4, fragment_column = lane % 4 * 2;
  const auto hand_back = [&](int barrier) {
    if (lane == 0) barrier_arrive(empty + barrier);
  };

  for (;; parity ^= 1) {
    barrier_wait(full + OF_QUERIES, parity);
    if (next_work[0].first < 0) break;
    const Work work = next_work[0];
    const auto [start, end] = work.keys(window);
    const int last = work.last(), group_first = work.first + group * 64, own_first = group_first + warp * 16;
    int from = start;
    // The keys that this warpgroup's queries attend to, which may end before others' do.
    const int own_end = group_first >= last ? start : CAUSAL ? min(group_first + 64, end) : end;

    float score[KEYS / 2], result[D / 2] = {};
    unsigned weights[KEYS / 16][4];
    float maximum[2] = {-1e30f, -1e30f};  // finite, so that keys that no query sees leave no NaN
    float sum[2] = {}, shrink[2];

    const auto multiply_keys = [&](const Turn& turn) {
      barrier_wait(full + turn.stage * 8, turn.parity);
      begin_wgmma();
      const unsigned place = keys + turn.stage * PLACE_BYTES;
#pragma unroll
      for (int c = 0; c < D / 64; ++c) {
        const unsigned long long a = described(own_queries + c * BLOCK_BYTES), b = described(place + c * KEYS_BYTES);
#pragma unroll
        for (int i = 0; i < 4; ++i) add_scores(score, a + i * 2, b + i * 2, c + i > 0);
      }
      commit_wgmma();
    };
    const auto multiply_values = [&](const Turn& turn) {
      barrier_wait(full + OF_VALUES + turn.stage * 8, turn.parity);
      begin_wgmma();
      const unsigned long long b = described(values + turn.stage * PLACE_BYTES, KEYS_BYTES);
#pragma unroll
      for (int j = 0; j < KEYS / 16; ++j) add_results(result, weights[j], b + j * 128, 1);
      commit_wgmma();
    };
    // The scores of keys from `from` on become weights, relative to the highest so far.
    const auto weigh = [&](int from) {
      bool partly = from + KEYS > work.length;
      if constexpr (CAUSAL) partly = partly || from + KEYS > group_first + 1;
      if constexpr (HAS_WINDOW) {
        partly = partly || from < group_first + 63 - window || from + KEYS > group_first + window + 1;
      }
      if (partly) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; ++i) {
          const int row = own_first + fragment_row + i / 2 % 2 * 8;
          const int column = from + i / 4 * 8 + fragment_column + i % 2;
          score[i] = attends(row, column, work.length, window) ? score[i] : -__int_as_float(0x7f800000);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = maximum[half];
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j) {
          highest = fmaxf(highest, fmaxf(score[j * 4 + half * 2], score[j * 4 + half * 2 + 1]));
        }
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 2));
        shrink[half] = exp2_fast((maximum[half] - highest) * scale);
        maximum[half] = highest;
        const float offset = highest * scale;
        float added = 0.0f;
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
          for (int i = j * 4 + half * 2; i < j * 4 + half * 2 + 2; ++i) {
            score[i] = exp2_fast(fmaf(score[i], scale, -offset));
            added += score[i];
          }
        }
        sum[half] = sum[half] * shrink[half] + added;
      }
    };
    const auto round_weights = [&] {
#pragma unroll
      for (int i = 0; i < KEYS / 4; ++i) weights[i / 4][i % 4] = rounded(score[i * 2], score[i * 2 + 1]);
    };

    if (from < own_end) {
      multiply_keys(turn);
      finish_wgmma<0>();
      pin(score);
      hand_back(turn.stage * 8);
      weigh(from);
      round_weights();
      for (from += KEYS; from < own_end; from += KEYS) {
        const Turn before = turn;
        turn.advance();
        multiply_keys(turn);
        multiply_values(before);
        finish_wgmma<1>();
        pin(score);
        hand_back(turn.stage * 8);
        weigh(from);
        finish_wgmma<0>();
        pin(result);
        hand_back(OF_VALUES + before.stage * 8);
#pragma unroll
        for (int i = 0; i < D / 2; ++i) result[i] *= shrink[i / 2 % 2];
        round_weights();
      }
      hand_back(OF_QUERIES);
      multiply_values(turn);
      finish_wgmma<0>();
      pin(result);
      hand_back(OF_VALUES + turn.stage * 8);
      turn.advance();
    } else {
      __syncwarp();  // all of its threads know their work
      hand_back(OF_QUERIES);
    }
    for (; from < end; from += KEYS, turn.advance()) {  // what other warpgroups still need
      for (int what = 0; what < 2; ++what) {
        const int barrier = what * OF_VALUES + turn.stage * 8;
        barrier_wait(full + barrier, turn.parity);
        __syncwarp();  // or one would wait for what another has handed back
        hand_back(barrier);
      }
    }

    // Of four lanes' pairs of columns in four fragments each lane gets those of one fragment, which lie side by side.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float whole = sum[half];
      whole += __shfl_xor_sync(0xffffffff, whole, 1);
      whole += __shfl_xor_sync(0xffffffff, whole, 2);
      const float inverse = 1.0f / whole;
      const int row = own_first + fragment_row + half * 8;
      T* const to = out + static_cast<long long>(work.begin + row) * width + work.head * D + lane % 4 * 8;
#pragma unroll
      for (int d = 0; d < D / 32; ++d) {
        unsigned pairs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* const two = result + (d * 4 + i) * 4 + half * 2;
          pairs[i] = rounded(two[0] * inverse, two[1] * inverse);
        }
#pragma unroll
        for (int step = 1; step < 4; step *= 2) {
          const bool second = lane & step;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (i & step) continue;
            const unsigned other = __shfl_xor_sync(0xffffffff, second ? pairs[i] : pairs[i | step], step);
            (second ? pairs[i] : pairs[i | step]) = other;
          }
        }
        if (row < last) *reinterpret_cast<uint4*>(to + d * 32) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      }
    }
  }
}
