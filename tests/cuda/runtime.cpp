// The functions of device.h, and those that a compiler calls before loads and stores. See __init__.py for what this
// proves and what it does not.
#include <math.h>

#include "block.h"
#include "device.h"
#include "hopper.h"

namespace emulation {

Place thread_index() { return {current}; }
Place block_index() { return {block->number}; }
Place block_size() { return {threads}; }
Place grid_size() { return {blocks}; }
void* array(int i) { return pointers[i]; }
int integer(int i) { return integers[i]; }
float number(int i) { return numbers[i]; }

// At the least alignment that its type has, so that more is never there by chance.
void* shared(const char* name, size_t bytes, size_t alignment, size_t element) {
  for (Array& array : arrays) {
    if (array.kind == SHARED && array.place == block->place && array.name == name) return array.data;
  }
  char* const data = add(name, SHARED, bytes, element, alignment);
  arrays.back().place = block->place;
  memset(data, 0xff, bytes);
  size_t declared = 0, asked = 0;
  for (const Array& array : arrays) {
    if (array.kind == SHARED && array.place == block->place) (array.name == "memory" ? asked : declared) += array.bytes;
  }
  if (declared > MOST_DECLARED || declared + asked > MOST_SHARED) {
    fail("a block declares " + std::to_string(declared) + " bytes of shared memory, and is given " +
         std::to_string(asked));
  }
  return data;
}
void* dynamic_shared() { return shared("memory", 0, 16, 2); }

}  // namespace emulation
using namespace emulation;

void __syncthreads(int line) {
  if (block->at_barrier && block->barrier_line != unsigned(line)) {
    fail("divergent block: some threads are at " + at("__syncthreads", block->barrier_line) + ", others at line " +
         std::to_string(line));
  }
  block->barrier_line = line;
  if (++block->at_barrier < threads) return wait("__syncthreads", line);
  block->at_barrier = 0;
  block->now = ++now;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[block->place * threads + i];
    fiber.state = Fiber::READY;
    fiber.touched = false;
  }
}

void __syncwarp(int line) {
  collective("__syncwarp", line, nullptr, [](void**) { ++block->warps[current / 32].time; });
}

static void all(unsigned members) {
  if (members != 0xffffffff) fail("a warp's operation of some lanes alone, which the emulation does not have");
}

unsigned __shfl_xor_sync(unsigned members, unsigned x, int lane, int line) {
  all(members);
  struct {
    unsigned x, result;
    int from;
  } mine = {x, 0, int(current % 32) ^ lane};
  if (mine.from < 0 || mine.from > 31) fail("a shuffle from outside of the warp");
  collective("__shfl_xor_sync", line, &mine, [](void** slots) {
    const auto of = reinterpret_cast<decltype(mine)**>(slots);
    for (int i = 0; i < 32; ++i) of[i]->result = of[of[i]->from]->x;
  });
  return mine.result;
}

float __shfl_xor_sync(unsigned members, float x, int lane, int line) {
  return __uint_as_float(__shfl_xor_sync(members, __builtin_bit_cast(unsigned, x), lane, line));
}
unsigned __shfl_sync(unsigned members, unsigned x, int lane, int line) {
  return __shfl_xor_sync(members, x, lane ^ int(current % 32), line);
}
float __shfl_sync(unsigned members, float x, int lane, int line) {
  return __shfl_xor_sync(members, x, lane ^ int(current % 32), line);
}

unsigned __ballot_sync(unsigned members, bool x, int line) {
  all(members);
  unsigned mine = x;
  collective("__ballot_sync", line, &mine, [](void** slots) {
    const auto of = reinterpret_cast<unsigned**>(slots);
    unsigned ballot = 0;
    for (int i = 0; i < 32; ++i) ballot |= *of[i] << i;
    for (int i = 0; i < 32; ++i) *of[i] = ballot;
  });
  return mine;
}

unsigned atomicAdd(unsigned* at, unsigned x) {
  access(at, 4, true, 4);
  return (*at += x) - x;
}

unsigned atomicExch(unsigned* at, unsigned x) {
  access(at, 4, true, 4);
  // Where every block has had a barrier since it last touched an output, all that it did is seen by all from here on.
  phase += std::none_of(fibers.begin(), fibers.end(), [](const Fiber& fiber) { return fiber.touched; });
  std::swap(*at, x);
  return x;
}

void __trap() { fail("__trap"); }

unsigned long long __cvta_generic_to_shared(const void* from) { return static_cast<const char*>(from) - room; }

