// wgmma of Hopper: a warpgroup's product of matrices in shared memory, which goes on while the threads do. Its sums
// appear when a thread waits for them. And the bulk copies that bring what it reads, with the barriers that count them.
#pragma once
#include "block.h"
#include "device.h"

namespace emulation {

// A sum of the tensor cores, which cut more or less of it.
static float cut(double sum) {
  const float near = sum;
  return fabs(double(near)) > fabs(sum) ? nextafterf(near, 0.0f) : near;
}

static float from_half(unsigned bits) {
  static const std::vector<float> known = [] {  // a processor without an instruction for it takes long
    std::vector<float> all(1 << 16);
    for (size_t i = 0; i < all.size(); ++i) {
      all[i] = __builtin_bit_cast(_Float16, static_cast<unsigned short>(i));
    }
    return all;
  }();
  return known[bits & 0xffff];
}
static float from_bfloat(unsigned bits) { return __uint_as_float(bits << 16); }

// What a descriptor says of a matrix in pieces of 8 rows of 128 bytes. The last bits of an address tell the order of a
// row's 8 chunks of 16 bytes.
struct Described {
  unsigned start, further, stride;

  explicit Described(uint64_t bits)
      : start((bits & 0x7fff) << 4), further((bits >> 16 & 0x3fff) << 4), stride((bits >> 32 & 0x3fff) << 4) {
    if (bits >> 62 != 1) fail("a descriptor of no swizzle of 128 bytes");
    // On a device an address has at most 18 bits, and so have sums of them. Here memory begins anywhere, and a sum may
    // have one more.
    if (bits & 0x3fffc000c0008000) fail("a descriptor with bits that nothing tells, or of a base's offset");
    if (start & 0x380 || stride & 0x3ff) fail("a descriptor of what begins at no multiple of 1024");
  }

