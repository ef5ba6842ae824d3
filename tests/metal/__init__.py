"""The Metal kernels of this repository, run on a CPU: the source that MLX generates, compiled by a C++ compiler.

`emulated_metal()` puts the emulation in the place of `mx.fast.metal_kernel`, so that `custom_kernels.metal` runs its
kernels on the CPU, unchanged from their launch on. MLX makes the source text of each launch, as it would on a Mac.
Three kinds of text are replaced in it, because C++ has no address spaces: pointers to `device`, `constant` and
`threadgroup` memory become checked pointers, `threadgroup` arrays become checked arrays, and the last line (the
instantiation) becomes a call. `emulation.h` and `runtime.cpp` supply the rest. A launch fails, with the element and the
thread, when

- an index lies outside its buffer or threadgroup array;
- threadgroup memory is read before anybody wrote it, or the arrays take more than 32 KB;
- two threads touch an element of threadgroup memory, one of them writing, with no barrier between; or two threads of
  the grid touch an element of an output;
- a barrier or a simdgroup operation is not reached by all threads of its threadgroup or simdgroup;
- a pointer of one address space is used as one of another (short arrays come as `constant`, others as `device`);
- a value is read where its type may not be: arrays begin at any element of their memory, as slices do;
- an array of several dimensions is indexed by 32 bits, which a large one has more elements than;
- there are more buffers, or threads in a threadgroup, than Metal has.

Seeds choose the order in which threads and threadgroups run: 0 forward, 1 backward, others at random. With an odd one
the device is loose: it contracts products and sums, `fast::exp2` is two units off, denormal numbers of float are 0, and
`simd_sum` adds in any order. Otherwise each operation rounds by itself, those of half and bfloat too.

What this does not prove:

- that Apple's compiler takes the source. The clang of the package ziglang compiles it for a GPU's target, as C++14 with
  real address spaces and vectors, against `declarations.h`: close, but not the same. It also shows what would lie on
  the stack, and may warn of nothing. `scripts/check_metal.sh` asks Apple's own.
- the layout of a simdgroup matrix over the lanes. It is the one that MLX's own kernels rely on; Apple does not
  document it.
- a simdgroup barrier as a way to order threadgroup memory: such accesses count as a race here.
- the memory model of the hardware; races in device memory that do not touch an output.
- rounding of `fast::` functions other than exp2, and the order of sums within matrix products.
- speed, occupancy, registers, and the largest threadgroup that a pipeline allows.

On a Mac the tests of each op run the same kernels on the real device.
"""
