// The part of CUDA that custom_kernels/cuda uses, for a CPU: what a kernel's source is compiled with. runtime.cpp
// has the functions.
#pragma once

// The compiler's own, since the standard headers take longer than a kernel. abs is of integers.
#define abs __builtin_abs
#define erff __builtin_erff
#define expf __builtin_expf
#define fmaf __builtin_fmaf
#define fabsf __builtin_fabsf
#define fmaxf __builtin_fmaxf
#define sqrtf __builtin_sqrtf
#define tanhf __builtin_tanhf
using size_t = decltype(sizeof(0));

#define __device__
#define __global__
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulation {
struct Place {
  unsigned x;
};
Place thread_index();
Place block_index();
Place block_size();
Place grid_size();
// Parameters of the launch, by their places among the arrays and among the scalars.
void* array(int i);
int integer(int i);
float number(int i);
// The block's shared memory: an array of this name, or what the launch asked for.
void* shared(const char* name, size_t bytes, size_t alignment, size_t element);
void* dynamic_shared();
// The sums' registers, and then wgmma's other operands.
void wgmma(const char* type, int columns, const void* const* operands, int count);
}  // namespace emulation
#define threadIdx (emulation::thread_index())
#define blockIdx (emulation::block_index())
#define blockDim (emulation::block_size())
#define gridDim (emulation::grid_size())

// Threads that meet have to come to the same line.
void __syncthreads(int line = __builtin_LINE());
void __syncwarp(int line = __builtin_LINE());
float __shfl_xor_sync(unsigned members, float x, int lane, int line = __builtin_LINE());
unsigned __shfl_xor_sync(unsigned members, unsigned x, int lane, int line = __builtin_LINE());
unsigned __shfl_sync(unsigned members, unsigned x, int lane, int line = __builtin_LINE());
float __shfl_sync(unsigned members, float x, int lane, int line = __builtin_LINE());
unsigned __ballot_sync(unsigned members, bool x, int line = __builtin_LINE());
inline bool __any_sync(unsigned members, bool x, int line = __builtin_LINE()) {
  return __ballot_sync(members, x, line) != 0;
}

// What is ordered by atomics and fences is not checked.
unsigned atomicAdd(unsigned* at, unsigned x);
unsigned atomicExch(unsigned* at, unsigned x);
inline void __threadfence() {}
void __trap();

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
unsigned long long __cvta_generic_to_shared(const void* from);

// PTX, by its names with underscores. The parameters are the operands, and then the numbers among them.
namespace ptx {
void cvt_rn_f16_f32(unsigned short& to, float x);
void cvt_f32_f16(float& to, unsigned short x);
void cvt_rn_bf16_f32(unsigned short& to, float x);
void cvt_rn_f16x2_f32(unsigned& to, float high, float low);
void cvt_rn_bf16x2_f32(unsigned& to, float high, float low);
void mov_b32_cvt_f32_f16_cvt_f32_f16(float& low, float& high, unsigned both);
void mov_u64(unsigned long long& to);
void ex2_approx_ftz_f32(float& to, float x);
void rcp_approx_ftz_f32(float& to, float x);
void cp_async_cg_shared_global(unsigned to, const void* from, int present, int bytes);
inline void cp_async_cg_shared_global(unsigned to, const void* from, int bytes) {
  cp_async_cg_shared_global(to, from, bytes, bytes);
}
void cp_async_commit_group();
void cp_async_wait_group(int most);
void ldmatrix_sync_aligned_m8n8_x4_shared_b16(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned from,
                                              int line = __builtin_LINE());
void ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned from,
                                                    int line = __builtin_LINE());
void mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32(float& c0, float& c1, float& c2, float& c3, unsigned a0,
                                                         unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                                         unsigned b1, int line = __builtin_LINE());
void mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32(float& c0, float& c1, float& c2, float& c3, unsigned a0,
                                                       unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                                                       int line = __builtin_LINE());
void mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32(float& c0, float& c1, float& c2, float& c3, unsigned a0,
                                                        unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                                                        int line = __builtin_LINE());
void fence_proxy_async();
void wgmma_fence_sync_aligned();
void wgmma_commit_group_sync_aligned();
void wgmma_wait_group_sync_aligned(int most, int line = __builtin_LINE());
void wgmma_commit_group_sync_aligned_wgmma_wait_group_sync_aligned(int most, int line = __builtin_LINE());

#define WGMMA_OF(N, TYPE)                                                                                  \
  template <class... Operands>                                                                             \
  void setp_ne_b32_wgmma_mma_async_sync_aligned_m64n##N##k16_f32_##TYPE##_##TYPE(Operands&&... operands) { \
    const void* const all[] = {&operands...};                                                              \
    emulation::wgmma(#TYPE, N, all, sizeof...(operands));                                                  \
  }
#define WGMMAS_OF(N) WGMMA_OF(N, f16) WGMMA_OF(N, bf16)
WGMMAS_OF(32)
WGMMAS_OF(64)
WGMMAS_OF(96)
WGMMAS_OF(128)
WGMMAS_OF(192)
WGMMAS_OF(256)
#undef WGMMAS_OF
#undef WGMMA_OF
void setmaxnreg_dec_sync_aligned_u32(int registers);
void setmaxnreg_inc_sync_aligned_u32(int registers);
inline void cp_async_wait_group_fence_proxy_async(int most) {
  cp_async_wait_group(most);
  fence_proxy_async();
}
void mbarrier_init_shared_cta_b64(unsigned at, int expected);
void fence_mbarrier_init_release_cluster_fence_proxy_async();
void mbarrier_arrive_shared_cta_b64(unsigned at);
void mbarrier_arrive_expect_tx_shared_cta_b64(unsigned at, int bytes);
void mbarrier_try_wait_parity_shared_cta_b64_bra(unsigned at, int parity, int line = __builtin_LINE());
void cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes(unsigned to, const void* from, int bytes,
                                                                    unsigned at);
void cp_async_mbarrier_arrive_noinc_shared_cta_b64(unsigned at);
void bar_sync(int number, int of, int line = __builtin_LINE());
void ld_global_v4_b32(unsigned& x, unsigned& y, unsigned& z, unsigned& w, const void* from);

// Of clusters.
void cp_async_bulk_prefetch_L2_global(const void* from, int bytes);
void cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes_multicast_cluster(unsigned to, const void* from,
                                                                                      int bytes, unsigned at,
                                                                                      unsigned short mask);
void tensormap_replace_tile_global_address_shared_cta_b1024_b64_tensormap_replace_tile_global_dim_shared_cta_b1024_b32(
    unsigned at, const void* from, int total, int dimension);
void tensormap_cp_fenceproxy_global_shared_cta_tensormap_generic_release_gpu_sync_aligned_fence_proxy_tensormap_generic_acquire_gpu(
    void* to, unsigned at, int, int, int line = __builtin_LINE());
void cp_async_bulk_tensor_2d_shared_cluster_global_mbarrier_complete_tx_bytes(unsigned to, const void* described,
                                                                              int column, int row, unsigned at);
void cp_async_bulk_tensor_2d_shared_cluster_global_mbarrier_complete_tx_bytes_multicast_cluster(
    unsigned to, const void* described, int column, int row, unsigned at, unsigned short mask);
void mapa_shared_cluster_u32(unsigned& there, unsigned at, int rank);
void mapa_shared_cluster_u32_mbarrier_arrive_shared_cluster_b64(unsigned at, int rank);
void st_async_shared_cluster_mbarrier_complete_tx_bytes_v2_f32(unsigned to, float x, float y, unsigned at);
void barrier_cluster_arrive_release_aligned_barrier_cluster_wait_acquire_aligned(int line = __builtin_LINE());
}  // namespace ptx
