"""Bytes that an evaluation has at its fullest, counted from the arrays that the engine makes; nothing is made here.

The fullest moment is the adjoint of a message op: then there are the whole tape, gradients of what all blocks read, and
two or three arrays with a row for every message. Arrays of D columns, the width of all features, are what counts.
`tests/evaluation/test_memory.py` compares with what is allocated.
"""

from typing import NamedTuple

from ase_fastchgnet.graph.size import RowCounts
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.engine.engine import KEEP_BYTES
from fastchgnet_kernels.gated_message.rows import even_rows
from fastchgnet_kernels.gated_message.scratch import HELD_BYTES
from fastchgnet_kernels.io_model.block_rows import best_block_rows

INT = 4  # bytes of an index
DOUBLE = 8


class _Arrays(NamedTuple):
    """Bytes of a row of each kind."""

    atoms: int
    bonds: int
    short: int
    angles: int

    def of(self, rows: RowCounts) -> int:
        return rows.atoms * self.atoms + rows.bonds * self.bonds + rows.short * self.short + rows.angles * self.angles


def weight_bytes(checkpoint: Checkpoint, itemsize: int) -> int:
    """Of the weights; packing folds some of them together, which adds little."""
    state = checkpoint.parameters.to_state_dict(checkpoint.config)
    return sum(weight.numel() for weight in state.values()) * itemsize


def index_bytes(rows: RowCounts) -> int:
    """Of a GraphIndex (index.py), column by column."""
    counter = max(6 * rows.bonds, 2 * rows.angles) * INT  # 0, 1, 2 …
    columns = _Arrays(
        atoms=3 * INT,  # two parts of edge_rows.messages_ptr, short_of_center.messages_ptr
        bonds=2 * 6 * INT + 2 * INT + 1,  # edge_rows.rows and .messages; two pointers; has_angles
        short=11 * INT,  # angle_rows.messages_ptr, short_bonds, received_ptr, short_center, short_of_center.messages
        angles=10 * INT,  # rows, ptr, messages of angle_rows; sender; mirror; segments; angle_edges
    )
    return counter + columns.of(rows)


def tape_bytes(rows: RowCounts, config: ModelConfig, itemsize: int, *, kernels: bool) -> int:
    """Of what a forward pass leaves behind: geometry, bases, features before each block, messages, output."""
    hidden = 0 if kernels else config.n_readout_hidden  # layers of the readout, which plain torch keeps
    d, blocks, basis = config.n_features * itemsize, config.n_blocks, _basis_bytes(config, itemsize, kernels=kernels)
    return _Arrays(
        atoms=(blocks + 2 + hidden) * d + 2 * DOUBLE,
        bonds=basis + d + 4 * DOUBLE,
        short=basis + d + (2 * blocks - 1) * d + 7 * DOUBLE,
        angles=config.n_angular * itemsize + (blocks - 2) * d,
    ).of(rows)


def _basis_bytes(config: ModelConfig, itemsize: int, *, kernels: bool) -> int:
    """Of a bond: kernels compute the basis wherever it is multiplied, and do not write it."""
    return 0 if kernels else config.n_radial * itemsize


def adjoint_bytes(rows: RowCounts, config: ModelConfig, itemsize: int, *, kernels: bool) -> int:
    """The peak of forward pass and adjoint, without graph and index; by `kernels` or, on a CPU, block by block."""
    d, edges, kept = config.n_features * itemsize, 2 * rows.bonds, _kept(rows, config, itemsize)
    scratch = _Scratch(0, 0, -1) if kernels else _scratch(rows, config, itemsize, kept)
    along_bonds = DOUBLE if kernels else _basis_bytes(config, itemsize, kernels=False)
    gradients = _Arrays(atoms=2 * d, bonds=along_bonds + d, short=2 * d, angles=0).of(rows)
    always = tape_bytes(rows, config, itemsize, kernels=kernels) + gradients + scratch.buffers
    always += kept.tables + (0 if kernels else kept.activations)

    table = (2 * rows.atoms + rows.bonds) * 2 * d
    again = 0 if kept.last_atom_conv else table
    # The gradient of the table is summed from that of the messages; that of the weights has been, by then.
    atom_conv = again + scratch.anew(edges * 2 * d) + max(rows.bonds * d + table, scratch.working)
    messages = scratch.anew(rows.angles * 2 * d) + scratch.anew(rows.angles * d)
    table_of_angles = 0 if kept.last_bond_conv else rows.short * 6 * d
    bond_conv = table_of_angles + rows.short * 2 * d + rows.angles * d + messages + scratch.working
    return always + max(atom_conv, bond_conv)


