// What the kernels use of the Metal Shading Language, declared for clang and hardly defined. Here address spaces are
// part of types, and an element of a vector has no address: what a C++ emulation cannot have.
using uint = unsigned;
using ushort = unsigned short;
using int8_t = signed char;
using uint8_t = unsigned char;
using int32_t = int;
using size_t = unsigned long;
using half = _Float16;
using float16_t = half;
using bfloat = __bf16;
using bfloat16_t = bfloat;
using uint3 = uint __attribute__((ext_vector_type(3)));

#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread
#define METAL_FUNC inline __attribute__((__always_inline__))
#define INFINITY __builtin_inff()

// In Metal a structure is copied from one address space to another; here a vector is.
template <typename T, int N>
struct ElementsOf {
  using type = T __attribute__((ext_vector_type(N), aligned(sizeof(T))));
};
template <typename T, int N>
using Elements = typename ElementsOf<T, N>::type;

namespace metal {
enum class mem_flags { mem_none, mem_device, mem_threadgroup };
void threadgroup_barrier(mem_flags);

// Apple's `thread_elements()` is reported to be a reference to all 64 elements, of which a lane has the first two: a
// loop over it that is not unrolled puts the matrix into memory. Where the model is wrong, it is too strict.
template <typename T, int ROWS, int COLUMNS>
struct simdgroup_matrix {
  using elements = T __attribute__((ext_vector_type(64)));
  elements storage;
  elements& thread_elements() { return storage; }
};
template <typename D, typename A, typename B, typename C>
D multiplied(A, B, C);
template <typename D, typename A, typename B, typename C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                   simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c) {
  d.storage = multiplied<typename simdgroup_matrix<D, 8, 8>::elements>(a.storage, b.storage, c.storage);
}

// As in Metal, one overload a type rather than a template: a call with two types is ambiguous.
#define FOR_NUMBERS(T) \
  T simd_sum(T);       \
  T simd_shuffle_xor(T, ushort);
FOR_NUMBERS(float)
FOR_NUMBERS(half)
FOR_NUMBERS(int)
FOR_NUMBERS(uint)
float max(float, float);
int max(int, int);
uint max(uint, uint);
float min(float, float);
int min(int, int);
uint min(uint, uint);
int abs(int);
float abs(float);
namespace precise {
float rsqrt(float);
float exp(float);
float sqrt(float);
float exp(float);
}  // namespace precise
namespace fast {
float exp2(float);
}  // namespace fast
}  // namespace metal
using namespace metal;
