"""How the tensor memory accelerator of Hopper is told where an array is and in what pieces it is wanted."""

import ctypes
from functools import cache

import mlx.core as mx
import numpy as np

# The driver's names of what is asked for here (cuda.h).
UINT16, INTERLEAVE_NONE, SWIZZLE_128B, L2_PROMOTION_128B, FILL_ZEROS = 1, 0, 3, 2, 0
# A map is made for some array; a kernel puts its own address and number of rows in their places.
SOME_ADDRESS, MANY_ROWS = 1 << 20, 1 << 30


@cache
def row_pieces(width: int, rows: int) -> mx.array:
    """A map of an array [any, width] of 16-bit values, whose pieces are so many rows of 64 columns: uint32 [32].

    A piece has 128 bytes a row, in whose order the 8 chunks of 16 bytes of row r are as r % 8 says: the tensor cores'
    swizzle. Rows beyond the array are zeros.

    Raises:
        NotImplementedError: a driver that has no such maps.
    """
    memory = ctypes.create_string_buffer(128 + 63)
    place = (ctypes.addressof(memory) + 63) // 64 * 64
    try:
        encode = ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled
    except (OSError, AttributeError) as error:
        raise NotImplementedError(f"The CUDA driver has no tensor maps: {error}") from error
    status = encode(
        ctypes.c_void_p(place),
        UINT16,
        2,
        ctypes.c_void_p(SOME_ADDRESS),
        (ctypes.c_uint64 * 2)(width, MANY_ROWS),
        (ctypes.c_uint64 * 1)(width * 2),
        (ctypes.c_uint32 * 2)(64, rows),
        (ctypes.c_uint32 * 2)(1, 1),
        INTERLEAVE_NONE,
        SWIZZLE_128B,
        L2_PROMOTION_128B,
        FILL_ZEROS,
    )
    if status:
        raise NotImplementedError(f"The CUDA driver gives error {status} for a map of rows {width} wide.")
    found = mx.array(np.frombuffer(ctypes.string_at(place, 128), dtype=np.uint32))
    mx.eval(found)  # or every graph would make it again
    return found
