"""The forward pass under autograd: values alone, or values with their derivatives along one direction of the atoms.

`Dual(x, ẋ)`: ẋ is the derivative of x while atoms and cells move along a direction.  The weights' gradient of anything
that is made of energies, forces and virials is the gradient of energies and of one such derivative (`network`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.engine.direct_readout import Features
from ase_fastchgnet.model.engine.index import GraphIndex
from ase_fastchgnet.model.engine.weights import AngleWeights, AtomConvWeights, BondConvWeights, EngineWeights
from fastchgnet_kernels import bond_basis, readout
from fastchgnet_kernels.angle_basis.reference import INV_SQRT_PI, SHRINK
from fastchgnet_kernels.bond_basis.reference import envelope
from fastchgnet_kernels.edge_geometry import Geometry
from fastchgnet_kernels.gated_message.trainable import Dual, Structure, gated_message
from fastchgnet_kernels.gated_message.weights import GatedWeights


class Direction(NamedTuple):
    """The derivatives of a Geometry's fields along a direction, float64."""

    length: Tensor  # (bonds,)
    short_length: Tensor  # (short,)
    short_unit: Tensor  # (2 short, 3)


class Pass(NamedTuple):
    """A finished forward pass."""

    energies: Dual  # (atoms,) eV, without reference energies
    magmoms: Tensor  # (atoms,) μ_B
    # What the direct readout reads besides, values only.
    atoms: list[Tensor]  # (atoms, 64) each, entering each block and after the last
    short: list[Tensor]  # (short, 64) each, entering each block
    angles: Tensor  # (angles, 64) entering the last bond convolution
    basis: Tensor  # (bonds, n_radial)
    short_basis: Tensor  # (short, n_radial)


def direction(graph: GraphBatch, geometry: Geometry, positions: Tensor, strain: Tensor) -> Direction:
    """That of atoms moving by `positions` (atoms, 3) while each cell is strained by `strain` (systems, 3, 3)."""
    edge = graph.edges_of_bond[:, 0]
    center, neighbor = graph.center.index_select(0, edge), graph.neighbor.index_select(0, edge)
    strain = strain.index_select(0, graph.system_of_atom.index_select(0, center))
    vector = positions.index_select(0, center) - positions.index_select(0, neighbor)
    vector += torch.einsum("bi,bij->bj", geometry.vector, strain)
    length = (geometry.vector * vector).sum(1) / geometry.length
    short_length = length.index_select(0, graph.short_bonds)
    unit = vector.index_select(0, graph.short_bonds) - geometry.short_unit[::2] * short_length[:, None]
    unit /= geometry.short_length[:, None]
    return Direction(length, short_length, torch.stack([unit, -unit], 1).view(-1, 3))


def forward(
    w: EngineWeights,
    config: ModelConfig,
    graph: GraphBatch,
    index: GraphIndex,
    geometry: Geometry,
    to: Direction | None,
) -> Pass:
    """The whole model, for weights that may require gradients; with tangents if there is a direction."""
    length = Dual(geometry.length, to and to.length)
    short_length = Dual(geometry.short_length, to and to.short_length)
    basis = _bond_basis(length, w.atom_frequencies, config.atom_cutoff, config.envelope_exponent)
    short_basis = _bond_basis(short_length, w.bond_frequencies, config.bond_cutoff, config.envelope_exponent)
    weight, short_weight = _linear(basis, w.atom_weights), _linear(short_basis, w.bond_weights)
    unit = Dual(geometry.short_unit, to and to.short_unit)

    atoms = _constant(w.embedding.index_select(0, graph.numbers - 1), to)
    short = _linear(_select(basis, graph.short_bonds), w.bond_embedding)
    angles = _angle_basis(unit, index.angle_edges, w.angle_frequencies)
    atoms_in, short_in = [], []
    for block, conv in enumerate(w.atom_convs):
        atoms_in.append(atoms.value)
        short_in.append(short.value)
        atoms = _atom_conv(atoms, short, basis, weight, index, conv)
        before = short
        if block < len(w.bond_convs):
            short = _bond_conv(atoms, short, angles, short_weight, index, w.bond_convs[block])
        if block < len(w.angle_updates):
            read = before if w.parallel_updates else short
            update = _angle_message(atoms, read, angles, index, w.angle_updates[block], None)
            angles = _add(_linear(angles, w.angle_embedding) if block == 0 else angles, update)

    return Pass(
        energies=_energies(atoms, w),
        magmoms=torch.addmm(w.magmom_bias, atoms_in[-1], w.magmom)[:, 0].abs(),
        atoms=[*atoms_in, atoms.value],
        short=short_in,
        angles=(angles if w.angle_updates else _linear(angles, w.angle_embedding)).value,
        basis=basis.value,
        short_basis=short_basis.value,
    )


