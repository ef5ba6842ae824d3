// The part of the Metal Shading Language that custom_kernels/metal uses, on a CPU. One fiber for each thread of a
// threadgroup; threadgroups run one after the other. See __init__.py for what this proves and what it does not.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include <ucontext.h>

// A device that takes every freedom that Metal leaves it, beside what the compiler's flags contract.
#ifndef LOOSE
#define LOOSE 0
#endif

using uint = std::uint32_t;
using ushort = std::uint16_t;
using std::int64_t;
using std::size_t;

struct uint3 {
  uint x, y, z;
  uint operator[](int axis) const { return axis == 0 ? x : axis == 1 ? y : z; }
};

// ---------------------------------------------------------------------------------------------------- numbers

using half = _Float16;
using float16_t = half;

struct bfloat {
  std::uint16_t bits;
  bfloat() = default;
  template <class U>
    requires std::is_arithmetic_v<U>
  explicit bfloat(U number) {
    const float value = static_cast<float>(number);
    std::uint32_t word;
    std::memcpy(&word, &value, 4);
    // To the nearest, ties to even; a NaN stays one.
    bits = value != value ? 0x7fc0 : static_cast<std::uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
  }
  operator float() const {
    const std::uint32_t word = std::uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};
using bfloat16_t = bfloat;
// Each operation rounds, as it does for half.
#define OF_BFLOATS(OPERATOR) \
  inline bfloat operator OPERATOR(bfloat a, bfloat b) { return bfloat(float(a) OPERATOR float(b)); }
OF_BFLOATS(+)
OF_BFLOATS(-)
OF_BFLOATS(*)
OF_BFLOATS(/)
inline bfloat operator-(bfloat a) { return bfloat(-float(a)); }

template <class T, int N>
struct vec {
  T at[N];
  T& operator[](int i) { return at[i]; }
  const T& operator[](int i) const { return at[i]; }
};

namespace emulation {

// -------------------------------------------------------------------------------------------------- scheduling

struct Failure {
  std::string what;
};

[[noreturn]] static void fail(const std::string& what) { throw Failure{what}; }

struct Thread {
  uint3 threadgroup_position_in_grid, thread_position_in_threadgroup, thread_position_in_grid;
  uint3 threads_per_threadgroup, threadgroups_per_grid, threads_per_grid;
  uint thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
  uint simdgroups_per_threadgroup, threads_per_simdgroup = 32;
};

struct Fiber {
  enum State { READY, WAITING, DONE };
  Thread thread;
  State state;
  const char* waits_at;
  int line;
  bool started;
  jmp_buf context;
  ucontext_t first;
  char* stack = nullptr;  // kept for the next launch
};

struct Simdgroup {
  int size, arrived, line;
  const char* what;
  void* slot[32];
};

struct Body {
  virtual void operator()(const Thread& thread) const = 0;
};

constexpr size_t STACK = 64 * 1024;
static std::vector<Fiber> fibers;
static std::vector<Simdgroup> simdgroups;
static jmp_buf scheduler;
static ucontext_t unused;
static Fiber* current;
static const Body* body;
static std::string error;
static uint group_size, at_barrier, epoch;
static size_t group_number;

static std::string here() {
  const uint3 group = current->thread.threadgroup_position_in_grid;
  return "thread " + std::to_string(current->thread.thread_index_in_threadgroup) + " of threadgroup (" +
         std::to_string(group.x) + ", " + std::to_string(group.y) + ", " + std::to_string(group.z) + ")";
}

[[gnu::noinline]] static void yield() {
  if (_setjmp(current->context) == 0) _longjmp(scheduler, 1);
}

static void enter() {
  for (;;) {
    try {
      (*body)(current->thread);
    } catch (const Failure& failure) {
      if (error.empty()) error = failure.what + " (" + here() + ")";
    }
    current->state = Fiber::DONE;
    yield();
  }
}

[[gnu::noinline]] static void resume(Fiber& fiber) {
  current = &fiber;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.context, 1);
  fiber.started = true;
  setcontext(&fiber.first);
}

static void wait(const char* what, int line) {
  current->state = Fiber::WAITING;
  current->waits_at = what;
  current->line = line;
  yield();
}

// All lanes of the simdgroup meet here; the last to come calls complete(slots, lanes).
template <class Complete>
static void collective(const char* what, int line, void* mine, Complete complete) {
  Simdgroup& group = simdgroups[current->thread.simdgroup_index_in_threadgroup];
  if (group.arrived && (group.line != line || std::strcmp(group.what, what))) {
    fail(std::string("divergent simdgroup: some lanes are at ") + group.what + " in line " +
         std::to_string(group.line) + ", others at " + what + " in line " + std::to_string(line));
  }
  group.what = what;
  group.line = line;
  group.slot[current->thread.thread_index_in_simdgroup] = mine;
  if (++group.arrived < group.size) return wait(what, line);
  group.arrived = 0;
  complete(group.slot, group.size);
  const uint first = current->thread.simdgroup_index_in_threadgroup * 32;
  for (int lane = 0; lane < group.size; ++lane) fibers[first + lane].state = Fiber::READY;
}

// 0 .. n - 1: forward for seed 0, backward for 1, otherwise shuffled (and the seed moved on).
static std::vector<size_t> turns(size_t n, std::uint64_t& seed) {
  std::vector<size_t> order(n);
  for (size_t i = 0; i < n; ++i) order[i] = seed == 1 ? n - 1 - i : i;
  for (size_t left = n; seed > 1 && left > 1; --left) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[left - 1], order[(seed >> 33) % left]);
  }
  return order;
}

