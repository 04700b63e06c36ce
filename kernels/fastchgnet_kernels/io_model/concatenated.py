"""The gated message as CHGNet writes it: gather c rows of d words, concatenate, multiply. What fusing it can save.

Traffic in words; E messages, c concatenated blocks, b bytes a word, R the times a table row is used inside a tile.
The kernels of this package project per table row before the gather (`gated`), so that their floor is another; this is
where the analogue of x y = R z lies: a tile of m messages and n columns of the first linear moves
    2 E c d² (1/(n R) + 1/m) words,  least at m = R n;  LayerNorm needs whole rows, so n = 2d and m = S/(2d).
"""

import math
from typing import NamedTuple


class Concatenation(NamedTuple):
    """One of the three gated ops, over `messages` rows."""

    messages: int
    blocks: int  # c
    gathered: int  # of them; the rest are read in order
    factors: int  # rows of weights that multiply a message
    layers: int
    per_segment: float  # messages summed onto one row; 0 where each is an output of its own, added to what is there
    width: int = 64  # d
    index_words: int = 0  # indices of one message, 4 bytes each

    @property
    def weights(self) -> int:
        """|W|, words of both layers."""
        return 2 * self.width**2 * (self.blocks + (1 if self.layers == 2 else 0))


def atom_conv(messages: int, per_segment: float = 63.0) -> Concatenation:
    return Concatenation(messages, 3, 3, 1, 2, per_segment, index_words=3)


def bond_conv(messages: int, per_segment: float = 10.0) -> Concatenation:
    return Concatenation(messages, 4, 3, 2, 2, per_segment, index_words=3)


def angle_update(messages: int) -> Concatenation:
    return Concatenation(messages, 4, 3, 0, 1, 0.0, index_words=3)


def unfused_words(op: Concatenation) -> int:
    """Every intermediate written and read: gathers, concatenation, linears, LayerNorm, activations, product …, sum."""
    per_row = 2 * op.gathered + 2 * op.blocks + 2 * (op.blocks + 1)  # gather, concatenate, two first linears
    per_row += (4 + 4) if op.layers == 2 else 0  # SiLU, second linears
    per_row += 4 + 4 + 3  # LayerNorms, activations, their product
    per_row += 5 * op.factors  # gather a factor and multiply by it
    per_row += 2 if op.per_segment else 3  # sum, or add to what is there
    return op.messages * op.width * per_row


def fused_words(op: Concatenation, itemsize: int = 4) -> float:
    """In one pass without reuse of gathered rows: c rows, a factor, and the output, besides the indices."""
    out = 1 / op.per_segment if op.per_segment else 1.0
    per_row = op.blocks + min(op.factors, 1) + out + 4 * op.index_words / (itemsize * op.width)
    return op.messages * op.width * per_row


def floor_words(op: Concatenation, table_rows: int, factor_rows: int, itemsize: int = 4) -> float:
    """Each distinct row, the output, the weights and the indices once: nothing moves less."""
    read_in_order = (op.blocks - op.gathered) * op.messages
    out = op.messages / op.per_segment if op.per_segment else op.messages
    rows = table_rows + factor_rows + read_in_order + out
    return op.width * rows + op.weights + 4 * op.index_words * op.messages / itemsize


def capacity_bound(op: Concatenation, fast_words: float, reuse: float = 1.0) -> float:
    """4 E c d²/√(R S): what the first linear must move where no more than a third of its weights fit on chip.

    Where they do fit, a gathered word yields its 2d products at no further cost, and the floor can be reached: then 0.
    """
    if fast_words >= op.weights / 3:
        return 0.0
    return 4 * op.messages * op.blocks * op.width**2 / math.sqrt(reuse * fast_words)


def streamed_words(op: Concatenation, rows: float, columns: float, reuse: float = 1.0) -> float:
    """What the first linear moves in tiles of `rows` messages and `columns` outputs, its inputs in a loop."""
    return 2 * op.messages * op.blocks * op.width**2 * (1 / (columns * reuse) + 1 / rows)


def best_tile(accumulators: float, reuse: float = 1.0) -> tuple[float, float]:
    """(messages, columns) with the least of `streamed_words` for m n accumulators: m = R n."""
    columns = math.sqrt(accumulators / reuse)
    return reuse * columns, columns


def balanced_rows(op: Concatenation, itemsize: int = 4) -> float:
    """Messages of a tile that reads all weights again, at which weights move as many words as rows do."""
    return op.weights * op.messages / fused_words(op, itemsize)