def readout_features(found: Pass, w: EngineWeights, config: ModelConfig, geometry: Geometry) -> Features:
    """What the direct readout reads, differentiable as far as the pass is."""
    exponent = config.envelope_exponent
    slope = bond_basis.slope(geometry.length, w.atom_frequencies, config.atom_cutoff, exponent)
    u, _ = envelope(geometry.short_length / config.bond_cutoff, exponent)
    return Features(
        atoms=torch.cat(found.atoms, 1),
        sensitivity=readout.backward(found.atoms[-1], w.readout, None),
        short=torch.cat(found.short, 1),
        angles=found.angles,
        basis=torch.cat([found.basis, slope], 1),
        short_basis=found.short_basis,
        short_envelope=u[:, None].to(found.basis.dtype),
    )


def _atom_conv(atoms: Dual, short: Dual, basis: Dual, weight: Dual, index: GraphIndex, w: AtomConvWeights) -> Dual:
    far = _linear(basis, w.far_bond)
    if w.far_shift is not None:
        far = far._replace(value=far.value + index.has_angles[:, None] * w.far_shift)
    near, rows = _linear(short, w.bond), index.short_bonds
    bonds = _pair(far, near, lambda x, y: x.index_copy(0, rows, y))
    table = _stack(_linear(atoms, w.center, w.bias), _linear(atoms, w.neighbor), bonds)
    to = Structure(index.edge_rows, index.edge_bond, index.edge_segments)
    message = gated_message(table, None, None, _centered_second(w.gated), weight, to)
    return _add(atoms, _linear(message, w.out, w.out_bias))


def _bond_conv(atoms: Dual, short: Dual, angles: Dual, weight: Dual, index: GraphIndex, w: BondConvWeights) -> Dual:
    message = _linear(_times(_angle_message(atoms, short, angles, index, w.message, weight), weight), w.out)
    if w.out_bias is not None:
        has_angles = index.has_angles.index_select(0, index.short_bonds)[:, None]
        message = message._replace(value=message.value + has_angles * w.out_bias)
    return _add(short, message)


def _angle_message(
    atoms: Dual, short: Dual, angles: Dual, index: GraphIndex, w: AngleWeights, weight: Dual | None
) -> Dual:
    """The gated MLP of every angle; with `weight` of the sending bonds, summed onto the receiving ones."""
    w = _centered_first(w)
    centers = _select(_linear(atoms, w.center, w.bias), index.short_center)
    receiving = _linear(short, w.receiving)
    edges = _add(centers, _each(receiving, lambda x: x.repeat_interleave(2, 0)))
    table = _stack(edges, _linear(short, w.sending))
    if weight is None:
        to = Structure(index.angle_rows, None, None)
    else:
        to = Structure(index.angle_rows, index.angle_sender, index.angle_segments)
    return gated_message(table, angles, w.angle, _centered_second(w.gated), weight, to)


def _energies(atoms: Dual, w: EngineWeights) -> Dual:
    """The energy of an atom is a function of its own features alone: ė is their tangent times its gradient."""
    value, _, kept = readout.forward(atoms.value, w.readout)
    if atoms.tangent is None:
        return Dual(value, None)
    return Dual(value, (readout.backward(atoms.value, w.readout, kept) * atoms.tangent).sum(1))


def _bond_basis(r: Dual, frequencies: Tensor, cutoff: float, exponent: int) -> Dual:
    """b_k = s sin(f_k x) with x = r/c, s = √(2/c) u(x)/r, and ḃ_k = ṙ (s' sin(f_k x) + s f_k/c cos(f_k x)).

    In float64, then in the dtype of the frequencies (see `bond_basis`).
    """
    dtype, f, x = frequencies.dtype, frequencies.double(), r.value / cutoff
    u, slope = envelope(x, exponent)
    scale = math.sqrt(2 / cutoff) * u / r.value
    phase = torch.outer(x, f)
    sine = torch.sin(phase)
    value = (sine * scale[:, None]).to(dtype)
    if r.tangent is None:
        return Dual(value, None)
    scale_dot = math.sqrt(2 / cutoff) * (slope / cutoff - u / r.value) / r.value * r.tangent
    phase_dot = scale * r.tangent / cutoff
    return Dual(value, (sine * scale_dot[:, None] + torch.cos(phase) * f * phase_dot[:, None]).to(dtype))