namespace ptx {

static unsigned short half(float x) { return __builtin_bit_cast(unsigned short, static_cast<_Float16>(x)); }
static unsigned short bfloat(float x) {  // to the nearest, ties to even; a NaN stays one
  const unsigned word = __builtin_bit_cast(unsigned, x);
  return x != x ? 0x7fff : (word + 0x7fff + ((word >> 16) & 1)) >> 16;
}
static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

void cvt_rn_f16_f32(unsigned short& to, float x) { to = half(x); }
void cvt_f32_f16(float& to, unsigned short x) { to = from_half(x); }
void cvt_rn_bf16_f32(unsigned short& to, float x) { to = bfloat(x); }
void cvt_rn_f16x2_f32(unsigned& to, float high, float low) { to = half(low) | unsigned(half(high)) << 16; }
void cvt_rn_bf16x2_f32(unsigned& to, float high, float low) { to = bfloat(low) | unsigned(bfloat(high)) << 16; }
void mov_b32_cvt_f32_f16_cvt_f32_f16(float& low, float& high, unsigned both) {
  low = from_half(both);
  high = from_half(both >> 16);
}
void mov_u64(unsigned long long& to) {  // the clock, at which a thread looks while it waits for others
  to = clock_time += 100000;
  yield();
}

void ex2_approx_ftz_f32(float& to, float x) { to = flushed(exp2f(flushed(x))); }
void rcp_approx_ftz_f32(float& to, float x) { to = flushed(1.0f / flushed(x)); }

void cp_async_cg_shared_global(unsigned to, const void* from, int present, int bytes) {
  char* const place = room + to;
  if (bytes != 16 || present < 0 || present > bytes) fail("a copy that cp.async.cg does not make");
  if (present) access(from, present, false, 16);
  access(place, bytes, true, 16);
  memset(place, 0, bytes);
  memcpy(place, from, present);
  for (Cell& cell : cells_of(place, bytes)) cell.coming = true;
  fibers[fiber_number].copies.push_back({fibers[fiber_number].groups, place});
}
void cp_async_commit_group() { ++fibers[fiber_number].groups; }
void cp_async_wait_group(int most) {
  Fiber& fiber = fibers[fiber_number];
  const auto waits = [&](const auto& copy) { return copy.first >= fiber.groups - most; };
  for (const auto& copy : fiber.copies) {
    if (waits(copy)) continue;
    for (Cell& cell : cells_of(copy.second, 16)) {
      cell.coming = false;
      cell.written = this_time();
      cell.proxy = proxy_fences;
    }
  }
  fiber.copies.erase(std::stable_partition(fiber.copies.begin(), fiber.copies.end(), waits), fiber.copies.end());
}

struct Matrices {
  const char* from;
  unsigned to[4];
};
static void load_matrices(const char* what, bool transposed, unsigned& a, unsigned& b, unsigned& c, unsigned& d,
                          unsigned from, int line) {
  Matrices mine = {room + from, {}};
  access(mine.from, 16, false, 16);
  collective(what, line, &mine, [&](void** slots) {
    const auto of = reinterpret_cast<Matrices**>(slots);
    const auto element = [&](int matrix, int row, int column) -> unsigned {
      return reinterpret_cast<const unsigned short*>(of[8 * matrix + row]->from)[column];
    };
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        of[lane]->to[i] = transposed ? element(i, pair, row) | element(i, pair + 1, row) << 16
                                     : element(i, row, pair) | element(i, row, pair + 1) << 16;
      }
    }
  });
  a = mine.to[0];
  b = mine.to[1];
  c = mine.to[2];
  d = mine.to[3];
}
void ldmatrix_sync_aligned_m8n8_x4_shared_b16(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned from,
                                              int line) {
  load_matrices("ldmatrix", false, a, b, c, d, from, line);
}
void ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned from,
                                                    int line) {
  load_matrices("ldmatrix.trans", true, a, b, c, d, from, line);
}

struct Fragment {
  float* c[4];
  unsigned a[4], b[2];
};
template <class Number>
static void multiply(const char* what, int line, Fragment mine, Number number) {
  collective(what, line, &mine, [&](void** slots) {
    const auto of = reinterpret_cast<Fragment**>(slots);
    float a[16][16], b[16][8], sum[16][8] = {};
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) {
          a[row + j % 2 * 8][pair + j / 2 * 8 + i] = number(of[lane]->a[j] >> 16 * i & 0xffff);
        }
        for (int j = 0; j < 2; ++j) b[pair + j * 8 + i][row] = number(of[lane]->b[j] >> 16 * i & 0xffff);
      }
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < 16; ++k) {
        for (int column = 0; column < 8; ++column) sum[row][column] += a[row][k] * b[k][column];
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) *of[lane]->c[i] += sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
  });
}
void mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32(float& c0, float& c1, float& c2, float& c3, unsigned a0,
                                                         unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                                         unsigned b1, int line) {
  multiply("mma bf16", line, {{&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}}, from_bfloat);
}
void mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32(float& c0, float& c1, float& c2, float& c3, unsigned a0,
                                                       unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                                                       int line) {
  multiply("mma f16", line, {{&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}}, from_half);
}
void mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32(float& c0, float& c1, float& c2, float& c3, unsigned a0,
                                                        unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                                                        int line) {
  Fragment mine = {{&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}};
  collective("mma tf32", line, &mine, [](void** slots) {
    const auto of = reinterpret_cast<Fragment**>(slots);
    double a[16][8], b[8][8];
    const auto number = [](unsigned bits) { return double(__uint_as_float(bits & 0xffffe000)); };
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, quarter = lane % 4;
      for (int j = 0; j < 4; ++j) a[row + j % 2 * 8][quarter + j / 2 * 4] = number(of[lane]->a[j]);
      for (int j = 0; j < 2; ++j) b[quarter + j * 4][row] = number(of[lane]->b[j]);
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        double sum = *of[lane]->c[i];
        for (int k = 0; k < 8; ++k) sum += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
        *of[lane]->c[i] = cut(sum);
      }
    }
  });
}

}  // namespace ptx

