// Threads as fibers, one for each of a block; and memory of which each load and store is checked. Blocks run one after
// the other, or all at once where they wait for each other.
#pragma once
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <string>
#include <vector>

namespace emulation {

// ---------------------------------------------------------------------------------------------------- memory

// Two bytes of memory that a kernel writes, or four of larger elements: who did, and when. A time is the number of
// barriers so far of all who see the memory (the block, or the grid), and of the thread's own warp.
struct Time {
  uint32_t all = 0, warp = 0;
};
constexpr int NOBODY = -1, SEVERAL = -2;
struct Cell {
  Time written, read;
  int writer = NOBODY, reader = NOBODY, reader_warp = NOBODY;
  bool coming = false;  // a copy is on its way
};
enum Kind { INPUT, OUTPUT, BOTH, SHARED };
struct Array {
  std::string name;
  Kind kind;
  char* data;
  size_t bytes, element, grain;
  std::vector<Cell> cells;  // of `grain` bytes each, of an output or in shared memory
  unsigned place = 0;       // of the block that has it, in shared memory
};

// All arrays lie in one piece of memory, far apart.
constexpr size_t ROOM = size_t(1) << 32, GAP = 1 << 20;
constexpr size_t STACK = 128 * 1024, STACKS = STACK << 14;
// Of a block; bytes of shared memory that its source declares, and with what its launch asks for, on Hopper.
constexpr unsigned MOST_THREADS = 1024, MOST_DECLARED = 49152, MOST_SHARED = 232448;
static char* const room =
    static_cast<char*>(mmap(nullptr, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
static char* const stacks = static_cast<char*>(
    mmap(nullptr, STACKS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
static size_t used;
static std::vector<Array> arrays;
static size_t latest;  // the array that was touched last

// -------------------------------------------------------------------------------------------------- threads

struct Fiber {
  enum State { READY, WAITING, DONE } state;
  bool started;
  bool touched;  // an output, since the block's last barrier
  jmp_buf context;
  ucontext_t first;
  const char* waits_at;
  int line;
  std::vector<std::pair<int, char*>> copies;  // their group, and where to
  int groups;
};
struct Warp {
  int arrived, line;
  const char* what;
  void* slot[32];
  uint32_t time;
};
struct Block {
  unsigned number, place, at_barrier = 0, barrier_line = 0;
  uint32_t now, began;
  std::vector<Warp> warps;
};

static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static ucontext_t unused;
static unsigned threads, blocks;
// The thread that runs: its block, its place in it, and among all fibers.
static Block* block;
static unsigned current, fiber_number;
static uint32_t now;    // barriers of blocks
static uint32_t phase;  // barriers of the grid
static unsigned long long clock_time;
static void (*kernel)();
static std::string error;
static std::vector<void*> pointers;
static std::vector<int> integers;
static std::vector<float> numbers;

static void yield() {
  if (_setjmp(fibers[fiber_number].context) == 0) _longjmp(scheduler, 1);
}

// Ends the run. It does not throw, since compilers think that loads and stores do not.
[[noreturn]] static void fail(const std::string& what) {
  if (error.empty()) {
    error = what + " (thread " + std::to_string(current) + " of block " + std::to_string(block->number) + ")";
  }
  _longjmp(scheduler, 1);
}

static void enter() {
  kernel();
  fibers[fiber_number].state = Fiber::DONE;
  _longjmp(scheduler, 1);
}

static void resume(Block& of, unsigned thread) {
  block = &of;
  current = thread;
  fiber_number = of.place * threads + thread;
  Fiber& fiber = fibers[fiber_number];
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.context, 1);
  fiber.started = true;
  setcontext(&fiber.first);
}

static void wait(const char* what, int line) {
  Fiber& fiber = fibers[fiber_number];
  fiber.state = Fiber::WAITING;
  fiber.waits_at = what;
  fiber.line = line;
  yield();
}

static std::string at(const char* what, int line) { return std::string(what) + " in line " + std::to_string(line); }

// All lanes of a warp meet here; the last to come calls complete(slots).
template <class Complete>
static void collective(const char* what, int line, void* mine, Complete complete) {
  Warp& warp = block->warps[current / 32];
  if (warp.arrived && (warp.line != line || warp.what != what)) {
    fail("divergent warp: some lanes are at " + at(warp.what, warp.line) + ", others at " + at(what, line));
  }
  warp.what = what;
  warp.line = line;
  warp.slot[current % 32] = mine;
  if (++warp.arrived < 32) return wait(what, line);
  warp.arrived = 0;
  complete(warp.slot);
  for (unsigned lane = 0; lane < 32; ++lane) fibers[fiber_number / 32 * 32 + lane].state = Fiber::READY;
}

// 0 .. n - 1: forward for seed 0, backward for 1, otherwise shuffled, and the seed moved on.
static std::vector<unsigned> turns(unsigned n, uint64_t& seed) {
  std::vector<unsigned> order(n);
  for (unsigned i = 0; i < n; ++i) order[i] = seed == 1 ? n - 1 - i : i;
  for (unsigned left = n; seed > 1 && left > 1; --left) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[left - 1], order[(seed >> 33) % left]);
  }
  return order;
}

// Blocks that are there at the same time.
static void run(std::vector<Block> together, uint64_t& seed) {
  for (Array& array : arrays) {
    if (array.kind == SHARED) memset(array.data, 0xff, array.bytes);
  }
  for (Block& of : together) {
    of.began = of.now = ++now;
    of.warps.assign(threads / 32, Warp());
  }
  const unsigned all = threads * together.size();
  fibers.resize(std::max<size_t>(fibers.size(), all));
  for (unsigned i = 0; i < all; ++i) {
    Fiber& fiber = fibers[i];
    fiber.state = Fiber::READY;
    fiber.started = fiber.touched = false;
    fiber.copies.clear();
    fiber.groups = 0;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = stacks + i * STACK;
    fiber.first.uc_stack.ss_size = STACK;
    fiber.first.uc_link = &unused;
    makecontext(&fiber.first, enter, 0);
  }
  for (bool progress = true; progress;) {
    progress = false;
    for (const unsigned i : turns(all, seed)) {
      if (fibers[i].state != Fiber::READY) continue;
      resume(together[i / threads], i % threads);
      progress = true;
      if (!error.empty()) return;
    }
  }
  for (unsigned i = 0; i < all; ++i) {
    if (fibers[i].state == Fiber::DONE) continue;
    error = "divergent block: a thread waits for ever at " + at(fibers[i].waits_at, fibers[i].line) + " (thread " +
            std::to_string(i % threads) + " of block " + std::to_string(together[i / threads].number) + ")";
    return;
  }
}

// ---------------------------------------------------------------------------------------------- checked access

static std::string element(const Array& array, const char* address) {
  const long long bytes = address - array.data;
  const long long size = array.element;
  return array.name + "[" + std::to_string((bytes - (bytes < 0 ? size - 1 : 0)) / size) + "] of " +
         std::to_string(array.bytes / array.element);
}

// A load or store of a cell of shared memory or an output: when, and by whom. What was before `began` is forgotten.
static void touch(const Array& array, Cell& cell, const char* address, bool write, Time time, uint32_t began, int me) {
  const auto over = [&](Time then, int warp) {
    return then.all < time.all || (warp == me / 32 && then.warp < time.warp);
  };
  const bool again = cell.reader == me || cell.reader == SEVERAL;
  if (!write && again && cell.reader_warp == me / 32 && cell.read.all == time.all && cell.read.warp == time.warp)
    return;
  const bool written = cell.writer != NOBODY && cell.written.all >= began;
  if (!write && !written) fail("read of what nobody has written: " + element(array, address));
  if (written && cell.coming) fail("a copy is on its way to " + element(array, address));
  if (written && cell.writer != me && !over(cell.written, cell.writer / 32)) {
    fail("race: " + element(array, address) + " was written by another thread, " + std::to_string(cell.writer));
  }
  const bool read = cell.reader != NOBODY && cell.read.all >= began && !over(cell.read, cell.reader_warp);
  if (write) {
    if (read && cell.reader != me) fail("race: " + element(array, address) + " was read by other threads");
    cell.written = time;
    cell.writer = me;
    cell.reader = NOBODY;
    return;
  }
  cell.reader = read && cell.reader != me ? SEVERAL : me;
  cell.reader_warp = read && cell.reader_warp != me / 32 ? SEVERAL : me / 32;
  cell.read = time;
}

static void access(const void* pointer, size_t bytes, bool write, size_t alignment) {
  const char* const address = static_cast<const char*>(pointer);
  if (address >= stacks && address < stacks + STACKS) return;
  const auto near = [&](const Array& array) {
    return address + GAP / 2 > array.data && address < array.data + array.bytes + GAP / 2;
  };
  if (latest >= arrays.size() || !near(arrays[latest])) {
    for (latest = 0; latest < arrays.size() && !near(arrays[latest]); ++latest) {
    }
  }
  const char* const what = write ? "write" : "read";
  if (latest == arrays.size()) fail(std::string(what) + " far out of bounds");
  Array& array = arrays[latest];
  if (address < array.data || address + bytes > array.data + array.bytes) {
    fail(std::string(what) + " out of bounds: " + element(array, address < array.data ? address : address + bytes - 1));
  }
  if (reinterpret_cast<uintptr_t>(address) % alignment) {
    fail(std::string(what) + " of " + std::to_string(bytes) + " bytes at no multiple of " + std::to_string(alignment) +
         ": " + element(array, address));
  }
  if (array.kind == INPUT && write) fail("write to an input: " + element(array, address));
  if (array.kind == SHARED && array.place != block->place) fail("shared memory of another block");
  if (array.cells.empty()) return;
  const bool shared = array.kind == SHARED;
  fibers[fiber_number].touched |= !shared;
  const Time time = shared ? Time{block->now, block->warps[current / 32].time} : Time{phase, 0};
  const int me = shared ? current : block->number * threads + current;
  for (size_t i = (address - array.data) / array.grain; array.data + i * array.grain < address + bytes; ++i) {
    touch(array, array.cells[i], array.data + i * array.grain, write, time, shared ? block->began : 0, me);
  }
}

// Room for an array that begins so many bytes after a multiple of 256.
static char* add(const char* name, Kind kind, size_t bytes, size_t element, size_t offset) {
  used = (used + GAP + 255) / 256 * 256;
  char* const data = room + used + offset;
  used += offset + bytes;
  const size_t grain = element % 4 ? 2 : 4;
  arrays.push_back({name, kind, data, bytes, element, grain, {}});
  if (kind == OUTPUT || kind == SHARED) arrays.back().cells.resize((bytes + grain - 1) / grain);
  return data;
}

}  // namespace emulation
