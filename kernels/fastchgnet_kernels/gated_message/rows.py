"""Where the pre-activations of gated messages come from, and how they are cut into blocks or tiles."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from fastchgnet_kernels import segment_sum
from fastchgnet_kernels._launch import DEFAULT_TILE, Tile
from fastchgnet_kernels.gated_message import reference
from fastchgnet_kernels.gated_message.weights import Dense, GatedWeights, Incidence
from fastchgnet_kernels.io_model.block_rows import best_block_rows
from fastchgnet_kernels.io_model.gated import GatedShape
from fastchgnet_kernels.io_model.tile_choice import best_tile

BLOCK_ROWS: int | None = None  # of a block, or nearly so; None for those that are fastest here, as `io_model` knows
TILE: Tile | None = None  # of every kernel; None for the winner of this GPU, or the default

Kept = list[reference.Saved]  # per block


class Rows(NamedTuple):
    """Where the pre-activations come from: gathered table rows, and an optional per-message input."""

    table: Tensor  # (T, 2D)
    incidence: Incidence
    dense: Dense | None
    tf32: bool = False  # kernels round the factors of float32 products to 11 bits; plain torch has no such products

    @property
    def gathered(self) -> int:
        """Table rows that a message adds up."""
        return self.incidence.rows.shape[0] // max(self.incidence.ptr.shape[0] - 1, 1)

    def block_rows(self, weights: GatedWeights, *, summed: bool) -> int:
        """Rows of a block: the same for forward and backward, as what one keeps the other takes block by block."""
        messages, dense = self.incidence.ptr.shape[0] - 1, 0 if self.dense is None else self.dense.x.shape[1]
        layers, width, itemsize = 1 if weights.second is None else 2, self.table.shape[1] // 2, self.table.itemsize
        rows = BLOCK_ROWS
        if rows is None:
            rows = best_block_rows(messages, summed, self.gathered, dense, layers, width, itemsize)
        return even_rows(messages, rows)

    def shape(self, weights: GatedWeights, segments: int = 0, factor_rows: int = 0) -> GatedShape:
        """What the choice of blocks and tiles depends on: messages that go to `segments` sums, or to none."""
        return GatedShape(
            messages=self.incidence.ptr.shape[0] - 1,
            segments=segments,
            table_rows=self.table.shape[0],
            gathered=self.gathered,
            dense=0 if self.dense is None else self.dense.x.shape[1],
            factor_rows=factor_rows,
            layers=1 if weights.second is None else 2,
            width=self.table.shape[1] // 2,
            itemsize=self.table.itemsize,
        )

    def tile(self, weights: GatedWeights, segments: int = 0, factor_rows: int = 0) -> Tile:
        """How a kernel cuts up these rows; the arguments are those of `shape`."""
        if TILE is not None:
            return TILE
        if not self.table.is_cuda:  # in the interpreter
            return DEFAULT_TILE
        return best_tile(self.shape(weights, segments, factor_rows), self.table.device.index or 0)

    def block(self, lo: int, hi: int) -> Tensor:
        """Pre-activations z of the messages lo:hi, (hi - lo, 2D)."""
        k = self.gathered
        z = segment_sum.forward(self.table, self.incidence.rows[k * lo : k * hi], self.incidence.ptr[: hi - lo + 1])
        return z if self.dense is None else z.addmm_(self.dense.x[lo:hi], self.dense.weight)

    def block_backward(self, grad_z: Tensor, lo: int, hi: int, grad_x: Tensor | None) -> None:
        """Adds grad_z Wᵀ of the messages lo:hi to `grad_x`."""
        if self.dense is not None and grad_x is not None:
            grad_x[lo:hi].addmm_(grad_z[lo:hi], self.dense.weight.T)

    def grad_table(self, grad_z: Tensor) -> Tensor:
        """The gather transposed: grad_z (messages, 2D) summed onto the table rows it came from, (T, 2D)."""
        return segment_sum.forward(grad_z, self.incidence.messages, self.incidence.messages_ptr)


def even_rows(messages: int, rows: int) -> int:
    """Rows of blocks of one size, as near to `rows` as can be: a short last one would cost as many calls as others."""
    return max(math.ceil(messages / max(round(messages / rows), 1)), 1)


def row_blocks(n_rows: int, size: int) -> Iterator[tuple[int, int]]:
    """(first row, last row + 1) of each block of `size` rows."""
    for lo in range(0, n_rows, size):
        yield lo, min(lo + size, n_rows)


def segment_blocks(ptr: Tensor, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(first segment, last + 1, first row, last row + 1) of blocks of whole segments, about `size` rows each.

    A block ends with the last segment of which less than half is beyond a multiple of `size`.
    """
    bounds = ptr.cpu().numpy()
    middles = (bounds[:-1] + bounds[1:]) / 2
    first, end = 0, float(bounds[0])
    while first < len(middles):
        end = max(end + size, bounds[first])
        last = max(int(middles.searchsorted(end)), first + 1)
        if bounds[last] > bounds[first]:
            yield first, last, int(bounds[first]), int(bounds[last])
        first = last
