// The part of the Metal Shading Language that custom_kernels/metal uses, on a CPU. What does not depend on a kernel is
// in runtime.cpp, which is compiled once. See __init__.py for what this proves and what it does not.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

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

[[noreturn]] void fail(const char* what);
[[noreturn]] void fail(const char* what, int number);

struct Thread {
  uint3 threadgroup_position_in_grid, thread_position_in_threadgroup, thread_position_in_grid;
  uint3 threads_per_threadgroup, threadgroups_per_grid, threads_per_grid;
  uint thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
  uint simdgroups_per_threadgroup, threads_per_simdgroup = 32;
};

using Body = void (*)(const Thread&);

// The slots of a simdgroup's lanes for the last of them to come, and how many they are. The others get null, once it
// has called `part`.
void** meet(const char* what, int line, void* mine, int& lanes);
void part();

// All lanes of the simdgroup meet here; the last to come calls complete(slots, lanes).
template <class Complete>
static void collective(const char* what, int line, void* mine, Complete complete) {
  int lanes;
  void** const slots = meet(what, line, mine, lanes);
  if (!slots) return;
  complete(slots, lanes);
  part();
}

// 0 .. n - 1: forward for seed 0, backward for 1, otherwise shuffled (and the seed moved on).
std::vector<size_t> turns(size_t n, std::uint64_t& seed);

// ------------------------------------------------------------------------------------------------------ memory

constexpr int NOBODY = -1, SEVERAL = -2;

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

// Where a value of so many bytes is, once it may be read or written there; or an index of 32 bits would not reach it.
const char* read(Region& region, std::ptrdiff_t byte, size_t bytes, size_t alignment);
char* write(Region& region, std::ptrdiff_t byte, size_t bytes);
[[noreturn]] void fail_to_reach(const Region& region);

template <class T>
struct Reference {
  Region* region;
  std::ptrdiff_t byte;
  T load() const {
    T value;
    std::memcpy(&value, read(*region, byte, sizeof(T), alignof(T)), sizeof(T));
    return value;
  }
  operator T() const { return load(); }
  template <class U>
    requires(!std::is_arithmetic_v<T> && std::is_arithmetic_v<U>)
  explicit operator U() const {
    return static_cast<U>(load());
  }
  Reference& operator=(T value) {
    std::memcpy(write(*region, byte, sizeof(T)), &value, sizeof(T));
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
    if (sizeof(Index) < 8 && !far && region->dims > 1) fail_to_reach(*region);
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

// The array of this name that the threadgroup has, made by the first thread that asks.
Region* shared_array(const char* name, size_t count, size_t width);

// `threadgroup T name[N]`: every thread declares it, and all of them get the same array.
template <class T, size_t N>
struct Shared : Pointer<Threadgroup, T> {
  explicit Shared(const char* name) : Pointer<Threadgroup, T>{shared_array(name, N, sizeof(T))} {}
};

// ------------------------------------------------------------------------------------------------------ launch

struct Buffer {
  const char* name;
  void* data;
  std::int64_t count;
  std::int64_t dims;
  std::int64_t output;
};

// One of the launch, of elements of this width.
Region* buffer(size_t index, size_t width);

template <class Space, class T>
static Pointer<Space, T> argument(size_t index) {
  return {buffer(index, sizeof(T))};
}

// Runs every thread of the grid. Seed 0 runs threads in order, 1 in reverse, others in random order.
const char* dispatch(const Buffer* given, int n, const std::uint32_t* grid, const std::uint32_t* most,
                     std::uint64_t seed, Body kernel);

}  // namespace emulation

// ------------------------------------------------------------------------------------- what the kernels call

#define thread
#define METAL_FUNC inline

enum class mem_flags { mem_none, mem_device, mem_threadgroup };

void threadgroup_barrier(mem_flags flags, int line = __builtin_LINE());

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
      if (from >= lanes) emulation::fail("simd_shuffle_xor reads lane ", from);
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