static void run_threadgroup(std::uint64_t& seed) {
  for (;;) {
    const std::vector<size_t> order = turns(group_size, seed);
    bool progress = false;
    for (const size_t i : order) {
      if (fibers[i].state != Fiber::READY) continue;
      resume(fibers[i]);
      progress = true;
      if (!error.empty()) return;
    }
    if (progress) continue;
    for (uint i = 0; i < group_size; ++i) {
      if (fibers[i].state == Fiber::DONE) continue;
      current = &fibers[i];
      error = std::string("divergent threadgroup: a thread waits for ever at ") + current->waits_at + " in line " +
              std::to_string(current->line) + ", which others never reach (" + here() + ")";
      return;
    }
    return;
  }
}

// ------------------------------------------------------------------------------------------------------ memory

constexpr int NOBODY = -1, SEVERAL = -2;
constexpr size_t THREADGROUP_MEMORY = 32768, SHARED_ARRAYS = 16;

struct Shadow {
  uint epoch = 0;
  int writer = NOBODY, reader = NOBODY;
  bool written = false;
};

// A buffer of the launch, or an array in threadgroup memory. Inputs have no shadow: they are only read.
struct Region {
  std::string name;
  char* data;
  size_t count;
  size_t width;  // bytes of an element
  int dims;
  bool shared;
  std::vector<Shadow> shadow;
  std::vector<char> owned;
};

static std::vector<Region> shared_arrays;  // room for all is reserved: a region never moves
static size_t shared_bytes;

static void touch_element(Region& region, std::ptrdiff_t index, bool write) {
  const auto element = [&] { return region.name + "[" + std::to_string(index) + "]"; };
  if (index < 0 || static_cast<size_t>(index) >= region.count) {
    fail(std::string(write ? "write" : "read") + " out of bounds: " + element() + " of " +
         std::to_string(region.count) + " elements");
  }
  if (region.shadow.empty()) return;
  Shadow& shadow = region.shadow[index];
  // A barrier orders threadgroup memory; nothing orders the threads of a grid in device memory.
  const uint now = region.shared ? epoch : 1;
  const int thread = current->thread.thread_index_in_threadgroup;
  const int me = region.shared ? thread : static_cast<int>(group_number * 1024) + thread;
  if (shadow.epoch != now) shadow.epoch = now, shadow.writer = shadow.reader = NOBODY;
  const bool other_wrote = shadow.writer != NOBODY && shadow.writer != me;
  if (other_wrote || (write && shadow.reader != NOBODY && shadow.reader != me)) {
    fail("race: " + element() + " is " + (write ? "written" : "read") + " while another thread " +
         (other_wrote ? "writes" : "reads") + " it, with no barrier between");
  }
  if (write) {
    shadow.writer = me;
    shadow.written = true;
  } else {
    if (region.shared && !shadow.written) fail("read of " + element() + ", which nobody has written");
    shadow.reader = shadow.reader == NOBODY || shadow.reader == me ? me : SEVERAL;
  }
}

// A value of several elements, which lies anywhere that an element may.
static void touch(Region& region, std::ptrdiff_t byte, size_t bytes, bool write) {
  const std::ptrdiff_t width = region.width;
  if (byte % width) fail("an element of " + region.name + " is not where elements lie");
  for (std::ptrdiff_t at = byte; at < byte + static_cast<std::ptrdiff_t>(bytes); at += width) {
    touch_element(region, at / width, write);
  }
}

