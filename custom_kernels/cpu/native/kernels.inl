// Every kernel, written on the compiler's vector types and compiled once an instruction set. The including file
// defines LANES (floats a vector), TILE_ROWS, TILE_VECTORS, TABLE and NAME.
//
// Nothing here may be visible outside but TABLE, nor run at load: a processor without the instruction set must
// never meet one of its instructions. Hence no standard library, no inline function of a shared header, no
// constructor.
#include "kernels.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#include "vectors.inl"
#include "functions.inl"
#include "finish.inl"
#include "gemm.inl"
#include "sgemm.inl"
#include "attention.inl"
#include "distances.inl"
#include "rows.inl"
#include "top_k_scores.inl"
#include "table.inl"

}  // namespace

extern "C" {
extern const Kernels TABLE;
const Kernels TABLE = {{NAME, NR, laid_out, lay_out, gemm_scratch, gemm},
                       {"cblas_sgemm", NR, laid_out_plainly, lay_out_plainly, no_scratch, gemm_by_sgemm},
                       attention_scratch,
                       attention,
                       {distances_laid_out, lay_out_distances, distances_scratch, distances},
                       layer_norm,
                       rms_norm,
                       gather,
                       gated,
                       rope,
                       mean,
                       gather_mean,
                       greatest,
                       inner_product,
                       top_k_scratch,
                       top_k};
}
