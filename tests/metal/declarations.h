// What the kernels use of the Metal Shading Language, declared for clang and defined nowhere. Here address spaces are
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
#define threadgroup static __attribute__((address_space(3)))  // of arrays in a kernel; clang wants them static
#define thread

namespace metal {
enum class mem_flags { mem_none, mem_device, mem_threadgroup };
void threadgroup_barrier(mem_flags);

template <typename T, int ROWS, int COLUMNS>
struct simdgroup_matrix {
  using elements = T __attribute__((ext_vector_type(2)));
  elements& thread_elements();
};
template <typename D, typename A, typename B, typename C>
void simdgroup_multiply_accumulate(
    simdgroup_matrix<D, 8, 8>&, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>, simdgroup_matrix<C, 8, 8>);

// As in Metal, one overload a type rather than a template: a call with two types is ambiguous.
#define FOR_NUMBERS(T) \
  T simd_sum(T);       \
  T simd_max(T);       \
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
float sqrt(float);
float exp(float);
}  // namespace precise
namespace fast {
float exp2(float);
}  // namespace fast
}  // namespace metal
using namespace metal;
