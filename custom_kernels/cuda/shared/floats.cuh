// The two 16-bit floats, without CUDA's headers, whose parsing takes longer than compiling a kernel.
struct float16 {
  unsigned short bits;
  float16() = default;
  explicit __device__ float16(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
  explicit __device__ operator float() const {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
};
struct bfloat16 {
  unsigned short bits;
  bfloat16() = default;
  explicit __device__ bfloat16(float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
  explicit __device__ operator float() const { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
};
