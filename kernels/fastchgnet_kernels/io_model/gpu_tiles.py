"""Tiles of the fused kernel to choose from."""

from fastchgnet_kernels._launch import BLACKWELL_TILE, Tile
from fastchgnet_kernels.io_model.candidates import Candidate
from fastchgnet_kernels.io_model.device import Gpu
from fastchgnet_kernels.io_model.gated import GatedShape
from fastchgnet_kernels.io_model.gpu_time import fits, tile_cost

TILES = tuple(
    Tile(rows, segments, warps, stages)
    for rows in (32, 64, 128, 256)
    for segments in (1, 2, 4, 8, 16)
    for warps in (4, 8)
    for stages in (1, 2, 3, 4)
)


def tile_candidates(shape: GatedShape, gpu: Gpu) -> list[Candidate[Tile]]:
    """Tiles whose registers and shared memory are there; an update has no segments to choose.

    On data-centre Blackwell no larger ones than are known to be compiled to what they say (`BLACKWELL_TILE`).
    """
    rows = BLACKWELL_TILE.rows if gpu.capability[0] == 10 else max(tile.rows for tile in TILES)
    sound = [tile for tile in TILES if tile.rows <= rows and (shape.segments or tile.segments == 1)]
    tiles = [tile for tile in sound if fits(tile, shape, gpu)]
    return [Candidate(tile, *tile_cost(tile, shape, gpu)) for tile in tiles]