def _angle_basis(unit: Dual, edges: Tensor, frequencies: Tensor) -> Dual:
    """[1/√2, sin(f_k θ), cos(f_k θ)] / √π with θ = acos((1 - 1e-6) u·u'), the angle in float64 (see `angle_basis`)."""
    dtype = frequencies.dtype
    first, second = (unit.value.index_select(0, edges[:, side]) for side in (0, 1))
    cosine = (first * second).sum(1) * SHRINK
    phase = torch.outer(cosine.acos().to(dtype), frequencies)
    sine, cosines = torch.sin(phase) * INV_SQRT_PI, torch.cos(phase) * INV_SQRT_PI
    constant = torch.full_like(sine[:, :1], INV_SQRT_PI / math.sqrt(2))
    value = torch.cat([constant, sine, cosines], 1)
    if unit.tangent is None:
        return Dual(value, None)
    first_dot, second_dot = (unit.tangent.index_select(0, edges[:, side]) for side in (0, 1))
    cosine_dot = (first_dot * second + first * second_dot).sum(1) * SHRINK
    theta_dot = (-cosine_dot * torch.rsqrt(1 - cosine * cosine)).to(dtype)
    phase_dot = torch.outer(theta_dot, frequencies)
    return Dual(value, torch.cat([torch.zeros_like(constant), cosines * phase_dot, -sine * phase_dot], 1))


def _centered_second(w: GatedWeights) -> GatedWeights:
    """A second linear that a LayerNorm follows."""
    if w.scale is None or w.second is None or w.second_bias is None:
        return w
    return w._replace(second=_centered(w.second), second_bias=_centered(w.second_bias))


def _centered(x: Tensor) -> Tensor:
    """Without its mean over the last axis: a LayerNorm then has none to take away."""
    return x - x.mean(-1, keepdim=True)


def _centered_first(w: AngleWeights) -> AngleWeights:
    """Core and gate of a first linear that a LayerNorm follows."""
    if w.gated.scale is None or w.gated.second is not None:
        return w

    def centered(x: Tensor) -> Tensor:
        return _centered(x.unflatten(-1, (2, -1))).flatten(-2)

    parts = (centered(x) for x in (w.receiving, w.sending, w.angle, w.center, w.bias))
    receiving, sending, angle, center, bias = parts
    return AngleWeights(receiving, sending, angle, center, bias, w.gated)


def _constant(x: Tensor, to: Direction | None) -> Dual:
    return Dual(x, None if to is None else torch.zeros_like(x))


def _linear(x: Dual, weight: Tensor, bias: Tensor | None = None) -> Dual:
    value = x.value @ weight if bias is None else torch.addmm(bias, x.value, weight)
    return Dual(value, None if x.tangent is None else x.tangent @ weight)


def _each(x: Dual, linear: Callable[[Tensor], Tensor]) -> Dual:
    return Dual(linear(x.value), None if x.tangent is None else linear(x.tangent))


def _pair(x: Dual, y: Dual, linear: Callable[[Tensor, Tensor], Tensor]) -> Dual:
    tangent = None if x.tangent is None or y.tangent is None else linear(x.tangent, y.tangent)
    return Dual(linear(x.value, y.value), tangent)


def _add(x: Dual, y: Dual) -> Dual:
    return _pair(x, y, torch.add)


def _times(x: Dual, y: Dual) -> Dual:
    value = x.value * y.value
    if x.tangent is None or y.tangent is None:
        return Dual(value, None)
    return Dual(value, x.tangent * y.value + x.value * y.tangent)


def _select(x: Dual, rows: Tensor) -> Dual:
    return _each(x, lambda part: part.index_select(0, rows))


def _stack(*parts: Dual) -> Dual:
    """The rows of all, one after the other."""
    values, tangents = zip(*parts, strict=True)
    return Dual(torch.cat(values), None if tangents[0] is None else torch.cat(tangents))
