"""The tile of the fused kernel: the measured winner for a GPU if there is one, else the default for its generation.

The model's own choice is not used unmeasured: it has never been compared with a GPU.
"""

from functools import lru_cache

from fastchgnet_kernels._launch import Tile, default_tile
from fastchgnet_kernels.io_model import store
from fastchgnet_kernels.io_model.device import Gpu, this_gpu
from fastchgnet_kernels.io_model.gated import GatedShape
from fastchgnet_kernels.io_model.gpu_tiles import TILES

MOST_MESSAGES = 1 << 22  # beyond them, more messages are more waves of the same programs


def bucket(shape: GatedShape) -> GatedShape:
    """The shape that stands for all that are chosen for alike: every number of rows up to the next power of two."""
    messages, segments, table_rows, factor_rows = (
        min(1 << (n - 1).bit_length(), MOST_MESSAGES) if n else 0
        for n in (shape.messages, shape.segments, shape.table_rows, shape.factor_rows)
    )
    return shape._replace(messages=messages, segments=segments, table_rows=table_rows, factor_rows=factor_rows)


def key_of(shape: GatedShape, gpu: Gpu) -> store.Key:
    """Under which the winner for `shape` is kept."""
    b = bucket(shape)
    row = f"k{b.gathered} x{b.dense} l{b.layers} d{b.width} b{b.itemsize}"
    return store.Key(
        f"{gpu.name}, {gpu.processors} SM", b.op, f"{b.messages} to {b.segments} of {row}", store.version()
    )


def best_tile(shape: GatedShape, device: int = 0) -> Tile:
    """The tile for `shape` on CUDA device `device`. Nothing is measured here."""
    return _best(bucket(shape), device)


@lru_cache(maxsize=256)
def _best(shape: GatedShape, device: int) -> Tile:
    gpu = this_gpu(device)
    stored = store.load(key_of(shape, gpu))
    if isinstance(stored, list) and tuple(stored) in TILES:
        return Tile(*stored)
    return default_tile(gpu.capability, shape.itemsize)


def forget() -> None:
    """Look at the disk again: a winner was written."""
    _best.cache_clear()
