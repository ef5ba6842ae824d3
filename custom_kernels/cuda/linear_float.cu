// out [total, N] = act(x w^T + b) + residual in float32; or, with GATE, [total, N / 2] as linear_streamed.cu has it.
// The tensor cores multiply float16, which has 11 bits. A float32 is the sum of two of them, within 2^-23 of it, if
// float16 has its exponent: so w is laid out times 2^SHIFT, and of x each 64 columns of a row are multiplied by a power
// of two. A product of two float32 is then three products of theirs, within 2^-21 of it, and mostly far nearer. Sums of
// the tensor cores are cut off and not rounded: they are of 64 columns, the small products first, and the threads add
// them up. That is as precise as a sum of float32's products.
// x and w, laid out by `lay_out` of products.py, stream by. Compiled in: T (float), BFLOAT (not), K (a multiple of 64),
// N, COLUMNS, STAGES, GROUPS, CLUSTER (1), SHIFT, ACTIVATION and HAS_BIAS as in linear.cu, HAS_RESIDUAL, GATE, PRODUCT
// (the instruction).
#include "shared/activations.cuh"
#include "shared/halves.cuh"
#include "shared/tile.cuh"

constexpr int COLUMN_BYTES = COLUMNS * 128;  // of a place: one of two float16 of w
constexpr int ROW_BYTES = 64 * 4 + 64;       // of x, such that what lanes read at once lies in different banks
constexpr int STAGE_BYTES = 2 * COLUMN_BYTES + ROWS * ROW_BYTES;
constexpr int ARRIVALS = 129;        // at a barrier that says that a place is full: one thread's are two
constexpr int PARTS = GATE ? 2 : 1;  // of w, of which a tile has columns
constexpr int WIDTH = N / PARTS;
constexpr int BANDS = COLUMNS / 32 / PARTS;  // of 32 columns, of a tile's result

#include "shared/order.cuh"
#include "shared/ring.cuh"

// Of 64 columns of two rows this thread's, 4 of each 16, as two float16.
struct Fragments {
  unsigned high[4][4], low[4][4];
  float inverse[2];  // of what the rows were multiplied by
};

