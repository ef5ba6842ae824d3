#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Long enough to bridge the gap between two ops of one forward pass, short enough not to heat an idle machine.
constexpr auto SPIN = std::chrono::microseconds(60);

template <class Ready> bool spin_until(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + SPIN;
  do {
    for (int i = 0; i < 64; i++) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

struct Pool {
  static constexpr uint64_t OPEN = uint64_t(1) << 32;

  std::mutex entrance;  // held by the thread whose loop runs
  std::mutex sleep;
  std::condition_variable wake;
  int sleeping = 0;  // guarded by `sleep`
  std::atomic<uint64_t> loops{0};
  // OPEN while workers may join the loop, plus how many are in it. The caller leaves only when none is.
  alignas(64) std::atomic<uint64_t> door{0};
  alignas(64) std::atomic<int64_t> next{0};
  int64_t jobs = 0;
  void (*run)(const void*, int64_t) = nullptr;
  const void* context = nullptr;
  std::atomic<bool> failed{false};
  int64_t workers = 0;  // started so far; guarded by `entrance`

  void drain() {
    for (int64_t job; (job = next.fetch_add(1, std::memory_order_relaxed)) < jobs;) {
      try {
        run(context, job);
      } catch (...) {
        failed = true;
      }
    }
  }

  bool join() {
    uint64_t seen = door.load(std::memory_order_acquire);
    while (seen & OPEN)
      if (door.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  void work(int64_t id, std::atomic<int64_t>& wanted) {
    uint64_t seen = 0;
    for (;;) {
      const auto changed = [&] { return loops.load(std::memory_order_acquire) != seen; };
      if (!spin_until(changed)) {
        std::unique_lock<std::mutex> lock(sleep);
        sleeping++;
        wake.wait(lock, changed);
        sleeping--;
      }
      seen = loops.load(std::memory_order_acquire);
      // A thread above the wanted count stays asleep, ready for a larger count.
      if (id < wanted.load(std::memory_order_relaxed) && join()) {
        drain();
        door.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  void loop(int64_t count, void (*f)(const void*, int64_t), const void* c, int64_t wanted);
};

std::atomic<int64_t> threads{1};
// Where `allocate_beside` goes on.
struct Shelf {
  static constexpr size_t FLOATS = size_t(4) << 20;

  std::mutex lock;
  std::weak_ptr<float> block;
  size_t used = 0;
};

// Never destroyed: threads may outlive main. A forked child, which has none of them, gets new ones. All is done when
// the library is loaded, since a lock that guards a first use could be copied locked into a child.
std::atomic<Pool*> pool{new Pool};
std::atomic<Shelf*> shelf{new Shelf};
[[maybe_unused]] const int renewed_in_children = pthread_atfork(nullptr, nullptr, [] {
  pool = new Pool;
  shelf = new Shelf;
});

void Pool::loop(int64_t count, void (*f)(const void*, int64_t), const void* c, int64_t wanted) {
  // Signals are for the caller's threads: Python's handlers must not wait for a worker to notice.
  if (workers + 1 < wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; workers + 1 < wanted; workers++) std::thread(&Pool::work, this, workers + 1, std::ref(threads)).detach();
    } catch (...) {  // no more threads to be had: go on with those there are
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  jobs = count;
  run = f;
  context = c;
  failed = false;
  next.store(0, std::memory_order_relaxed);
  door.store(OPEN, std::memory_order_release);
  loops.fetch_add(1, std::memory_order_release);
  {
    std::lock_guard<std::mutex> lock(sleep);
    if (sleeping) wake.notify_all();
  }
  drain();
  door.fetch_and(~OPEN, std::memory_order_acq_rel);
  for (int spins = 0; door.load(std::memory_order_acquire); spins++) {
    relax();
    if (spins > 20000) std::this_thread::yield();  // the worker may have lost its core
  }
  if (failed) throw std::bad_alloc();
}

struct Scratch {
  float* block = nullptr;
  size_t floats = 0;
  ~Scratch() { release(block); }
};
thread_local Scratch mine;

}  // namespace

void parallel(int64_t jobs, void (*run)(const void*, int64_t), const void* context) {
  Pool& p = *pool.load();
  const int64_t wanted = std::min(thread_count(), jobs);
  if (wanted > 1) {
    std::unique_lock<std::mutex> inside(p.entrance, std::try_to_lock);
    if (inside) return p.loop(jobs, run, context, thread_count());
  }
  for (int64_t job = 0; job < jobs; job++) run(context, job);
}

int64_t thread_count() { return threads.load(std::memory_order_relaxed); }
void set_thread_count(int64_t count) { threads = std::max<int64_t>(1, std::min<int64_t>(count, 1024)); }

float* allocate(size_t floats) {
  constexpr size_t HUGE_PAGE = size_t(2) << 20;
  const size_t bytes = std::max<size_t>(floats * sizeof(float), 64);
  // A smaller block would leave up to half of its last page unused, and the system takes long to find whole pages.
  const size_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
  const size_t whole = (bytes + alignment - 1) / alignment * alignment;
  void* block = nullptr;
  if (posix_memalign(&block, alignment, whole)) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == HUGE_PAGE) madvise(block, whole, MADV_HUGEPAGE);
#endif
  return static_cast<float*>(block);
}

void release(float* block) { free(block); }

std::shared_ptr<float> allocate_beside(size_t floats) {
  floats = (std::max<size_t>(floats, 1) + 15) / 16 * 16;
  if (floats > Shelf::FLOATS / 2) return {allocate(floats), release};
  Shelf& s = *shelf.load();
  std::lock_guard<std::mutex> lock(s.lock);
  std::shared_ptr<float> block = s.block.lock();
  if (!block || s.used + floats > Shelf::FLOATS) {
    block = {allocate(Shelf::FLOATS), release};
    s.block = block;
    s.used = 0;
  }
  s.used += floats;
  return {block, block.get() + s.used - floats};
}

void trim() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

float* scratch(size_t floats) {
  if (mine.floats < floats) {
    release(mine.block);
    mine.block = nullptr;
    mine.floats = 0;
    mine.block = allocate(floats);
    mine.floats = floats;
  }
  return mine.block;
}
