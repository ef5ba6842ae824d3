// A pool of threads for loops of independent jobs, and memory that a thread keeps between them.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <memory>

// Calls run(context, job) for every job in [0, jobs), the caller taking part. Jobs start in order. While another
// thread is inside, the caller does all its jobs itself. Throws std::bad_alloc when a job did.
void parallel(int64_t jobs, void (*run)(const void* context, int64_t job), const void* context);

template <class F> void parallel_for(int64_t jobs, const F& f) {
  parallel(jobs, [](const void* context, int64_t job) { (*static_cast<const F*>(context))(job); }, &f);
}

int64_t thread_count();
void set_thread_count(int64_t count);

// 64-byte aligned floats; large blocks on huge pages where the system has them. Throws std::bad_alloc.
float* allocate(size_t floats);
void release(float* block);
// The same, of memory that lies beside that of the calls before, on the same huge pages: for the many weights of a
// model. A block of it goes when none of it is used any more.
std::shared_ptr<float> allocate_beside(size_t floats);
// Gives back to the system what malloc keeps of memory that was freed, where it has a call for that.
void trim();

// At least `floats` floats that belong to this thread until its next call.
float* scratch(size_t floats);