__device__ void product(float (&sum)[SUMS], const unsigned (&a)[4], unsigned long long columns, int keep) { PRODUCT; }

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear_float(const T* x, const unsigned short* w, const T* bias, const T* residual, T* out, int total) {
  extern __shared__ unsigned char memory[];
  unsigned char* const places = memory + (1024 - shared_address(memory) % 1024) % 1024;
  Ring ring(shared_address(places));
  if (threadIdx.x == 0) ring.initialise();
  __syncthreads();

  const Order order(total);
  const int tiles = order.tiles();
  const int group = threadIdx.x / 128;
  const int lane = threadIdx.x % 32;

  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    const int thread = threadIdx.x % 128, own_row = thread / 16, own_chunk = thread % 16;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int first = order.first_row(tile, 0) + own_row, left = order.span(tile) * COLUMNS / PARTS;
      for (int depth = 0; depth < DEPTHS; ++depth) {
        barrier_wait(ring.empty + ring.stage * 8, ring.parity ^ 1);
        const unsigned barrier = ring.full + ring.stage * 8;
        if (thread == 0) {
          expect(barrier, 2 * COLUMN_BYTES);
#pragma unroll
          for (int i = 0; i < 2 * PARTS; ++i) {
            const long long column = static_cast<long long>(i % 2 * DEPTHS + depth) * N + i / 2 * WIDTH + left;
            const unsigned to = ring.place() + i % 2 * COLUMN_BYTES + i / 2 * (COLUMN_BYTES / 2);
            copy(to, w + column * 64, COLUMN_BYTES / PARTS, barrier);
          }
        }
        const unsigned to = ring.place() + 2 * COLUMN_BYTES + own_row * ROW_BYTES + own_chunk * 16;
#pragma unroll 8
        for (int i = 0; i < ROWS / 8; ++i) {
          const int row = min(first + i * 8, total - 1);  // of what is behind the last nothing is kept
          asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + i * 8 * ROW_BYTES),
                       "l"(x + static_cast<long long>(row) * K + depth * 64 + own_chunk * 4)
                       : "memory");
        }
        arrive_when_there(barrier);
        ring.advance();
      }
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
  const int own = threadIdx.x / 32 * 16 + lane / 4;  // of a tile's rows, and 8 below

  // What the ring's next place has of this thread's rows, once it is full.
  const auto read = [&](Fragments& fragments) {
    barrier_wait(ring.full + ring.stage * 8, ring.parity);
    const unsigned char* const rows =
        places + ring.stage * STAGE_BYTES + 2 * COLUMN_BYTES + own * ROW_BYTES + lane % 4 * 16;
    float4 part[2][4];
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float greatest = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const unsigned char* const from = rows + half * 8 * ROW_BYTES + i * 64;
        const float4 four = part[half][i] = *reinterpret_cast<const float4*>(from);
        greatest = fmaxf(greatest, fmaxf(fmaxf(fabsf(four.x), fabsf(four.y)), fmaxf(fabsf(four.z), fabsf(four.w))));
      }
      greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffff, greatest, 1));
      greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffff, greatest, 2));
      // Exponents as float32 has them. The greatest becomes 2^14 to 2^15; float16 ends at 2^16.
      const unsigned exponent = max(__float_as_uint(greatest) >> 23, 15 + SHIFT);
      scale[half] = __uint_as_float((268 - exponent) << 23);
      fragments.inverse[half] = __uint_as_float((exponent - 14 - SHIFT) << 23);
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int half = i % 2;
      const float4 four = part[half][i / 4];
      const float first = (i / 2 % 2 ? four.z : four.x) * scale[half];
      const float second = (i / 2 % 2 ? four.w : four.y) * scale[half];
      const unsigned high = rounded(first, second);
      const float2 rest = unpacked(high);
      fragments.high[i / 4][i % 4] = high;
      fragments.low[i / 4][i % 4] = rounded(first - rest.x, second - rest.y);
    }
  };

  // 8 columns of one of a thread's two rows of a tile's result.
  const auto store = [&](const float (&sum)[SUMS], int row, int left, int band, int half) {
    const int column = left + band * 32;
    row += half * 8;
    if (row >= total) return;
    const long long place = static_cast<long long>(row) * WIDTH + column;
#pragma unroll
    for (int part = 0; part < 8; part += 4) {
      const auto at = [](const float* from) { return *reinterpret_cast<const float4*>(from); };
      float4 offsets = {}, others = {};
      if constexpr (HAS_BIAS) {
        offsets = at(bias + column + part);
        if constexpr (GATE != 0) others = at(bias + WIDTH + column + part);
      }
      float v[4] = {offsets.x, offsets.y, offsets.z, offsets.w}, z[4] = {others.x, others.y, others.z, others.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int sum_place = band * 16 + (part + i) / 2 * 4 + half * 2 + i % 2;
        v[i] += sum[sum_place];
        if constexpr (GATE != 0) {
          z[i] += sum[BANDS * 16 + sum_place];
          v[i] = GATE == 1 ? activation<ACTIVATION>(v[i]) * z[i] : activation<ACTIVATION>(z[i]) * v[i];
        } else if constexpr (ACTIVATION >= 0) {
          v[i] = activation<ACTIVATION>(v[i]);
        }
      }
      if constexpr (HAS_RESIDUAL) {
        const float4 four = at(residual + place + part);
        v[0] += four.x, v[1] += four.y, v[2] += four.z, v[3] += four.w;
      }
      *reinterpret_cast<float4*>(out + place + part) = make_float4(v[0], v[1], v[2], v[3]);
    }
  };
  const auto store_all = [&](const float (&sum)[SUMS], int row, int left) {
#pragma unroll
    for (int part = 0; part < 2 * BANDS; ++part) store(sum, row, left, part / 2, part % 2);
  };

  float whole[SUMS], sum[SUMS];
  int row = 0, left = 0;  // of the results that are there
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
#pragma unroll 1
    for (int depth = 0; depth < DEPTHS; ++depth) {
      Fragments fragments;
      read(fragments);
      begin_wgmma();
      const unsigned long long high = described(ring.place()), low = described(ring.place() + COLUMN_BYTES);
#pragma unroll
      for (int i = 0; i < 4; ++i) product(sum, fragments.low[i], high + i * 2, i > 0);
#pragma unroll
      for (int i = 0; i < 4; ++i) product(sum, fragments.high[i], low + i * 2, 1);
#pragma unroll
      for (int i = 0; i < 4; ++i) product(sum, fragments.high[i], high + i * 2, 1);
      commit_wgmma();
      if (depth == 0) {  // meanwhile
        if (tile >= gridDim.x) store_all(whole, row, left);
#pragma unroll
        for (int i = 0; i < SUMS; ++i) whole[i] = 0.0f;
      }
      finish_wgmma<0>();
      pin(sum);
      hand_back(ring.empty + ring.stage * 8, lane);
      ring.advance();
#pragma unroll
      for (int i = 0; i < SUMS; ++i) whole[i] = fmaf(sum[i], fragments.inverse[i / 2 % 2], whole[i]);
    }
    row = order.first_row(tile, 0) + own;
    left = order.span(tile) * BANDS * 32 + lane % 4 * 8;
  }
  if (blockIdx.x < tiles) store_all(whole, row, left);
}
