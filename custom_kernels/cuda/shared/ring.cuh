// What streams by for products on Hopper: bulk copies into a ring of STAGES places in shared memory, each of
// STAGE_BYTES, for GROUPS warpgroups. ARRIVALS threads say that a place is full. CLUSTER blocks may fill and empty each
// other's.
#include "shared/hopper.cuh"

// By one thread, and the only one that arrives: so many bytes are to come.
__device__ void expect(unsigned barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// One bulk copy, whose bytes `barrier` counts.
__device__ void copy(unsigned to, const void* from, int bytes, unsigned barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

// The same to the same place, and for the same barrier, of both blocks of a cluster.
__device__ void copy_to_all(unsigned to, const void* from, int bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
      "%4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(static_cast<unsigned short>(3))
      : "memory");
}

// The cluster's blocks wait for each other, or a block's own threads.
__device__ void cluster_sync() {
  if constexpr (CLUSTER == 1) return __syncthreads();
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The ring in shared memory, with a barrier a place that says that it is full and one that it is empty again.
struct Ring {
  unsigned places, full, empty;
  int stage = 0, parity = 0;

  __device__ explicit Ring(unsigned start)
      : places(start), full(start + STAGES * STAGE_BYTES), empty(full + STAGES * 8) {}

  __device__ void initialise() {
    for (int s = 0; s < STAGES; ++s) {
      barrier_initialise(full + s * 8, ARRIVALS);
      barrier_initialise(empty + s * 8, GROUPS * CLUSTER * 4);
    }
    barriers_are_there();
  }

  __device__ void advance() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }

  __device__ unsigned place() const { return places + stage * STAGE_BYTES; }
};

// By a warp, whose product of a place is done: it may be filled again, in all blocks of the cluster.
__device__ void hand_back(unsigned barrier, int lane) {
  if constexpr (CLUSTER == 1) {
    if (lane == 0) barrier_arrive(barrier);
  } else if (lane < CLUSTER) {
    asm volatile(
        "{.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(barrier),
        "r"(lane)
        : "memory");
  }
}
