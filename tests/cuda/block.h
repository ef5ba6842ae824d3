// Threads as fibers, one for each of a block; and memory of which each load and store is checked. Blocks run one after
// the other, or all at once where they wait for each other.
#pragma once
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace emulation {

// ---------------------------------------------------------------------------------------------------- memory

// Two bytes of memory that a kernel writes, or four of larger elements: who did, and when. A time is the number of
// barriers so far of all who see the memory (the block, or the grid), and of the thread's own warpgroup and warp; and
// phases of mbarriers that are over.
struct Time {
  uint32_t all = 0, group = 0, warp = 0, phases = 0;
  bool operator==(const Time&) const = default;
};
constexpr int NOBODY = -1, SEVERAL = -2, COPIED = -3;  // by a bulk copy
// A thread; or a warpgroup as a whole, of no warp.
struct Who {
  int thread, warp, group;
};
struct Cell {
  Time written, read;
  int writer = NOBODY;
  Who reader = {NOBODY, NOBODY, NOBODY};
  uint32_t proxy = 0;                  // when it was written, in fences of proxies
  bool announced = false;              // by cp.async, of which an mbarrier has told
  short multiplied = 0;                // by so many wgmma that nobody has waited for
  int barrier = 0, barrier_phase = 0;  // of a bulk copy: who counts it
  bool coming = false;                 // a copy is on its way
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
// Of each 4 bytes of the stacks, which are registers of a device: when they were touched, in fences of wgmma.
static uint32_t* const touched_in = static_cast<uint32_t*>(
    mmap(nullptr, STACKS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
static size_t used;
static std::vector<Array> arrays;
static size_t latest;  // the array that was touched last

// -------------------------------------------------------------------------------------------------- threads

// One wgmma of a warpgroup: what its threads will find in their registers, and what it reads meanwhile.
struct Product {
  std::vector<double> sums;  // of each thread
  std::vector<Cell*> cells;
  unsigned left;    // threads that have not waited for it
  uint32_t waited;  // the least of its threads' `waited`
};
// A thread's part of it: its registers.
struct Pending {
  int group;
  std::shared_ptr<Product> product;
  std::vector<float*> to;
  bool keep;
  const char* a;  // four registers, or null
};

constexpr int MOST_BARRIERS = 32;
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
  int registers;                  // that it asks for, or has from the beginning
  uint32_t fence, proxy_fence;    // when it last was at wgmma.fence and at fence.proxy.async
  std::vector<Pending> products;  // as copies
  int product_groups;
  int seen[MOST_BARRIERS];  // of each mbarrier, the phases that it has waited for
  uint32_t waited;          // what was before so many phases were over has happened for it
};
// Of a warp, or of a warpgroup: who has come to where, and barriers so far.
struct Meeting {
  int arrived, line;
  const char* what;
  void* slot[128];
  uint32_t time;
};
// What a bulk copy brings.
struct Copied {
  Cell* cells;
  size_t count, bytes;
};
// An mbarrier, its phases that are over, and the bulk copies of this one.
struct Barrier {
  unsigned at;
  int expected, arrived = 0, phase = 0;
  uint32_t over = 0;  // how many of all mbarriers were over with the last of them
  long long bytes = 0;
  std::vector<unsigned> waiting;
  std::vector<Copied> copies;
  std::vector<std::vector<char*>> announcements;  // of a thread's cp.async, where they go to
};
struct Block {
  unsigned number, place, at_barrier = 0, barrier_line = 0;
  unsigned at_cluster = 0;  // threads of the cluster that wait for it, of its first block
  uint32_t now, began;
  std::vector<Meeting> warps, groups;
  std::vector<Barrier> barriers;
};

static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static ucontext_t unused;
static unsigned threads, blocks;
// The thread that runs: its block, its place in it, and among all fibers.
static Block* block;
static std::vector<Block>* present;  // the blocks that are there now, and how many of them are a cluster
static unsigned cluster = 1;
static unsigned current, fiber_number;
static uint32_t now;    // barriers of blocks
static uint32_t phase;  // barriers of the grid
static unsigned long long clock_time;
// wgmma.fence and fence.proxy.async so far, of all threads and launches.
static uint32_t fences, proxy_fences;
static uint32_t phases;  // of mbarriers, that are over
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
  if (!fibers[fiber_number].products.empty()) fail("a thread ends, and has not waited for its wgmma");
  fibers[fiber_number].state = Fiber::DONE;
  _longjmp(scheduler, 1);
}

// Of a thread, where a block may have all that a multiprocessor has. They come by 8.
static int registers_at_first() { return std::min(65536 / threads, 255u) / 8 * 8; }

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

// All threads of a warp or warpgroup meet here; the last to come calls complete(slots).
template <class Complete>
static void meet(Meeting& meeting, unsigned size, const char* what, int line, void* mine, Complete complete) {
  if (meeting.arrived && (meeting.line != line || meeting.what != what)) {
    fail("divergent warp: some lanes are at " + at(meeting.what, meeting.line) + ", others at " + at(what, line));
  }
  meeting.what = what;
  meeting.line = line;
  meeting.slot[current % size] = mine;
  if (++meeting.arrived < static_cast<int>(size)) return wait(what, line);
  meeting.arrived = 0;
  complete(meeting.slot);
  const unsigned first = block->place * threads + current / size * size;
  for (unsigned i = 0; i < size; ++i) fibers[first + i].state = Fiber::READY;
}

template <class Complete>
static void collective(const char* what, int line, void* mine, Complete complete) {
  meet(block->warps[current / 32], 32, what, line, mine, complete);
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
  present = &together;
  for (Array& array : arrays) {
    if (array.kind == SHARED) memset(array.data, 0xff, array.bytes);
  }
  for (Block& of : together) {
    of.began = of.now = ++now;
    of.warps.assign(threads / 32, Meeting());
    of.groups.assign((threads + 127) / 128, Meeting());
  }
  const unsigned all = threads * together.size();
  fibers.resize(std::max<size_t>(fibers.size(), all));
  for (unsigned i = 0; i < all; ++i) {
    Fiber& fiber = fibers[i];
    fiber.state = Fiber::READY;
    fiber.started = fiber.touched = false;
    fiber.copies.clear();
    fiber.products.clear();
    std::fill_n(fiber.seen, MOST_BARRIERS, 0);
    fiber.waited = phases;
    fiber.registers = registers_at_first();
    fiber.groups = fiber.product_groups = fiber.fence = fiber.proxy_fence = 0;
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
  for (unsigned first = 0; first < all; first += threads) {
    int registers = 0;
    for (unsigned i = first; i < first + threads; ++i) registers += fibers[i].registers;
    if (registers > registers_at_first() * int(threads)) error = "setmaxnreg waits for ever: there are fewer registers";
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

static Time this_time() {
  return {block->now, block->groups[current / 128].time, block->warps[current / 32].time, phases};
}

// A load or store of a cell of shared memory or an output: when, and by whom, who last waited for an mbarrier when so
// many phases were over. What was before `began` is forgotten.
static void touch(const Array& array, Cell& cell, const char* address, bool write, Time time, uint32_t began, Who me,
                  uint32_t waited) {
  const auto over = [&](Time then, int warp, int group) {
    return then.all < time.all || then.phases < waited || (group == me.group && then.group < time.group) ||
           (warp == me.warp && then.warp < time.warp);
  };
  const bool again = cell.reader.thread == me.thread || cell.reader.thread == SEVERAL;
  if (!write && again && cell.reader.warp == me.warp && cell.read == time) return;
  const bool written = cell.writer != NOBODY && cell.written.all >= began;
  if (!write && !written) fail("read of what nobody has written: " + element(array, address));
  if (written && cell.coming) fail("a copy is on its way to " + element(array, address));
  if (written && cell.writer != me.thread && cell.writer != COPIED &&
      !over(cell.written, cell.writer / 32, cell.writer / 128)) {
    fail("race: " + element(array, address) + " was written by another thread, " + std::to_string(cell.writer));
  }
  const bool read =
      cell.reader.thread != NOBODY && cell.read.all >= began && !over(cell.read, cell.reader.warp, cell.reader.group);
  if (write) {
    if (cell.multiplied) fail("wgmma, not waited for, reads " + element(array, address));
    if (read && cell.reader.thread != me.thread) {
      fail("race: " + element(array, address) + " was read by other threads");
    }
    cell.written = time;
    cell.writer = me.thread;
    cell.proxy = proxy_fences;
    cell.announced = false;
    cell.reader = {NOBODY, NOBODY, NOBODY};
    return;
  }
  cell.reader.thread = read && cell.reader.thread != me.thread ? SEVERAL : me.thread;
  cell.reader.warp = read && cell.reader.warp != me.warp ? SEVERAL : me.warp;
  cell.reader.group = read && cell.reader.group != me.group ? SEVERAL : me.group;
  cell.read = time;
}

// A load or store of a register that a kernel has given to wgmma, or may give. When it was is kept.
static void touch_register(const char* address, size_t bytes, bool write) {
  for (const Pending& pending : fibers[fiber_number].products) {
    const auto within = [&](const void* first, const void* end) { return address < end && address + bytes > first; };
    if (within(pending.to.front(), pending.to.back() + 1)) fail("a sum of wgmma, which is not waited for, is touched");
    if (write && pending.a && within(pending.a, pending.a + 16)) fail("a register that wgmma reads is written");
  }
  for (const char* word = address - (address - stacks) % 4; word < address + bytes; word += 4) {
    touched_in[(word - stacks) / 4] = fences;
  }
}

static void access(const void* pointer, size_t bytes, bool write, size_t alignment) {
  const char* const address = static_cast<const char*>(pointer);
  if (address >= stacks && address < stacks + STACKS) {
    if (fences) touch_register(address, bytes, write);
    return;
  }
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
  const Time time = shared ? this_time() : Time{phase};
  const uint32_t waited = shared ? fibers[fiber_number].waited : 0;
  const int number = shared ? current : block->number * threads + current;
  const Who me = {number, number / 32, number / 128};
  for (size_t i = (address - array.data) / array.grain; array.data + i * array.grain < address + bytes; ++i) {
    touch(array, array.cells[i], array.data + i * array.grain, write, time, shared ? block->began : 0, me, waited);
  }
}

// What is known of shared memory.
static std::span<Cell> cells_of(const char* address, size_t bytes) {
  for (Array& array : arrays) {
    if (address < array.data || address >= array.data + array.bytes) continue;
    return std::span(array.cells).subspan((address - array.data) / array.grain, bytes / array.grain);
  }
  return {};
}

// Room for an array that begins so many bytes after a multiple of 256, or of 1024 in shared memory, which is at the
// same addresses in all blocks of a cluster.
static char* add(const char* name, Kind kind, size_t bytes, size_t element, size_t offset) {
  const size_t unit = kind == SHARED ? 1024 : 256;
  used = (used + GAP + unit - 1) / unit * unit;
  char* const data = room + used + offset;
  used += offset + bytes;
  const size_t grain = element % 4 ? 2 : 4;
  arrays.push_back({name, kind, data, bytes, element, grain, {}});
  if (kind == OUTPUT || kind == SHARED) arrays.back().cells.resize((bytes + grain - 1) / grain);
  return data;
}

}  // namespace emulation