def direct_bytes(rows: RowCounts, checkpoint: Checkpoint, itemsize: int, *, kernels: bool) -> int:
    """The peak of forward pass and direct readout (direct_readout.py), without graph and index."""
    config, readout = checkpoint.config, checkpoint.parameters.direct_readout
    assert readout is not None
    d, blocks, radial = config.n_features * itemsize, config.n_blocks, config.n_radial * itemsize
    narrow = readout.angle.angle.shape[0] * itemsize
    written = radial if kernels else 0  # of short bonds; plain torch has theirs on the tape
    features = _Arrays(atoms=(blocks + 5) * d, bonds=2 * radial, short=blocks * d + itemsize + written, angles=0)
    # The hop has both directions, their weight, both messages, and these end to end; of angles there are the message
    # and its factors at most, while three arrays of bonds wait.
    hop, theta = rows.bonds * 7 * d, _Arrays(atoms=0, bonds=3 * d, short=3 * 2 * narrow, angles=5 * narrow).of(rows)
    blocks_of = _block_rows(rows, config, itemsize)
    # Of the CPU path, kept by its scratch: hidden layers and their outputs; weights, σ of both halves, messages.
    block = 0 if kernels else (6 * blocks_of.two_layers + 4 * max(blocks_of)) * d
    return tape_bytes(rows, config, itemsize, kernels=kernels) + features.of(rows) + block + max(hop, theta)


class _Kept(NamedTuple):
    """What ops keep for the adjoint, in the order they come in, until KEEP_BYTES of float32 activations are spent."""

    activations: int  # bytes; kernels keep none
    tables: int  # bytes
    last_bond_conv: bool  # tables of those that the adjoint begins with
    last_atom_conv: bool
    everything: bool


def _kept(rows: RowCounts, config: ModelConfig, itemsize: int) -> _Kept:
    d, blocks = config.n_features * itemsize, config.n_blocks
    budget, activations, tables = KEEP_BYTES, 0, 0
    for block in range(blocks):
        for op, messages in (("atom", 2 * rows.bonds), ("bond", rows.angles), ("angle", rows.angles)):
            if (op == "bond" and block > blocks - 2) or (op == "angle" and block > blocks - 3):
                continue
            budget -= messages * 9 * config.n_features * INT
            if budget < 0:
                return _Kept(activations, tables, op == "atom" and block == blocks - 1, False, False)
            # Two layers keep 9 arrays; one layer 3 and its pre-activations. Moments of both norms are a number each.
            activations += messages * ((5 if op == "angle" else 9) * d + 4 * itemsize)
            tables += (2 * rows.atoms + rows.bonds if op == "atom" else 3 * rows.short) * 2 * d
    return _Kept(activations, tables, True, True, True)


class _Scratch(NamedTuple):
    """Memory that the CPU path holds on to (gated_message/scratch.py), as it works on blocks of rows."""

    buffers: int  # gradients of messages, temporaries of a block
    working: int  # made anew in each block
    bound: int  # of a buffer that is held

    def anew(self, size: int) -> int:
        """Bytes of an array that is not held."""
        return size if size > self.bound else 0


def _scratch(rows: RowCounts, config: ModelConfig, itemsize: int, kept: _Kept) -> _Scratch:
    d, largest = config.n_features * itemsize, max(_block_rows(rows, config, itemsize))
    messages = (2 * rows.bonds, rows.angles)
    held = [max((m * size for m in messages if m * size <= HELD_BYTES), default=0) for size in (2 * d, d)]
    # Of a block: weights and gradients of messages, of core, gate, hidden layer and slopes; activations if not kept.
    block = largest * (8 if kept.everything else 17) * d
    working = largest * 6 * d  # pre-activations, and the norms forth and back of both halves
    return _Scratch(sum(held) + block, working, HELD_BYTES)


class _BlockRows(NamedTuple):
    """Of the largest block of ops whose MLPs have two layers, and of those that have one."""

    two_layers: int
    one_layer: int


def _block_rows(rows: RowCounts, config: ModelConfig, itemsize: int) -> _BlockRows:
    width, edges, angles = config.n_features, 2 * rows.bonds, rows.angles

    def of(messages: int, summed: bool, gathered: int, dense: int, layers: int) -> int:
        return even_rows(messages, best_block_rows(messages, summed, gathered, dense, layers, width, itemsize))

    return _BlockRows(max(of(edges, True, 3, 0, 2), of(angles, True, 2, width, 2)), of(angles, False, 2, width, 1))