template <class T>
struct Reference {
  Region* region;
  std::ptrdiff_t byte;
  T load() const {
    if (reinterpret_cast<std::uintptr_t>(region->data + byte) % alignof(T)) {
      fail("a value is read from " + region->name + " where its type may not be: an array begins at any element");
    }
    touch(*region, byte, sizeof(T), false);
    T value;
    std::memcpy(&value, region->data + byte, sizeof(T));
    return value;
  }
  operator T() const { return load(); }
  template <class U>
    requires(!std::is_arithmetic_v<T> && std::is_arithmetic_v<U>)
  explicit operator U() const {
    return static_cast<U>(load());
  }
  Reference& operator=(T value) {
    touch(*region, byte, sizeof(T), true);
    std::memcpy(region->data + byte, &value, sizeof(T));
    return *this;
  }
  Reference& operator=(const Reference& other) { return *this = other.load(); }
  Reference& operator+=(T value) { return *this = load() + value; }
};

struct Device {};
struct Constant {};
struct Threadgroup {};

// A pointer of one address space: it never converts to one of another.
template <class Space, class T>
struct Pointer {
  Region* region;
  std::ptrdiff_t start = 0;  // in bytes
  bool far = false;          // an offset that reaches any element has been added
  // Of an array of several dimensions there may be more elements than an int counts.
  template <class Index>
  bool reaches() const {
    if (sizeof(Index) < 8 && !far && region->dims > 1) fail("an index of 32 bits into " + region->name);
    return true;
  }
  template <class Index>
  auto operator[](Index index) const {
    reaches<Index>();
    const std::ptrdiff_t at = start + static_cast<std::ptrdiff_t>(index) * static_cast<std::ptrdiff_t>(sizeof(T));
    if constexpr (std::is_const_v<T>) {
      return Reference<std::remove_const_t<T>>{region, at}.load();
    } else {
      return Reference<T>{region, at};
    }
  }
  template <class Index>
  Pointer operator+(Index offset) const {
    return {region, start + static_cast<std::ptrdiff_t>(offset) * static_cast<std::ptrdiff_t>(sizeof(T)),
            reaches<Index>()};
  }
  auto operator*() const { return (*this)[std::ptrdiff_t(0)]; }
  template <class U>
    requires(std::is_const_v<U> || !std::is_const_v<T>)
  explicit operator Pointer<Space, U>() const {
    return {region, start, far};
  }
  operator Pointer<Space, const T>() const
    requires(!std::is_const_v<T>)
  {
    return {region, start, far};
  }
};

// `threadgroup T name[N]`: every thread declares it, and all of them get the same array.
template <class T, size_t N>
struct Shared : Pointer<Threadgroup, T> {
  explicit Shared(const char* name) : Pointer<Threadgroup, T>{nullptr, 0} {
    for (Region& region : shared_arrays) {
      if (region.name == name) this->region = &region;
    }
    if (!this->region) {
      if (shared_arrays.size() == SHARED_ARRAYS) fail("more threadgroup arrays than the emulation expects");
      Region& region = shared_arrays.emplace_back();
      this->region = &region;
      region.name = name;
      region.count = N;
      region.width = sizeof(T);
      region.shared = true;
      region.shadow.resize(N);
      // NaN in every floating type; and no better aligned than an element is.
      region.owned.assign((N + 1) * sizeof(T), '\xff');
      region.data = region.owned.data() + sizeof(T);
      shared_bytes += N * sizeof(T);
      if (shared_bytes > THREADGROUP_MEMORY) {
        fail("threadgroup arrays take " + std::to_string(shared_bytes) + " bytes: a threadgroup has " +
             std::to_string(THREADGROUP_MEMORY));
      }
    }
  }
};

// ------------------------------------------------------------------------------------------------------ launch

struct Buffer {
  const char* name;
  void* data;
  std::int64_t count;
  std::int64_t dims;
  std::int64_t output;
};

static std::vector<Region> buffers;

template <class Space, class T>
static Pointer<Space, T> argument(size_t index) {
  buffers[index].width = sizeof(T);
  return {&buffers[index], 0};
}

// While it lives, and LOOSE, denormal numbers of float are taken for 0.
struct Flushing {
#if LOOSE && defined(__SSE__)
  unsigned before = __builtin_ia32_stmxcsr();
  Flushing() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~Flushing() { __builtin_ia32_ldmxcsr(before); }
#endif
};