// ------------------------------------------------------------------------------- what a compiler calls, and Python

extern "C" {

#define OF_BYTES(N)                                                  \
  void __tsan_read##N(void* p) { access(p, N, false, N); }           \
  void __tsan_write##N(void* p) { access(p, N, true, N); }           \
  void __tsan_unaligned_read##N(void* p) { access(p, N, false, 1); } \
  void __tsan_unaligned_write##N(void* p) { access(p, N, true, 1); }
OF_BYTES(1)
OF_BYTES(2)
OF_BYTES(4)
OF_BYTES(8)
OF_BYTES(16)
void __tsan_read_range(void* p, size_t bytes) { access(p, bytes, false, 1); }
void __tsan_write_range(void* p, size_t bytes) { access(p, bytes, true, 1); }
// clang copies and clears structures by these. Those of up to 16 bytes are vectors here, each at a multiple of its
// size.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  access(from, bytes, false, bytes > 16 ? 1 : bytes);
  access(to, bytes, true, bytes > 16 ? 1 : bytes);
  return memmove(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) { return __tsan_memcpy(to, from, bytes); }
void* __tsan_memset(void* to, int value, size_t bytes) {
  access(to, bytes, true, 1);
  return memset(to, value, bytes);
}
// The first of what a compiler says of it is the place in the source: a file, a line and a column.
void __ubsan_handle_out_of_bounds(const void* said, size_t index) {
  unsigned line;
  memcpy(&line, static_cast<const char*>(said) + sizeof(char*), sizeof(line));
  fail("index out of bounds: " + std::to_string(index) + " in line " + std::to_string(line));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

struct Given {
  const char* name;
  void* data;
  int64_t bytes, element, offset, kind;
};

// Runs the grid. What is wrong is said, and otherwise nothing; outputs are copied back.
const char* launch(void (*emulated)(), const Given* given, int count, const int* whole, int wholes, const float* real,
                   int reals, unsigned grid, unsigned of_threads, unsigned of_cluster, size_t shared_bytes,
                   int together, uint64_t seed) {
  used = 0;
  latest = 0;
  now = phase = clock_time = 0;
  arrays.clear();
  pointers.clear();
  error.clear();
  fibers.clear();
  integers.assign(whole, whole + wholes);
  numbers.assign(real, real + reals);
  threads = of_threads;
  blocks = grid;
  cluster = of_cluster;
  kernel = emulated;
  for (int i = 0; i < count; ++i) {
    const Given& g = given[i];
    char* const data = add(g.name, Kind(g.kind), g.bytes, g.element, g.offset);
    memcpy(data, g.data, g.bytes);
    pointers.push_back(data);
  }
  const unsigned at_once = together ? grid : cluster;
  const std::vector<unsigned> order = turns(grid / at_once, seed);
  if (grid % cluster) error = "a grid of no whole clusters";
  if (size_t(at_once) * of_threads * STACK > STACKS) error = "more blocks at once than the emulation has";
  for (unsigned place = 0; place < at_once && error.empty(); ++place) {
    add("memory", SHARED, shared_bytes, 2, 16);
    arrays.back().place = place;
  }
  for (size_t i = 0; i < order.size() && error.empty(); ++i) {
    std::vector<Block> blocks_at_once(at_once);
    for (unsigned place = 0; place < at_once; ++place) {
      blocks_at_once[place].number = order[i] * at_once + place;
      blocks_at_once[place].place = place;
    }
    run(std::move(blocks_at_once), seed);
  }
  for (int i = 0; i < count; ++i) {
    if (given[i].kind == OUTPUT) memcpy(given[i].data, pointers[i], given[i].bytes);
  }
  return error.c_str();
}
}
