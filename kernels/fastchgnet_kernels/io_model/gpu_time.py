"""Predicted time of the fused forward kernel as a function of its tile; not yet compared with one measured.

A program owns `segments` whole segments and runs over their messages `rows` at a time; every tile reads the second
layer's weights again, from the L2 cache or nearer. It takes as long as the slowest of memory, L2, matrix products and
the issue of instructions, stretched by what tiles are filled with to their end and by the last wave of programs.
"""

import math
from typing import NamedTuple

from fastchgnet_kernels._launch import Tile
from fastchgnet_kernels.io_model.device import Gpu
from fastchgnet_kernels.io_model.gated import GatedShape, compulsory_bytes, fused_bytes

SLOTS = 16  # rows of sums that a program keeps: what a matrix product takes at least
OTHER_REGISTERS = 40  # of a thread: addresses, masks, indices
LIVE_TILES = 4  # (rows, D) arrays in registers at once: one half's z and y, the other's result, and a product's operand
TF32_PRODUCTS = 3  # of which a float32 product is made
ISSUE = 4  # warp instructions a multiprocessor starts in one cycle
ROW_INSTRUCTIONS = 182.0  # warp instructions per message, read off a kernel compiled for sm_90
TILE_SECONDS = 2e-6  # of one tile: index, gathered rows, products, norms wait for each other


class TileCost(NamedTuple):
    seconds: float
    least_seconds: float
    moved_bytes: float  # between memory and the chip
    least_bytes: float


def registers(tile: Tile, shape: GatedShape) -> int:
    """Of a thread, estimated from the arrays that are alive together."""
    words = shape.itemsize // 4
    sums = SLOTS * shape.width if shape.segments else 0
    values = (LIVE_TILES * tile.rows * shape.width + sums) * words
    return OTHER_REGISTERS + math.ceil(values / (32 * tile.warps))


def shared_bytes(tile: Tile, shape: GatedShape) -> int:
    """Of a program: the operands of a product, and of those that are loaded one copy for each stage."""
    operand = tile.rows * shape.width
    second = shape.width**2 if shape.layers == 2 else 0
    dense = tile.rows * shape.dense + shape.dense * shape.width
    return shape.itemsize * (operand + tile.stages * max(second, dense))


def fits(tile: Tile, shape: GatedShape, gpu: Gpu) -> bool:
    """Whether a program can run at all, without spilling registers."""
    return (
        registers(tile, shape) <= gpu.registers_per_thread
        and registers(tile, shape) * 32 * tile.warps <= gpu.registers
        and shared_bytes(tile, shape) <= gpu.shared_per_program
    )


def programs_at_once(tile: Tile, shape: GatedShape, gpu: Gpu) -> int:
    """That all multiprocessors together can hold."""
    threads = 32 * tile.warps
    each = min(
        gpu.registers // (registers(tile, shape) * threads),
        gpu.shared // shared_bytes(tile, shape),
        gpu.threads // threads,
    )
    return gpu.processors * max(each, 1)


def tile_cost(tile: Tile, shape: GatedShape, gpu: Gpu) -> TileCost:
    """Of the forward pass. Segments are taken to be of equal length."""
    segments = shape.segments or math.ceil(shape.messages / tile.rows)
    own = min(tile.segments, segments) if shape.segments else 1
    programs = math.ceil(segments / own)
    tiles = max(1, math.ceil(shape.messages / max(programs, 1) / tile.rows))  # of a program
    computed = programs * tiles * tile.rows  # messages, with those that tiles are filled up with
    waves = programs / programs_at_once(tile, shape, gpu)
    idle = math.ceil(waves) / waves if programs else 1.0

    new = compulsory_bytes(shape)
    near = fused_bytes(shape._replace(messages=computed), tile.rows)
    resident = min(1.0, gpu.l2 / max(new, 1.0))
    far = new + (1.0 - resident) * max(fused_bytes(shape, tile.rows) - new, 0.0)
    per_message = shape.flops / max(shape.messages, 1)
    sums = 2 * SLOTS * shape.width if shape.segments else 0
    parts = (
        near / gpu.l2_rate,
        computed * _product_seconds(per_message + sums, shape, gpu),
        computed * ROW_INSTRUCTIONS * shape.itemsize / 4 / (ISSUE * gpu.processors * gpu.clock),
    )
    chain = math.ceil(waves) * tiles * TILE_SECONDS
    seconds = gpu.launch_seconds + max(far / gpu.memory_rate, idle * max(parts), chain)
    return TileCost(seconds, gpu.launch_seconds + max(new / gpu.memory_rate, *parts), far, new)


def _product_seconds(flops: float, shape: GatedShape, gpu: Gpu) -> float:
    """float32 products are three of TF32; float64 ones are taken to run at half the rate of float32 arithmetic."""
    return flops * TF32_PRODUCTS / gpu.tf32_rate if shape.itemsize == 4 else flops * 2 / gpu.float_rate
