"""Compiles kernels for GPUs that need not be there, and reads what the machine code needs."""

import importlib.util
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastchgnet_kernels._launch import options

CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
GRAPH = {"system_of_atom", "center", "neighbor", "image", "edges_of_bond", "short_bonds", "edge_ptr", "bond_of_edge"}
INDICES = {"rows", "weight_row", "ptr", "segment", "index", "edges_of_angle", "atom_ptr", *GRAPH}  # int32
LENGTHS = {"r", "vector", "length", "short_length", "grad_r", "grad_vector", "grad_length"}
DIRECTIONS = {"unit", "short_unit", "grad_unit", "grad_theta"}
DOUBLES = {
    "positions",
    "cell",
    "forces",
    "virial",
    "virial_of_atom",
    *LENGTHS,
    *DIRECTIONS,
}  # float64 whatever the data


class Compiled(NamedTuple):
    """Machine code of one kernel."""

    stack: int  # bytes a thread spills
    shared: int  # bytes a program
    code: list[str]
    instructions: list[str]  # of the main loop, where there is one; else all

    def per_row(self, rows: int, warps: int) -> float:
        """Warp instructions that a row takes."""
        return len(self.instructions) * warps / rows

    @property
    def matrix_products(self) -> int:
        """Instructions that multiply matrices."""
        return sum(re.match(r"(@!?\w+ )?[A-Z]+MMA\b", instruction) is not None for instruction in self.code)


def compiled(kernel: Any, constants: dict[str, Any], *, data: str, sm: int, warps: int, folder: Path) -> Compiled:
    """`kernel` for compute capability `sm` (90: 9.0) with `data` of fp32 or fp64."""
    names = kernel.arg_names
    types = {name: _type_of(name, data) for name in names} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")},
    )
    built = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options(warps))
    binary = folder / "kernel.cubin"
    binary.write_bytes(built.asm["cubin"])
    usage, code = _dump(binary, "--dump-resource-usage"), _dump(binary, "--dump-sass")
    (stack,) = re.findall(r"STACK:(\d+)", usage)
    found = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)]
    first, last = _main_loop(found)
    code, loop = [text for _, text in found], [text for at, text in found if first <= at <= last]
    return Compiled(int(stack), built.metadata.shared, code, loop)


def _type_of(name: str, data: str) -> str:
    """What a kernel's argument is: its name tells."""
    if name.startswith("n_"):
        return "i32"
    return "*i32" if name in INDICES else "*fp64" if name in DOUBLES else f"*{data}"


def kernels_of(package: str) -> set[str]:
    """Names of all kernels that the ops of a package launch."""
    found = set()
    for op in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if importlib.util.find_spec(f"{package}.{op.name}").submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{package}.{op.name}.kernel")
            module = None if spec is None else importlib.import_module(spec.name)
            found |= {name for name in vars(module or object) if name.endswith("_kernel")}
    return found


def _dump(binary: Path, what: str) -> str:
    return subprocess.run([str(CUOBJDUMP), what, str(binary)], capture_output=True, text=True, check=True).stdout


def _main_loop(code: list[tuple[int, str]]) -> tuple[int, int]:
    """Addresses of the first and the last instruction of the longest loop; of all of them if no loop is long."""
    jumps = [(int(to[1], 16), at) for at, text in code if "BRA" in text and (to := re.search(r"0x([0-9a-f]+)", text))]
    loops = [(to, at) for to, at in jumps if at - to > 2000]
    return max(loops, key=lambda loop: loop[1] - loop[0], default=(0, code[-1][0]))