  // 8 numbers of a row, the first of them so many bytes from its begin, of 64 columns behind so many others. Read by
  // `group`, which `product` has.
  const unsigned short* chunk(unsigned row, unsigned bytes, unsigned group, Product& product,
                              unsigned block64 = 0) const {
    const unsigned plain = start + block64 * further + row / 8 * stride + row % 8 * 128 + bytes;
    const unsigned address = (plain ^ ((plain >> 7 & 7) << 4)) & 0x3ffff;
    for (Array& array : arrays) {
      if (array.kind != SHARED || array.place != block->place || array.name != "memory") continue;
      const unsigned offset = (address - unsigned(array.data - room)) & 0x3ffff;
      const char* const at = array.data + offset;
      if (offset + 16 > array.bytes) fail("wgmma reads out of bounds: " + element(array, at));
      Time time = this_time();
      time.warp = 0;
      const Fiber* const first = &fibers[block->place * threads + group * 128];
      for (size_t i = offset / array.grain; i < (offset + 16) / array.grain; ++i) {
        Cell& cell = array.cells[i];
        const char* const place = array.data + i * array.grain;
        touch(array, cell, place, false, time, block->began, {int(threads + group), NOBODY, int(group)},
              product.waited);
        if (cell.writer == COPIED) {
          const auto saw = [&](const Fiber& fiber) { return fiber.seen[cell.barrier] > cell.barrier_phase; };
          if (i % 8 == 0 && !std::all_of(first, first + 128, saw)) {
            fail("a thread has not waited for the bulk copy to " + element(array, place));
          }
        } else if (!cell.announced && cell.proxy >= fibers[block->place * threads + cell.writer].proxy_fence) {
          fail("no fence.proxy.async between the write of thread " + std::to_string(cell.writer) +
               " and wgmma's read: " + element(array, place));
        }
        ++cell.multiplied;
        product.cells.push_back(&cell);
      }
      return reinterpret_cast<const unsigned short*>(at);
    }
    fail("wgmma reads out of bounds: there is no dynamic shared memory");
  }
};

struct Operands {
  uint64_t rows, columns;
  const unsigned* a;
  int keep, groups;
  bool by_rows;  // of the second
  std::shared_ptr<Product> product;
};

// The array in shared memory, of whatever block, that has the place.
static Array& shared_array(unsigned at) {
  for (Array& array : arrays) {
    const char* const place = room + at;
    if (array.kind == SHARED && place >= array.data && place < array.data + array.bytes) return array;
  }
  fail("a place out of bounds of shared memory");
}

// The same place in another block of the cluster.
static unsigned in_block(unsigned at, unsigned rank) {
  if (rank >= cluster) fail("a block that the cluster does not have");
  const Array& here = shared_array(at);
  const unsigned place = here.place / cluster * cluster + rank;
  for (const Array& there : arrays) {
    if (there.kind == SHARED && there.place == place && there.name == here.name) {
      return at + static_cast<unsigned>(there.data - here.data);
    }
  }
  fail("shared memory that another block does not have yet");
}

// As if by a thread of the block that has the place.
template <class Work>
static void where(unsigned at, Work work) {
  Block* const own = block;
  block = &(*present)[shared_array(at).place];
  const Fiber* const first = &fibers[block->place * threads];
  if (std::all_of(first, first + threads, [](const Fiber& fiber) { return fiber.state == Fiber::DONE; })) {
    fail("shared memory of a block that has ended");
  }
  work();
  block = own;
}

static Barrier& barrier_at(unsigned at) {
  for (Barrier& barrier : block->barriers) {
    if (barrier.at == at) return barrier;
  }
  fail("no mbarrier has been made there");
}

// Bytes that are to come, copies that are there, and threads that have come.
static void advance(Barrier& barrier, int arrived, long long bytes) {
  barrier.arrived += arrived;
  barrier.bytes += bytes;
  if (barrier.arrived > barrier.expected) fail("more threads arrive at an mbarrier than it expects");
  if (!barrier.waiting.empty()) {
    for (const Copied& copied : barrier.copies) {
      for (size_t i = 0; i < copied.count; ++i) copied.cells[i].coming = false;
      barrier.bytes -= copied.bytes;
    }
    barrier.copies.clear();
    for (const std::vector<char*>& places : barrier.announcements) {
      ++barrier.arrived;
      for (char* const place : places) {
        for (Cell& cell : cells_of(place, 16)) {
          cell.coming = false;
          cell.written = this_time();
          cell.announced = true;
        }
      }
    }
    barrier.announcements.clear();
    if (barrier.arrived > barrier.expected) fail("more threads arrive at an mbarrier than it expects");
  }
  if (barrier.arrived < barrier.expected || barrier.bytes || !barrier.copies.empty()) return;
  barrier.arrived = 0;
  ++barrier.phase;
  barrier.over = ++phases;
  for (const unsigned fiber : barrier.waiting) fibers[fiber].state = Fiber::READY;
  barrier.waiting.clear();
}

template <class Number>
static void multiply(Operands** of, int columns, Number number) {
  const Operands& one = **of;
  const unsigned group = current / 128;
  const auto product = std::make_shared<Product>();
  product->left = 128;
  const Fiber* const first = &fibers[block->place * threads + group * 128];
  const auto sooner = [](const Fiber& a, const Fiber& b) { return a.waited < b.waited; };
  product->waited = std::min_element(first, first + 128, sooner)->waited;
  product->sums.resize(64 * columns);
  static float a[64][16], b[16][256];
  const auto read = [&](const Described& matrix, int rows, auto set) {
    if ((matrix.start & 127) + 32 > 128) fail("a descriptor of columns across the end of 128 bytes");
    for (int row = 0; row < rows; ++row) {
      for (int k = 0; k < 16; ++k) set(row, k, number(matrix.chunk(row, k / 8 * 16, group, *product)[k % 8]));
    }
  };
  if (one.a) {
    for (int thread = 0; thread < 128; ++thread) {
      for (int i = 0; i < 8; ++i) {
        const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8, k = thread % 4 * 2 + i / 4 * 8 + i % 2;
        a[row][k] = number(of[thread]->a[i / 2] >> 16 * (i % 2) & 0xffff);
      }
    }
  } else {
    read(Described(one.rows), 64, [](int row, int k, float x) { a[row][k] = x; });
  }
  if (one.by_rows) {
    for (int k = 0; k < 16; ++k) {
      for (int i = 0; i < columns; i += 8) {
        const auto from = Described(one.columns).chunk(k, i % 64 * 2, group, *product, i / 64);
        for (int j = 0; j < 8; ++j) b[k][i + j] = number(from[j]);
      }
    }
  } else {
    read(Described(one.columns), columns, [](int row, int k, float x) { b[k][row] = x; });
  }
  for (int row = 0; row < 64; ++row) {
    double sum[256] = {};
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < columns; ++column) sum[column] += double(a[row][k]) * b[k][column];
    }
    for (int column = 0; column < columns; ++column) {
      const int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2,
                i = column / 8 * 4 + row / 8 % 2 * 2 + column % 2;
      product->sums[thread * columns / 2 + i] = sum[column];
    }
  }
  for (int thread = 0; thread < 128; ++thread) of[thread]->product = product;
}

