// Hopper's tensor cores (wgmma), which a warpgroup's threads ask for products of what is in shared memory, and barriers
// that say when it is there.
__device__ unsigned shared_address(const void* place) { return static_cast<unsigned>(__cvta_generic_to_shared(place)); }

__device__ void barrier_initialise(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// After the last of them, by the same thread.
__device__ void barriers_are_there() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
}

__device__ void barrier_arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives when all that this thread's cp.async have begun to bring is there.
__device__ void arrive_when_there(unsigned barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

__device__ void barrier_wait(unsigned barrier, int parity) {
  asm volatile(
      "{.reg .pred done;\nagain: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;}" ::"r"(
          barrier),
      "r"(parity)
      : "memory");
}

// A place in shared memory, as the tensor cores want it described: 8 rows of 128 bytes after each other, swizzled.
// Where they sum over the rows, as over values, and not within them, each 64 columns begin `further` bytes behind those
// before.
__device__ unsigned long long described(unsigned place, int further = 16) {
  return (static_cast<unsigned long long>(place & 0x3ffff) >> 4) |
         (static_cast<unsigned long long>(further >> 4) << 16) | (64ull << 32) | (1ull << 62);
}

// What a register holds is done with, and the tensor cores may have it.
__device__ void begin_wgmma() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// The tensor cores go on while the threads do; `finish_wgmma` waits until all but the last LEFT commits are done.
__device__ void commit_wgmma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int LEFT>
__device__ void finish_wgmma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// The compiler knows not that the tensor cores write the sums: they are in these registers, before and after.
template <int SIZE>
__device__ void pin(float (&sum)[SIZE]) {
#pragma unroll
  for (int i = 0; i < SIZE; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}

// A warpgroup's threads wait for each other.
__device__ void group_sync(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }
