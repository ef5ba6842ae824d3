"""The statements of Hopper's tensor cores, whose text depends on the size of a product."""

import mlx.core as mx


def of_memory(columns: int, dtype: mx.Dtype) -> str:
    """64 `rows` of 16 times `columns` of 16, both in shared memory: added to `sum`, or unless `keep` in its place."""
    return _statement(columns, dtype, "%{0}", 1, '"l"(rows), "l"(columns), "r"(keep)', "1, 1, 0, 0")


def of_registers(columns: int, dtype: mx.Dtype, by_rows: bool) -> str:
    """64 rows of 16 in registers, `a`, times `columns` of 16 in shared memory: added to `sum`, or unless `keep` there.

    `by_rows` says that shared memory has 16 rows of the columns, and not the columns one after the other.
    """
    rows = '"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])'
    inputs = f'{rows}, "l"(columns), "r"(keep)'
    return _statement(columns, dtype, "{{%{0}, %{1}, %{2}, %{3}}}", 4, inputs, f"1, 1, {int(by_rows)}")


def _statement(columns: int, dtype: mx.Dtype, first: str, count: int, inputs: str, rest: str) -> str:
    """`first` is how the first operand is written, `count` of the `inputs`; behind it come a descriptor and `keep`."""
    sums = columns // 2
    kind = "bf16" if dtype == mx.bfloat16 else "f16"
    registers = ", ".join(f"%{i}" for i in range(sums))
    outputs = ", ".join(f'"+f"(sum[{i}])' for i in range(sums))
    a = first.format(*range(sums, sums + count))
    return (
        f'asm volatile("{{.reg .pred p;\\nsetp.ne.b32 p, %{sums + count + 1}, 0;\\n'
        f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} "
        f'{{{registers}}}, {a}, %{sums + count}, p, {rest};}}" : {outputs} : {inputs})'
    )