// Runs every thread of the grid. Seed 0 runs threads in order, 1 in reverse, others in random order.
static const char* dispatch(const Buffer* given, int n, const std::uint32_t* grid, const std::uint32_t* most,
                            std::uint64_t seed, const Body& kernel) {
  const Flushing flushing;
  error.clear();
  body = &kernel;
  buffers.clear();
  shared_arrays.reserve(SHARED_ARRAYS);
  for (int i = 0; i < n; ++i) {
    buffers.push_back({given[i].name, static_cast<char*>(given[i].data), static_cast<size_t>(given[i].count), 0,
                       static_cast<int>(given[i].dims), false});
    if (given[i].output) buffers[i].shadow.resize(given[i].count);
  }
  uint size[3], groups[3];
  for (int axis = 0; axis < 3; ++axis) {
    size[axis] = std::min(most[axis], grid[axis]);
    groups[axis] = (grid[axis] + size[axis] - 1) / size[axis];
  }
  if (size[0] * size[1] * size[2] > 1024) return "a threadgroup has at most 1024 threads";
  if (fibers.size() < size[0] * size[1] * size[2]) fibers.resize(size[0] * size[1] * size[2]);
  for (Fiber& fiber : fibers) {
    fiber.started = false;
    if (!fiber.stack) fiber.stack = new char[STACK];
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack;
    fiber.first.uc_stack.ss_size = STACK;
    fiber.first.uc_link = &unused;
    makecontext(&fiber.first, enter, 0);
  }
  for (const size_t number : turns(size_t(groups[0]) * groups[1] * groups[2], seed)) {
    group_number = number;
    const uint3 group = {uint(number % groups[0]), uint(number / groups[0] % groups[1]),
                         uint(number / groups[0] / groups[1])};
    // The last threadgroup of an axis holds what is left of the grid.
    const auto extent = [&](int axis) { return std::min(size[axis], grid[axis] - group[axis] * size[axis]); };
    const uint3 here = {extent(0), extent(1), extent(2)};
    group_size = here.x * here.y * here.z;
    shared_arrays.clear();
    shared_bytes = 0;
    at_barrier = 0;
    epoch = 1;
    simdgroups.assign((group_size + 31) / 32, {});
    for (uint i = 0; i < group_size; ++i) {
      const uint3 position = {i % here.x, i / here.x % here.y, i / here.x / here.y};
      fibers[i].state = Fiber::READY;
      fibers[i].thread =
          Thread{group,
                 position,
                 {group.x * size[0] + position.x, group.y * size[1] + position.y, group.z * size[2] + position.z},
                 here,
                 {groups[0], groups[1], groups[2]},
                 {grid[0], grid[1], grid[2]},
                 i,
                 i % 32,
                 i / 32,
                 uint(simdgroups.size())};
      ++simdgroups[i / 32].size;
    }
    run_threadgroup(seed);
    if (!error.empty()) return error.c_str();
  }
  return nullptr;
}

}  // namespace emulation

// ------------------------------------------------------------------------------------- what the kernels call

#define thread
#define METAL_FUNC inline

enum class mem_flags { mem_none, mem_device, mem_threadgroup };

static void threadgroup_barrier(mem_flags flags, int line = __builtin_LINE()) {
  using namespace emulation;
  for (uint i = 0; i < group_size; ++i) {
    if (at_barrier && fibers[i].state == Fiber::WAITING && !std::strcmp(fibers[i].waits_at, "threadgroup_barrier") &&
        fibers[i].line != line) {
      fail("divergent threadgroup: threads are at the threadgroup_barrier in line " + std::to_string(line) +
           " and at that in line " + std::to_string(fibers[i].line));
    }
  }
  if (++at_barrier < group_size) return emulation::wait("threadgroup_barrier", line);
  at_barrier = 0;
  if (flags == mem_flags::mem_threadgroup) ++epoch;
  for (uint i = 0; i < group_size; ++i) fibers[i].state = Fiber::READY;
}

namespace emulation {
template <class T, class Operation>
static T reduce(const char* what, int line, T value, Operation operation) {
  collective(what, line, &value, [&](void** slot, int lanes) {
    T total[32];
    for (int i = 0; i < lanes; ++i) total[i] = *static_cast<T*>(slot[i]);
    static std::uint64_t shuffles = 2;
    if (LOOSE) {
      const std::vector<size_t> order = turns(lanes, shuffles);
      for (int i = 0; i < lanes; ++i) total[i] = *static_cast<T*>(slot[order[i]]);
    }
    for (int step = 1; step < lanes; step *= 2) {
      for (int i = 0; i + step < lanes; i += 2 * step) total[i] = operation(total[i], total[i + step]);
    }
    for (int i = 0; i < lanes; ++i) *static_cast<T*>(slot[i]) = total[0];
  });
  return value;
}
}  // namespace emulation

