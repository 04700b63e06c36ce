"""The gated ops as this package runs them: what they are made of, what they must move, and what a GPU's tile moves.

First linears are projections made before the gather, so a message adds up k rows of 2D words, and what is left of the
weights are two (D, D) matrices. Traffic in bytes.
"""

import math
from typing import NamedTuple

INDEX_BYTES = 4


class GatedShape(NamedTuple):
    """One call of gated_message or gated_update."""

    messages: int
    segments: int  # sums; 0 where each message is an output of its own (gated_update)
    table_rows: int
    gathered: int  # table rows that a message adds up
    dense: int  # columns of the messages' own input; 0: they have none
    factor_rows: int  # rows of the weights of messages; 0: they have none
    layers: int
    width: int = 64  # D
    itemsize: int = 4

    @property
    def op(self) -> str:
        return "gated_message" if self.segments else "gated_update"

    @property
    def weight_bytes(self) -> int:
        """All weights and biases of the MLP."""
        second = 2 * self.width * (self.width + 1) if self.layers == 2 else 0
        return self.itemsize * (second + 4 * self.width + 2 * self.width * self.dense)

    @property
    def flops(self) -> float:
        """Of the forward pass, matrix products alone."""
        layers = 4 * self.width**2 if self.layers == 2 else 0
        return float(self.messages) * (layers + 4 * self.dense * self.width)


def compulsory_bytes(shape: GatedShape) -> float:
    """Of the forward pass: every distinct row read once, every output written once. Nothing moves less."""
    outputs = shape.segments or 2 * shape.messages  # an update reads what it adds to
    rows = min(shape.table_rows, shape.gathered * shape.messages) * 2 * shape.width + shape.messages * shape.dense
    factors = min(shape.factor_rows, shape.messages) * shape.width
    words = rows + factors + outputs * shape.width
    return shape.itemsize * words + index_bytes(shape) + shape.weight_bytes


def fused_bytes(shape: GatedShape, rows: int) -> float:
    """In one pass, tiles of `rows` messages, no table row or factor reused, weights read again by every tile."""
    outputs = shape.segments or 2 * shape.messages
    read = shape.messages * (2 * shape.width * shape.gathered + shape.dense + (shape.width if shape.factor_rows else 0))
    tiles = math.ceil(shape.messages / rows)
    return shape.itemsize * (read + outputs * shape.width) + index_bytes(shape) + tiles * shape.weight_bytes


def index_bytes(shape: GatedShape) -> float:
    """Whose rows a message reads, by what it is multiplied, and onto what it is summed."""
    per_message = shape.gathered + (1 if shape.factor_rows else 0) + (1 if shape.segments else 0)
    return INDEX_BYTES * (per_message * shape.messages + (shape.segments + 1 if shape.segments else 0))


def unfused_bytes(shape: GatedShape) -> float:
    """With every intermediate of the forward pass written and read, as one call of an array library after another."""
    d2 = 2 * shape.width
    per_row = (shape.gathered + 1) * d2 + (shape.dense + 2 * d2 if shape.dense else 0)
    per_row += 5 * d2 + 2 * d2 if shape.layers == 2 else 0  # clamp, σ and product of z; second linears
    per_row += 2 * d2 + 2 * d2 + 6 * shape.width  # LayerNorms, σ of both halves, two products
    per_row += 5 * shape.width if shape.factor_rows else 0
    per_row += shape.width if shape.segments else 3 * shape.width
    outputs = shape.segments * shape.width
    return shape.itemsize * (shape.messages * per_row + outputs) + index_bytes(shape) + shape.weight_bytes
