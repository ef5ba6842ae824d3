// 16-bit values two to a register. Compiled in: BFLOAT.

// Rounded, as neighbours.
__device__ unsigned rounded(float first, float second) {
  unsigned both;
  if constexpr (BFLOAT) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  }
  return both;
}

__device__ float2 unpacked_halves(unsigned both) {
  float2 x;
  asm("{.reg .f16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;}"
      : "=f"(x.x), "=f"(x.y)
      : "r"(both));
  return x;
}

__device__ float2 unpacked(unsigned both) {
  if constexpr (BFLOAT) return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000));
  return unpacked_halves(both);
}

// c += a b on the tensor cores: a warp's tiles of 16 x 16 and 16 x 8, laid out as mma.m16n8k16 has them.
__device__ void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  if constexpr (BFLOAT) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}
