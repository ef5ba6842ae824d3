// Threads as fibers, one for each of a block, blocks one after the other; and memory of which each load and store is
// checked.
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
// barriers of the blocks so far, and of those of the thread's own warp.
struct Time {
  uint32_t block = 0, warp = 0;
};
constexpr int NOBODY = -1, SEVERAL = -2;
struct Cell {
  Time written, read;
  int writer = NOBODY, reader = NOBODY, reader_warp = NOBODY;
  bool coming = false;  // a copy is on its way
};
enum Kind { INPUT, OUTPUT, SHARED };
struct Array {
  std::string name;
  Kind kind;
  char* data;
  size_t bytes, element, grain;
  std::vector<Cell> cells;  // of `grain` bytes each, where it may be written
};

// All arrays lie in one piece of memory, far apart.
constexpr size_t ROOM = size_t(1) << 32, GAP = 1 << 20;
constexpr size_t STACK = 128 * 1024;
// Of a block; bytes of shared memory that its source declares, and with what its launch asks for, on Hopper.
constexpr unsigned MOST_THREADS = 1024, MOST_DECLARED = 49152, MOST_SHARED = 232448;
static char* const room =
    static_cast<char*>(mmap(nullptr, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
static char* const stacks = static_cast<char*>(
    mmap(nullptr, STACK* MOST_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
static size_t used;
static std::vector<Array> arrays;
static size_t latest;  // the array that was touched last

// -------------------------------------------------------------------------------------------------- threads

struct Fiber {
  enum State { READY, WAITING, DONE } state;
  bool started;
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

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static jmp_buf scheduler;
static ucontext_t unused;
static unsigned threads, blocks, block, current, at_barrier, barrier_line;
static uint32_t now, block_began;
static void (*kernel)();
static std::string error;
static std::vector<void*> pointers;
static std::vector<int> integers;
static std::vector<float> numbers;

static void yield() {
  if (_setjmp(fibers[current].context) == 0) _longjmp(scheduler, 1);
}

// Ends the run. It does not throw, since compilers think that loads and stores do not.
[[noreturn]] static void fail(const std::string& what) {
  if (error.empty()) {
    error = what + " (thread " + std::to_string(current) + " of block " + std::to_string(block) + ")";
  }
  _longjmp(scheduler, 1);
}

static void enter() {
  kernel();
  fibers[current].state = Fiber::DONE;
  _longjmp(scheduler, 1);
}

static void resume(unsigned thread) {
  current = thread;
  if (_setjmp(scheduler) != 0) return;
  if (fibers[thread].started) _longjmp(fibers[thread].context, 1);
  fibers[thread].started = true;
  setcontext(&fibers[thread].first);
}

static void wait(const char* what, int line) {
  Fiber& fiber = fibers[current];
  fiber.state = Fiber::WAITING;
  fiber.waits_at = what;
  fiber.line = line;
  yield();
}

static std::string at(const char* what, int line) { return std::string(what) + " in line " + std::to_string(line); }

// All lanes of a warp meet here; the last to come calls complete(slots).
template <class Complete>
static void collective(const char* what, int line, void* mine, Complete complete) {
  Warp& warp = warps[current / 32];
  if (warp.arrived && (warp.line != line || warp.what != what)) {
    fail("divergent warp: some lanes are at " + at(warp.what, warp.line) + ", others at " + at(what, line));
  }
  warp.what = what;
  warp.line = line;
  warp.slot[current % 32] = mine;
  if (++warp.arrived < 32) return wait(what, line);
  warp.arrived = 0;
  complete(warp.slot);
  for (unsigned lane = 0; lane < 32; ++lane) fibers[current / 32 * 32 + lane].state = Fiber::READY;
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

static void run_block(uint64_t& seed) {
  block_began = ++now;
  at_barrier = 0;
  warps.assign(threads / 32, Warp());
  for (Array& array : arrays) {
    if (array.kind == SHARED) memset(array.data, 0xff, array.bytes);
  }
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.state = Fiber::READY;
    fiber.started = false;
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
    for (const unsigned i : turns(threads, seed)) {
      if (fibers[i].state != Fiber::READY) continue;
      resume(i);
      progress = true;
      if (!error.empty()) return;
    }
  }
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i].state == Fiber::DONE) continue;
    current = i;
    error = "divergent block: a thread waits for ever at " + at(fibers[i].waits_at, fibers[i].line) + " (thread " +
            std::to_string(i) + " of block " + std::to_string(block) + ")";
    return;
  }
}

// ---------------------------------------------------------------------------------------------- checked access

// Whether what happened then, in this warp, is over for the thread that runs.
static bool over(Time then, int warp) {
  return then.block < now || (warp == int(current / 32) && then.warp < warps[current / 32].time);
}

static std::string element(const Array& array, const char* address) {
  const long long bytes = address - array.data;
  const long long size = array.element;
  return array.name + "[" + std::to_string((bytes - (bytes < 0 ? size - 1 : 0)) / size) + "] of " +
         std::to_string(array.bytes / array.element);
}

static void touch_shared(const Array& array, Cell& cell, const char* address, bool write) {
  const Time time = {now, warps[current / 32].time};
  const int me = current, warp = current / 32;
  const bool again = cell.reader == me || cell.reader == SEVERAL;
  if (!write && again && cell.reader_warp == warp && cell.read.block == now && cell.read.warp == time.warp) return;
  const bool written = cell.writer != NOBODY && cell.written.block >= block_began;
  if (!write && !written) fail("read of what nobody has written: " + element(array, address));
  if (written && cell.coming) fail("a copy is on its way to " + element(array, address));
  if (written && cell.writer != me && !over(cell.written, cell.writer / 32)) {
    fail("race: " + element(array, address) + " was written by thread " + std::to_string(cell.writer));
  }
  const bool read = cell.reader != NOBODY && cell.read.block >= block_began && !over(cell.read, cell.reader_warp);
  if (write) {
    if (read && cell.reader != me) fail("race: " + element(array, address) + " was read by other threads");
    cell.written = time;
    cell.writer = me;
    cell.reader = NOBODY;
    return;
  }
  cell.reader = read && cell.reader != me ? SEVERAL : me;
  cell.reader_warp = read && cell.reader_warp != warp ? SEVERAL : warp;
  cell.read = time;
}

static void touch_output(const Array& array, Cell& cell, const char* address, bool write) {
  const int me = block * threads + current;
  if (!write && cell.writer != me) fail("read of what this thread has not written: " + element(array, address));
  if (cell.writer != NOBODY && cell.writer != me) {
    fail("race: " + element(array, address) + " is written by two threads of the grid");
  }
  cell.writer = me;
}

static void access(const void* pointer, size_t bytes, bool write, size_t alignment) {
  const char* const address = static_cast<const char*>(pointer);
  if (address >= stacks && address < stacks + STACK * MOST_THREADS) return;
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
  if (array.kind == INPUT) {
    if (write) fail("write to an input: " + element(array, address));
    return;
  }
  for (size_t i = (address - array.data) / array.grain; array.data + i * array.grain < address + bytes; ++i) {
    (array.kind == SHARED ? touch_shared : touch_output)(array, array.cells[i], array.data + i * array.grain, write);
  }
}

// Room for an array that begins so many bytes after a multiple of 256.
static char* add(const char* name, Kind kind, size_t bytes, size_t element, size_t offset) {
  used = (used + GAP + 255) / 256 * 256;
  char* const data = room + used + offset;
  used += offset + bytes;
  const size_t grain = element % 4 ? 2 : 4;
  arrays.push_back({name, kind, data, bytes, element, grain, {}});
  if (kind != INPUT) arrays.back().cells.resize((bytes + grain - 1) / grain);
  return data;
}

}  // namespace emulation
