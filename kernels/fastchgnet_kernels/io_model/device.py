"""What a device has: memories, how fast they are, and how fast it computes. Read from the system where it tells."""

import logging
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

log = logging.getLogger(__name__)

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Cpu:
    """A CPU as one thread of torch sees it. Rates are those of one core of a Zen 3 at 2.4 GHz, measured on this path.

    They are defaults for all CPUs: the best block depends on how a call compares with a row, which differs less from
    one CPU to another than either of them, and on the caches, whose sizes are read.
    """

    name: str
    threads: int = 1
    l2: int = 512 * 2**10  # bytes, of a core
    l3: int = 4 * 2**20  # bytes, a core's share
    cache_rate: float = 50e9  # bytes/s that a pass over arrays reads and writes in L2
    l3_rate: float = 60e9  # bytes/s between L2 and L3
    memory_rate: float = 30e9  # bytes/s of a core between L3 and memory
    product_rate: float = 75e9  # FLOP/s of narrow matrix products
    exp_seconds: float = 0.9e-9  # of one σ, besides the pass over memory
    norm_seconds: float = 1.0e-9  # of one element of a LayerNorm, likewise
    call_seconds: float = 12e-6  # of a call of torch with the Python around it
    grain: int = 32768  # elements that torch does not divide among threads


@dataclass(frozen=True)
class Gpu:
    """A CUDA device. Sizes in bytes, rates in bytes/s, FLOP/s or 1/s; rates are data-sheet values."""

    name: str
    processors: int
    capability: tuple[int, int]
    shared: int  # of a multiprocessor
    shared_per_program: int
    l2: int
    memory_rate: float
    l2_rate: float
    float_rate: float  # float32
    tf32_rate: float  # dense
    clock: float
    registers: int = 65536  # 32 bits, of a multiprocessor
    registers_per_thread: int = 255
    threads: int = 2048  # of a multiprocessor
    launch_seconds: float = 4e-6


Device = Cpu | Gpu


@cache
def this_cpu(threads: int = 1) -> Cpu:
    """The CPU that this process runs on, with `threads` threads of torch."""
    sizes = cache_sizes(CACHES)
    return Cpu(cpu_name(CPUINFO), threads, sizes.get(2, Cpu.l2), sizes.get(3, Cpu.l3))


def cache_sizes(folder: Path) -> dict[int, int]:
    """Bytes of each level of cache that one core has to itself: a shared cache is divided among those that share it.

    Empty where the system does not say (not Linux, or a container that hides it).
    """
    found = {}
    for entry in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((entry / name).read_text().strip() for name in ("type", "level", "size"))
            sharers = count_cpus((entry / "shared_cpu_list").read_text())
            if kind != "Instruction":
                found[int(level)] = size_bytes(size) // max(sharers, 1)
        except (OSError, ValueError) as error:
            log.debug("%s does not describe a cache: %s", entry, error)
    return found


def size_bytes(text: str) -> int:
    """512K, 32M or 4096."""
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * unit


def count_cpus(text: str) -> int:
    """How many CPUs are in a list such as 0-3,8."""
    spans = [part.split("-") for part in text.strip().split(",") if part]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def cpu_name(path: Path) -> str:
    """Vendor's name of the CPU, with its model number: virtual machines hide the name."""
    fields: dict[str, str] = {}
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or platform.processor() or platform.machine() or "CPU"
    numbers = [fields[key] for key in ("cpu family", "model") if key in fields]
    return f"{name} ({'-'.join(numbers)})" if numbers else name


def this_gpu(index: int = 0) -> Gpu:
    """CUDA device `index`: what the driver tells, completed by the table of known GPUs."""
    from fastchgnet_kernels.io_model.known_gpus import described

    return described(torch.cuda.get_device_properties(index))
