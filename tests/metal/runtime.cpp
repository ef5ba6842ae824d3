// Runs the threads of a kernel's grid, and watches what they touch. One fiber for each thread of a threadgroup;
// threadgroups run one after the other.
#include "emulation.h"

#include <csetjmp>

#include <ucontext.h>

#undef thread

namespace emulation {

struct Failure {
  std::string what;
};

[[noreturn]] static void fail(const std::string& what) { throw Failure{what}; }
void fail(const char* what) { fail(std::string(what)); }
void fail(const char* what, int number) { fail(what + std::to_string(number)); }

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

constexpr size_t STACK = 64 * 1024;
static std::vector<Fiber> fibers;
static std::vector<Simdgroup> simdgroups;
static jmp_buf scheduler;
static ucontext_t unused;
static Fiber* current;
static Body body;
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
      body(current->thread);
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

static Simdgroup& simdgroup() { return simdgroups[current->thread.simdgroup_index_in_threadgroup]; }

void** meet(const char* what, int line, void* mine, int& lanes) {
  Simdgroup& group = simdgroup();
  if (group.arrived && (group.line != line || std::strcmp(group.what, what))) {
    fail(std::string("divergent simdgroup: some lanes are at ") + group.what + " in line " +
         std::to_string(group.line) + ", others at " + what + " in line " + std::to_string(line));
  }
  group.what = what;
  group.line = line;
  group.slot[current->thread.thread_index_in_simdgroup] = mine;
  lanes = group.size;
  if (++group.arrived == group.size) return group.slot;
  wait(what, line);
  return nullptr;
}

void part() {
  Simdgroup& group = simdgroup();
  group.arrived = 0;
  const uint first = current->thread.simdgroup_index_in_threadgroup * 32;
  for (int lane = 0; lane < group.size; ++lane) fibers[first + lane].state = Fiber::READY;
}

std::vector<size_t> turns(size_t n, std::uint64_t& seed) {
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

constexpr size_t THREADGROUP_MEMORY = 32768, SHARED_ARRAYS = 16;
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

const char* read(Region& region, std::ptrdiff_t byte, size_t bytes, size_t alignment) {
  const char* const place = region.data + byte;
  if (reinterpret_cast<std::uintptr_t>(place) % alignment) {
    fail("a value is read from " + region.name + " where its type may not be: an array begins at any element");
  }
  touch(region, byte, bytes, false);
  return place;
}

char* write(Region& region, std::ptrdiff_t byte, size_t bytes) {
  touch(region, byte, bytes, true);
  return region.data + byte;
}

void fail_to_reach(const Region& region) { fail("an index of 32 bits into " + region.name); }

Region* shared_array(const char* name, size_t count, size_t width) {
  for (Region& region : shared_arrays) {
    if (region.name == name) return &region;
  }
  if (shared_arrays.size() == SHARED_ARRAYS) fail("more threadgroup arrays than the emulation expects");
  Region& region = shared_arrays.emplace_back();
  region.name = name;
  region.count = count;
  region.width = width;
  region.shared = true;
  region.shadow.resize(count);
  // NaN in every floating type; and no better aligned than an element is.
  region.owned.assign((count + 1) * width, '\xff');
  region.data = region.owned.data() + width;
  shared_bytes += count * width;
  if (shared_bytes > THREADGROUP_MEMORY) {
    fail("threadgroup arrays take " + std::to_string(shared_bytes) + " bytes: a threadgroup has " +
         std::to_string(THREADGROUP_MEMORY));
  }
  return &region;
}

static std::vector<Region> buffers;

Region* buffer(size_t index, size_t width) {
  buffers[index].width = width;
  return &buffers[index];
}

// While it lives, and LOOSE, denormal numbers of float are taken for 0.
struct Flushing {
#if LOOSE && defined(__SSE__)
  unsigned before = __builtin_ia32_stmxcsr();
  Flushing() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~Flushing() { __builtin_ia32_ldmxcsr(before); }
#endif
};

const char* dispatch(const Buffer* given, int n, const std::uint32_t* grid, const std::uint32_t* most,
                     std::uint64_t seed, Body kernel) {
  const Flushing flushing;
  error.clear();
  body = kernel;
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

void threadgroup_barrier(mem_flags flags, int line) {
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
