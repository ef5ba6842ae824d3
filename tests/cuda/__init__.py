"""The CUDA kernels of this repository, run on a CPU: their own source, compiled by a C++ compiler.

`emulated_cuda()` takes the place of `custom_kernels.cuda.launch.launch_all`, so that `custom_kernels.cuda` runs its
kernels on the CPU, unchanged from their launch on: grids, constants, scalars and sizes of shared memory are its own.
Two kinds of text are replaced in a source: asm statements become calls of functions named after the instruction, and
what declares shared memory becomes references to memory that is watched. `device.h` supplies the rest. The compiler is
told to prepare loads and stores for a thread sanitizer, whose functions `runtime.cpp` has in its own way. A launch
fails, with the element and the thread, when

- an address lies outside of an array of the launch or of shared memory, in either direction, or beyond the dynamic
  shared memory that the launch asked for; or an index outside of an array in registers;
- a vector is read or written where it may not be: inputs of odd seeds begin at no multiple of 16 bytes, as slices do;
- shared memory is read before anybody wrote it, or while cp.async is on its way to it, or is more than a block has;
- two threads touch an element of shared memory, one of them writing, with no barrier of the block or of their warp
  between, and the second has not waited for an mbarrier since; or two threads of the grid touch an element of an
  output, with no barrier of the grid between; or an input is written;
- `__syncthreads`, a shuffle, ldmatrix or mma is not reached by all threads of the block or warp, or a barrier of the
  grid by all blocks;
- wgmma is not reached by all threads of a warpgroup with the same descriptor, of the 128-byte swizzle; a register of it
  is used with no `wgmma.fence` between, or before `wait_group`; or shared memory that it reads was written with no
  `fence.proxy.async` of the writer after, or is written before `wait_group`. Sums appear no earlier than there;
- an mbarrier is waited for in vain, or more threads arrive than it expects; or a bulk copy overwrites what wgmma reads.
  Copies that an mbarrier tells of are there no earlier than a thread waits for it;
- a block of a cluster ends before another writes into its shared memory, or `setmaxnreg` waits for registers that the
  block does not have;
- the launch hands other arrays, scalars or threads than the kernel takes.

Seeds choose the order in which threads and blocks run: 0 forward, 1 backward, others at random. Blocks run one after
the other, those of a cluster at once, or all of them where they wait for each other. float16 and bfloat16 round as on a
device, and each operation of float32 by itself.

What this does not prove:

- that NVRTC takes the source, and what it makes of it: contracted products and sums, registers, spills;
- that ldmatrix, mma and wgmma are as PTX documents them, how tensor cores round their sums (those of wgmma and of TF32
  are cut to float32 here), and the last bits of approximate instructions, which are more exact here;
- fences: a barrier of the grid is one where all blocks had a barrier of their own since they last touched an output;
- anything that MLX does with a launch; speed and occupancy;
- which threads a wait for an mbarrier orders: any wait for one orders all that happened before its phase was over; bulk
  copies arrive when any thread waits for theirs, and each thread of a warpgroup has to, before wgmma reads one;
- that wgmma sees what cp.async has brought without a fence, once an mbarrier has told of it;
- the driver's tensor maps, in whose place stands what they are made of; kernels that read and write the host's memory.
"""
