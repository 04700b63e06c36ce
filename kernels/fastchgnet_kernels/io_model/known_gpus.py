"""What the driver does not tell about a GPU: rates of known ones, and of others an estimate from the nearest of them.

Data-sheet values for dense products without sparsity; rates of the L2 cache are published micro-benchmarks, rounded.
"""

import logging
from typing import Protocol

from fastchgnet_kernels.io_model.device import Gpu

log = logging.getLogger(__name__)

KIB, MIB = 2**10, 2**20
KNOWN = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100", 108, (8, 0), 164 * KIB, 163 * KIB, 40 * MIB, 2.04e12, 4.5e12, 19.5e12, 156e12, 1.41e9),
        Gpu("H100", 132, (9, 0), 228 * KIB, 227 * KIB, 50 * MIB, 3.35e12, 5.5e12, 67e12, 495e12, 1.83e9),
        Gpu("H200", 132, (9, 0), 228 * KIB, 227 * KIB, 50 * MIB, 4.8e12, 5.5e12, 67e12, 495e12, 1.83e9),
        Gpu("B200", 148, (10, 0), 228 * KIB, 227 * KIB, 126 * MIB, 8.0e12, 10e12, 75e12, 1100e12, 1.85e9),
    )
}


class Properties(Protocol):
    """What torch.cuda.get_device_properties returns, of which older versions lack some."""

    @property
    def name(self) -> str: ...
    @property
    def major(self) -> int: ...
    @property
    def minor(self) -> int: ...
    @property
    def multi_processor_count(self) -> int: ...


def described(properties: Properties) -> Gpu:
    """The device of these properties; rates are scaled by the number of multiprocessors where it is not a known one."""
    known = next((gpu for name, gpu in KNOWN.items() if name in properties.name), None)
    nearest = known or _nearest((properties.major, properties.minor))
    if known is None:
        log.info("%s is not in the table of GPUs; its rates are those of %s per SM", properties.name, nearest.name)
    part = properties.multi_processor_count / nearest.processors
    return Gpu(
        name=properties.name,
        processors=properties.multi_processor_count,
        capability=(properties.major, properties.minor),
        shared=getattr(properties, "shared_memory_per_multiprocessor", nearest.shared),
        shared_per_program=getattr(properties, "shared_memory_per_block_optin", nearest.shared_per_program),
        l2=getattr(properties, "L2_cache_size", nearest.l2),
        memory_rate=nearest.memory_rate * (1.0 if known else part),
        l2_rate=nearest.l2_rate * part,
        float_rate=nearest.float_rate * part,
        tf32_rate=nearest.tf32_rate * part,
        clock=nearest.clock,
        registers=getattr(properties, "regs_per_multiprocessor", nearest.registers),
        threads=getattr(properties, "max_threads_per_multi_processor", nearest.threads),
    )


def _nearest(capability: tuple[int, int]) -> Gpu:
    """The newest known GPU that is not newer than `capability`; the oldest where all are."""
    older = [gpu for gpu in KNOWN.values() if gpu.capability <= capability]
    return max(older, key=lambda gpu: gpu.capability) if older else KNOWN["A100"]
