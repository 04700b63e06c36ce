"""Compiles kernels for GPUs that need not be there, and reads what the machine code needs."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
INDICES = {"rows", "weight_row", "ptr", "segment", "index"}  # int32 arrays
COUNTS = {"n_segments", "n_messages"}  # integers


class Compiled(NamedTuple):
    """Machine code of one kernel."""

    stack: int  # bytes a thread spills
    shared: int  # bytes a program
    instructions: list[str]  # without those outside of the main loop, where there is one

    def per_row(self, rows: int, warps: int) -> float:
        """Warp instructions that a row takes."""
        return len(self.instructions) * warps / rows

    @property
    def matrix_products(self) -> int:
        """Instructions that multiply matrices."""
        return sum("MMA" in instruction for instruction in self.instructions)


def compiled(kernel: Any, constants: dict[str, Any], *, sm: int, warps: int, folder: Path) -> Compiled:
    """`kernel` for compute capability `sm` (90: 9.0) with float32 data."""
    names = kernel.arg_names
    types = {name: "i32" if name in COUNTS else "*i32" if name in INDICES else "*fp32" for name in names}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")},
    )
    options = {"num_warps": warps, "num_stages": 1}
    built = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    binary = folder / "kernel.cubin"
    binary.write_bytes(built.asm["cubin"])
    usage, code = _dump(binary, "--dump-resource-usage"), _dump(binary, "--dump-sass")
    (stack,) = re.findall(r"STACK:(\d+)", usage)
    found = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)]
    first, last = _main_loop(found)
    return Compiled(int(stack), built.metadata.shared, [text for at, text in found if first <= at <= last])


def _dump(binary: Path, what: str) -> str:
    return subprocess.run([str(CUOBJDUMP), what, str(binary)], capture_output=True, text=True, check=True).stdout


def _main_loop(code: list[tuple[int, str]]) -> tuple[int, int]:
    """Addresses of the first and the last instruction of the longest loop; of all of them if no loop is long."""
    jumps = [(int(to[1], 16), at) for at, text in code if "BRA" in text and (to := re.search(r"0x([0-9a-f]+)", text))]
    loops = [(to, at) for to, at in jumps if at - to > 2000]
    return max(loops, key=lambda loop: loop[1] - loop[0], default=(0, code[-1][0]))