template <class T>
static T simd_sum(T value, int line = __builtin_LINE()) {
  return emulation::reduce("simd_sum", line, value, [](T a, T b) { return a + b; });
}

template <class T>
static T simd_max(T value, int line = __builtin_LINE()) {
  return emulation::reduce("simd_max", line, value, [](T a, T b) { return a > b ? a : b; });
}

template <class T>
static T simd_shuffle_xor(T value, ushort mask, int line = __builtin_LINE()) {
  struct Lane {
    T value;
    ushort mask;
  } mine{value, mask};
  emulation::collective("simd_shuffle_xor", line, &mine, [](void** slot, int lanes) {
    T before[32];
    for (int i = 0; i < lanes; ++i) before[i] = static_cast<Lane*>(slot[i])->value;
    for (int i = 0; i < lanes; ++i) {
      const int from = i ^ static_cast<Lane*>(slot[i])->mask;
      if (from >= lanes) emulation::fail("simd_shuffle_xor reads lane " + std::to_string(from));
      static_cast<Lane*>(slot[i])->value = before[from];
    }
  });
  return mine.value;
}

// A lane holds two neighbours of a row, laid out as MLX's own kernels take it to be.
template <class T, int ROWS, int COLUMNS>
struct simdgroup_matrix {
  static_assert(ROWS == 8 && COLUMNS == 8, "simdgroup matrices are 8 x 8");
  vec<T, 2> elements;
  simdgroup_matrix() {
    for (int i = 0; i < 2; ++i) elements[i] = T(__builtin_nanf(""));
  }
  vec<T, 2>& thread_elements() { return elements; }
};

namespace emulation {
template <class T>
static T& element(simdgroup_matrix<T, 8, 8>* const* lanes, int row, int column) {
  const int lane = (row & 4) * 4 + (row & 3) * 2 + (column & 4) * 2 + (column & 2) / 2;
  return lanes[lane]->elements[column & 1];
}
}  // namespace emulation

template <class D, class A, class B, class C>
static void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8>& a,
                                          simdgroup_matrix<B, 8, 8>& b, simdgroup_matrix<C, 8, 8>& c,
                                          int line = __builtin_LINE()) {
  struct Operands {
    simdgroup_matrix<D, 8, 8>* d;
    simdgroup_matrix<A, 8, 8>* a;
    simdgroup_matrix<B, 8, 8>* b;
    simdgroup_matrix<C, 8, 8>* c;
  } mine{&d, &a, &b, &c};
  emulation::collective("simdgroup_multiply_accumulate", line, &mine, [](void** slot, int lanes) {
    if (lanes != 32) emulation::fail("simdgroup_multiply_accumulate needs a simdgroup of 32");
    simdgroup_matrix<D, 8, 8>* d[32];
    simdgroup_matrix<A, 8, 8>* a[32];
    simdgroup_matrix<B, 8, 8>* b[32];
    simdgroup_matrix<C, 8, 8>* c[32];
    for (int i = 0; i < 32; ++i) {
      const Operands& lane = *static_cast<Operands*>(slot[i]);
      d[i] = lane.d, a[i] = lane.a, b[i] = lane.b, c[i] = lane.c;
    }
    float left[8][8], right[8][8], sum[8][8];
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 8; ++j) {
        left[i][j] = float(emulation::element(a, i, j));
        right[i][j] = float(emulation::element(b, i, j));
        sum[i][j] = float(emulation::element(c, i, j));
      }
    }
    for (int i = 0; i < 8; ++i) {
      for (int k = 0; k < 8; ++k) {
        for (int j = 0; j < 8; ++j) sum[i][j] += left[i][k] * right[k][j];
      }
    }
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 8; ++j) emulation::element(d, i, j) = D(sum[i][j]);
    }
  });
}

namespace metal {
using ::simd_max;
using ::simd_sum;
using ::simdgroup_matrix;

template <class T>
inline T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
inline T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T abs(T a) {
  return a < 0 ? -a : a;
}
namespace precise {
inline float rsqrt(float x) { return static_cast<float>(1 / std::sqrt(static_cast<double>(x))); }
inline float sqrt(float x) { return std::sqrt(x); }
inline float exp(float x) { return std::exp(x); }
}  // namespace precise
namespace fast {
inline float exp2(float x) {
  const float y = std::exp2(x);
  if (!LOOSE) return y;
  // Two units in the last place off, to the one side or the other, and the same for the same x.
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const float to = (bits * 2654435761u) >> 31 ? INFINITY : 0.0f;
  return std::nextafter(std::nextafter(y, to), to);
}
}  // namespace fast
}  // namespace metal