void wgmma(const char* type, int columns, const void* const* operands, int count) {
  Fiber& fiber = fibers[fiber_number];
  const int sums = columns / 2;
  const auto number = [&](int i) { return *static_cast<const int*>(operands[i]); };
  const auto descriptor = [&](int i) { return *static_cast<const uint64_t*>(operands[i]); };
  // Then the numbers in the text: what the predicate is not, the signs, and which operand is by rows.
  const bool registers = count == sums + 10;
  const int next = registers ? sums + 6 : sums + 3;
  const bool by_rows = registers && count == sums + 10 && number(next + 3) == 1;
  if (count != sums + (registers ? 10 : 8) || number(next) != 0 || number(next + 1) != 1 || number(next + 2) != 1 ||
      number(next + 3) != by_rows || (!registers && number(next + 4) != 0) || (by_rows && columns % 64)) {
    fail("a wgmma that the emulation does not have");
  }
  Operands mine = {0, descriptor(next - 2), nullptr, number(next - 1), fiber.product_groups, by_rows, nullptr};
  if (registers) {
    mine.a = static_cast<const unsigned*>(operands[sums]);
  } else {
    mine.rows = descriptor(sums);
  }
  std::vector<float*> to;
  for (int i = 0; i < next - 2; ++i) {
    const char* const place = static_cast<const char*>(operands[i]);
    if (i < sums) to.push_back(reinterpret_cast<float*>(const_cast<char*>(place)));
    if (i >= sums && !registers) continue;
    if (!fiber.fence || touched_in[(place - stacks) / 4] >= fiber.fence) {
      fail("no wgmma.fence between a register's use and wgmma");
    }
  }
  meet(block->groups[current / 128], 128, registers ? "wgmma of registers" : "wgmma", 0, &mine, [&](void** slots) {
    const auto of = reinterpret_cast<Operands**>(slots);
    for (int i = 1; i < 128; ++i) {
      if (of[i]->rows != of[0]->rows || of[i]->columns != of[0]->columns) fail("a warpgroup's descriptors differ");
      if (of[i]->keep != of[0]->keep) fail("a warpgroup's predicates differ");
      if (of[i]->groups != of[0]->groups) fail("a warpgroup's commits differ");
    }
    type[0] == 'b' ? multiply(of, columns, from_bfloat) : multiply(of, columns, from_half);
  });
  const char* const a = reinterpret_cast<const char*>(mine.a);
  fiber.products.push_back({fiber.product_groups, mine.product, std::move(to), mine.keep != 0, a});
}

}  // namespace emulation

