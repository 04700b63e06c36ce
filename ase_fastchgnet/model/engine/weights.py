"""The checkpoint's weights in the form the fast path works with: packed, split by operand, folded where exact.

All products of weights are formed in float64 and rounded once. Matrices are input-major (y = x @ W), core and gate side
by side in the columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.parameters import DirectReadout, GatedMLP, Linear, Parameters
from fastchgnet_kernels.gated_message import GatedWeights
from fastchgnet_kernels.readout import ReadoutWeights


@dataclass(frozen=True, slots=True)
class AtomConvWeights:
    center: Tensor  # (64, 128)
    neighbor: Tensor  # (64, 128)
    bond: Tensor  # (64, 128), for the features of short bonds
    far_bond: Tensor  # (n_radial, 128): bond embedding @ bond. A far bond is a function of its length alone
    far_shift: Tensor | None  # (128,): the biases a far bond has collected in earlier blocks (0.2.0 only)
    bias: Tensor  # (128,)
    gated: GatedWeights
    out: Tensor  # (64, 64)
    out_bias: Tensor | None  # (64,)
    tf32: bool = False  # as in `gated_message.Rows`


@dataclass(frozen=True, slots=True)
class AngleWeights:
    """First layer of BondConv or AngleUpdate, and what follows it."""

    receiving: Tensor  # (64, 128)
    sending: Tensor  # (64, 128)
    angle: Tensor  # (64, 128); in block 0 (n_angular, 128), with the angle embedding folded in
    center: Tensor  # (64, 128)
    bias: Tensor  # (128,)
    gated: GatedWeights
    tf32: bool = False


@dataclass(frozen=True, slots=True)
class BondConvWeights:
    message: AngleWeights
    out: Tensor  # (64, 64)
    out_bias: Tensor | None  # (64,)


@dataclass(frozen=True, slots=True)
class EngineWeights:
    embedding: Tensor  # (94, 64)
    atom_frequencies: Tensor
    bond_frequencies: Tensor
    angle_frequencies: Tensor
    bond_embedding: Tensor  # (n_radial, 64)
    atom_weights: Tensor  # (n_radial, 64)
    bond_weights: Tensor  # (n_radial, 64)
    angle_embedding: Tensor  # (n_angular, 64)
    atom_convs: tuple[AtomConvWeights, ...]  # n_blocks
    bond_convs: tuple[BondConvWeights, ...]  # n_blocks - 1
    angle_updates: tuple[AngleWeights, ...]  # n_blocks - 2: nothing reads the last one
    parallel_updates: bool
    magmom: Tensor  # (64, 1)
    magmom_bias: Tensor  # (1,)
    readout: ReadoutWeights
    reference_energies: Tensor  # (94,) float64
    direct_readout: DirectReadout | None


def pack(checkpoint: Checkpoint, dtype: torch.dtype, device: str, *, tf32: bool = False) -> EngineWeights:
    """The weights of `checkpoint` ready for the engine, and for kernels that multiply with 11 bits if `tf32`."""
    p = checkpoint.parameters.to(dtype=torch.float64, device=device)

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype).contiguous()

    plain = checkpoint.parameters.to(dtype=dtype, device=device)
    return EngineWeights(
        embedding=plain.embedding,
        atom_frequencies=plain.atom_frequencies,
        bond_frequencies=plain.bond_frequencies,
        angle_frequencies=plain.angle_frequencies,
        bond_embedding=cast(p.bond_embedding.T),
        atom_weights=cast(p.atom_weights.T),
        bond_weights=cast(p.bond_weights.T),
        angle_embedding=cast(p.angle_embedding.T),
        atom_convs=tuple(_atom_conv(p, block, dtype, tf32) for block in range(len(p.atom_convs))),
        bond_convs=tuple(
            BondConvWeights(
                _angle_weights(conv.mlp, p, block, dtype, tf32), cast(conv.out.weight.T), _bias(conv.out, dtype)
            )
            for block, conv in enumerate(p.bond_convs)
        ),
        angle_updates=tuple(
            _angle_weights(update.mlp, p, block, dtype, tf32) for block, update in enumerate(p.angle_updates[:-1])
        ),
        parallel_updates=checkpoint.config.parallel_updates,
        magmom=cast(p.site_wise.weight.T),
        magmom_bias=cast(_required(p.site_wise.bias)),
        readout=_readout(p, dtype),
        reference_energies=p.reference_energies,
        direct_readout=plain.direct_readout,
    )


def _atom_conv(p: Parameters, block: int, dtype: torch.dtype, tf32: bool) -> AtomConvWeights:
    conv = p.atom_convs[block]
    weight, bias = _pack_first(conv.mlp)
    center, bond, neighbor = weight.split(weight.shape[0] // 3)
    shift = None
    if block > 0 and p.bond_convs[0].out.bias is not None:
        shift = sum((_required(earlier.out.bias) for earlier in p.bond_convs[:block]), torch.zeros_like(bond[:, 0]))
        shift = (shift @ bond).to(dtype)
    return AtomConvWeights(
        center=center.to(dtype).contiguous(),
        neighbor=neighbor.to(dtype).contiguous(),
        bond=bond.to(dtype).contiguous(),
        far_bond=(p.bond_embedding.T @ bond).to(dtype),
        far_shift=shift,
        bias=bias.to(dtype),
        gated=_gated(conv.mlp, dtype),
        out=conv.out.weight.T.to(dtype).contiguous(),
        out_bias=_bias(conv.out, dtype),
        tf32=tf32,
    )


def _angle_weights(mlp: GatedMLP, p: Parameters, block: int, dtype: torch.dtype, tf32: bool) -> AngleWeights:
    weight, bias = _pack_first(mlp)
    receiving, sending, angle, center = weight.split(weight.shape[0] // 4)
    if block == 0:
        angle = p.angle_embedding.T @ angle
    return AngleWeights(
        receiving=receiving.to(dtype).contiguous(),
        sending=sending.to(dtype).contiguous(),
        angle=angle.to(dtype).contiguous(),
        center=center.to(dtype).contiguous(),
        bias=bias.to(dtype),
        gated=_gated(mlp, dtype),
        tf32=tf32,
    )


def _pack_first(mlp: GatedMLP) -> tuple[Tensor, Tensor]:
    """First linears of core and gate side by side: weight (inputs, 128), bias (128,)."""
    core, gate = mlp.core[0], mlp.gate[0]
    return torch.cat([core.weight.T, gate.weight.T], 1), torch.cat([_required(core.bias), _required(gate.bias)])


def _gated(mlp: GatedMLP, dtype: torch.dtype) -> GatedWeights:
    def both(core: Tensor, gate: Tensor) -> Tensor:
        return torch.stack([core, gate]).to(dtype)

    second = second_bias = scale = shift = None
    if len(mlp.core) == 2:
        second = both(mlp.core[1].weight.T, mlp.gate[1].weight.T)
        second_bias = both(_required(mlp.core[1].bias), _required(mlp.gate[1].bias))
    if mlp.core_norm is not None and mlp.gate_norm is not None:
        scale = both(mlp.core_norm.weight, mlp.gate_norm.weight)
        shift = both(mlp.core_norm.bias, mlp.gate_norm.bias)
    return GatedWeights(second, second_bias, scale, shift)


def _readout(p: Parameters, dtype: torch.dtype) -> ReadoutWeights:
    *hidden, last = p.readout
    norm = p.readout_norm
    return ReadoutWeights(
        scale=None if norm is None else norm.weight.to(dtype),
        shift=None if norm is None else norm.bias.to(dtype),
        hidden=torch.stack([layer.weight.T for layer in hidden]).to(dtype),
        hidden_bias=torch.stack([_required(layer.bias) for layer in hidden]).to(dtype),
        out=last.weight.to(dtype),
        out_bias=_required(last.bias).to(dtype),
    )


def _bias(layer: Linear, dtype: torch.dtype) -> Tensor | None:
    return None if layer.bias is None else layer.bias.to(dtype)


def _required(bias: Tensor | None) -> Tensor:
    if bias is None:
        raise ValueError("this linear map has a bias in every CHGNet, but the checkpoint has none")
    return bias