namespace ptx {
using namespace emulation;

void setmaxnreg_dec_sync_aligned_u32(int registers) { fibers[fiber_number].registers = registers; }
void setmaxnreg_inc_sync_aligned_u32(int registers) { fibers[fiber_number].registers = registers; }
void fence_proxy_async() { fibers[fiber_number].proxy_fence = ++proxy_fences; }
void wgmma_fence_sync_aligned() { fibers[fiber_number].fence = ++fences; }
void wgmma_commit_group_sync_aligned() { ++fibers[fiber_number].product_groups; }
void wgmma_wait_group_sync_aligned(int most, int line) {
  Fiber& fiber = fibers[fiber_number];
  const auto waits = [&](const Pending& pending) { return pending.group >= fiber.product_groups - most; };
  for (const Pending& pending : fiber.products) {
    if (waits(pending)) continue;
    Product& product = *pending.product;
    const double* const sums = product.sums.data() + current % 128 * pending.to.size();
    for (size_t i = 0; i < pending.to.size(); ++i) {
      *pending.to[i] = cut((pending.keep ? *pending.to[i] : 0.0f) + sums[i]);
    }
    if (--product.left) continue;
    for (Cell* cell : product.cells) --cell->multiplied;
  }
  fiber.products.erase(std::remove_if(fiber.products.begin(), fiber.products.end(),
                                      [&](const Pending& pending) { return !waits(pending); }),
                       fiber.products.end());
  collective("wgmma.wait_group", line, nullptr, [](void**) {});
}
void wgmma_commit_group_sync_aligned_wgmma_wait_group_sync_aligned(int most, int line) {
  wgmma_commit_group_sync_aligned();
  wgmma_wait_group_sync_aligned(most, line);
}

// Bulk copies arrive when a thread waits for them.
void mbarrier_init_shared_cta_b64(unsigned at, int expected) {
  access(room + at, 8, true, 8);
  if (block->barriers.size() == MOST_BARRIERS) fail("more barriers than the emulation has");
  block->barriers.push_back({at, expected});
}
void fence_mbarrier_init_release_cluster_fence_proxy_async() { fence_proxy_async(); }
void mbarrier_arrive_shared_cta_b64(unsigned at) { advance(barrier_at(at), 1, 0); }
void mbarrier_arrive_expect_tx_shared_cta_b64(unsigned at, int bytes) { advance(barrier_at(at), 1, bytes); }
void mbarrier_try_wait_parity_shared_cta_b64_bra(unsigned at, int parity, int line) {
  Barrier& barrier = barrier_at(at);
  while (barrier.phase % 2 == parity) {
    barrier.waiting.push_back(fiber_number);
    advance(barrier, 0, 0);
    if (barrier.phase % 2 == parity) wait("mbarrier.try_wait", line);
  }
  fibers[fiber_number].seen[&barrier - block->barriers.data()] = barrier.phase;
  fibers[fiber_number].waited = std::max(fibers[fiber_number].waited, barrier.over);
}
// What this thread's cp.async bring, and its arrival, are there when a thread waits for them.
void cp_async_mbarrier_arrive_noinc_shared_cta_b64(unsigned at) {
  Fiber& fiber = fibers[fiber_number];
  Barrier& barrier = barrier_at(at);
  std::vector<char*> places;
  for (const auto& copy : fiber.copies) places.push_back(copy.second);
  fiber.copies.clear();
  barrier.announcements.push_back(std::move(places));
  advance(barrier, 0, 0);
}
// fill(place) makes what is copied, to a place of whatever block, whose barrier counts it.
template <class Fill>
static void bulk(unsigned to, size_t bytes, unsigned at, Fill fill) {
  where(to, [&] {
    Barrier& barrier = barrier_at(at);
    Array& array = shared_array(to);
    char* const place = room + to;
    if (place + bytes > array.data + array.bytes) fail("a bulk copy out of bounds of shared memory");
    const size_t grain = array.grain, count = bytes / grain;
    Cell* const cells = array.cells.data() + (place - array.data) / grain;
    for (size_t i = 0; i < count; ++i) {
      if (cells[i].coming) fail("a copy is on its way to " + element(array, place + grain * i));
      if (cells[i].multiplied) fail("wgmma, not waited for, reads " + element(array, place + grain * i));
      cells[i].written = this_time();
      cells[i].writer = COPIED;
      cells[i].reader = {NOBODY, NOBODY, NOBODY};
      cells[i].coming = true;
      cells[i].barrier = &barrier - block->barriers.data();
      cells[i].barrier_phase = barrier.phase;
    }
    fill(place);
    barrier.copies.push_back({cells, count, bytes});
    advance(barrier, 0, 0);
  });
}
void cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes(unsigned to, const void* from, int bytes,
                                                                    unsigned at) {
  if (bytes % 16 || to % 16) fail("a bulk copy of no multiple of 16 bytes");
  for (int i = 0; i < bytes; i += 16) access(static_cast<const char*>(from) + i, 16, false, 16);
  bulk(to, bytes, at, [&](char* place) { memcpy(place, from, bytes); });
}
void cp_async_bulk_prefetch_L2_global(const void* from, int bytes) {
  for (int i = 0; i < bytes; i += 16) access(static_cast<const char*>(from) + i, 16, false, 16);
}

// To the same place in each block that the mask names.
template <class Copy>
static void multicast(unsigned to, unsigned at, unsigned mask, Copy copy) {
  if (!mask || mask >> cluster) fail("a copy to blocks that the cluster does not have");
  for (unsigned rank = 0; rank < cluster; ++rank) {
    if (mask >> rank & 1) copy(in_block(to, rank), in_block(at, rank));
  }
}
void cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes_multicast_cluster(unsigned to, const void* from,
                                                                                      int bytes, unsigned at,
                                                                                      unsigned short mask) {
  multicast(to, at, mask, [&](unsigned there, unsigned barrier) {
    cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes(there, from, bytes, barrier);
  });
}

// What emulation.py has in the place of a tensor map, with what a kernel puts into it.
struct Map {
  unsigned width, rows, unused[2];
  const char* from;
  int total;
};
void tensormap_replace_tile_global_address_shared_cta_b1024_b64_tensormap_replace_tile_global_dim_shared_cta_b1024_b32(
    unsigned at, const void* from, int total, int dimension) {
  if (dimension != 1) fail("another dimension of a tensor map than its rows");
  access(room + at, 128, true, 128);
  Map map;
  memcpy(&map, room + at, sizeof(map));
  map.from = static_cast<const char*>(from);
  map.total = total;
  memcpy(room + at, &map, sizeof(map));
}
void tensormap_cp_fenceproxy_global_shared_cta_tensormap_generic_release_gpu_sync_aligned_fence_proxy_tensormap_generic_acquire_gpu(
    void* to, unsigned at, int, int, int line) {
  collective("tensormap.cp_fenceproxy", line, nullptr, [&](void**) {
    access(room + at, 128, false, 128);
    access(to, 128, true, 128);
    memcpy(to, room + at, 128);
  });
}
// 64 columns of rows of 16-bit numbers, in the order of the 128-byte swizzle; zeros beyond the last row.
void cp_async_bulk_tensor_2d_shared_cluster_global_mbarrier_complete_tx_bytes(unsigned to, const void* described,
                                                                              int column, int row, unsigned at) {
  Map map;
  memcpy(&map, described, sizeof(map));
  if (to % 128) fail("a copy of rows to no multiple of 128 bytes");
  bulk(to, map.rows * 128, at, [&](char* place) {
    for (unsigned r = 0; r < map.rows; ++r, place += 128) {
      for (int chunk = 0; chunk < 8; ++chunk) {
        char* const piece = place + ((chunk ^ ((place - room) >> 7 & 7)) << 4);
        const int first = column + chunk * 8;
        memset(piece, 0, 16);
        if (row + int(r) >= map.total || first + 8 > int(map.width)) continue;
        const char* const from = map.from + ((row + r) * size_t(map.width) + first) * 2;
        access(from, 16, false, 16);
        memcpy(piece, from, 16);
      }
    }
  });
}
void cp_async_bulk_tensor_2d_shared_cluster_global_mbarrier_complete_tx_bytes_multicast_cluster(
    unsigned to, const void* described, int column, int row, unsigned at, unsigned short mask) {
  multicast(to, at, mask, [&](unsigned there, unsigned barrier) {
    cp_async_bulk_tensor_2d_shared_cluster_global_mbarrier_complete_tx_bytes(there, described, column, row, barrier);
  });
}

void mapa_shared_cluster_u32(unsigned& there, unsigned at, int rank) { there = in_block(at, rank); }
void mapa_shared_cluster_u32_mbarrier_arrive_shared_cluster_b64(unsigned at, int rank) {
  const unsigned there = in_block(at, rank);
  where(there, [&] { advance(barrier_at(there), 1, 0); });
}
void st_async_shared_cluster_mbarrier_complete_tx_bytes_v2_f32(unsigned to, float x, float y, unsigned at) {
  const float both[] = {x, y};
  bulk(to, 8, at, [&](char* place) { memcpy(place, both, 8); });
}
void barrier_cluster_arrive_release_aligned_barrier_cluster_wait_acquire_aligned(int line) {
  Block* const first = present->data() + block->place / cluster * cluster;
  if (++first->at_cluster < threads * cluster) return wait("barrier.cluster", line);
  first->at_cluster = 0;
  for (Block* of = first; of < first + cluster; ++of) of->now = ++now;
  for (unsigned i = 0; i < threads * cluster; ++i) {
    fibers[first->place * threads + i].state = Fiber::READY;
    fibers[first->place * threads + i].touched = false;
  }
}
void bar_sync(int number, int of, int line) {
  if (of != 128 || number < 1 || number > 15) fail("a barrier of others than a warpgroup");
  Meeting& group = block->groups[current / 128];
  meet(group, 128, "bar.sync", line, nullptr, [&](void**) { ++group.time; });
}
void ld_global_v4_b32(unsigned& x, unsigned& y, unsigned& z, unsigned& w, const void* from) {
  access(from, 16, false, 16);
  unsigned four[4];
  memcpy(four, from, 16);
  x = four[0], y = four[1], z = four[2], w = four[3];
}

}  // namespace ptx
