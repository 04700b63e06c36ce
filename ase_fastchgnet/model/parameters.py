"""The weights of a CHGNet as named, typed records, and their names in stock checkpoints.

`_assemble` states once which tensor of which shape goes where; reading, checking and writing all follow from it.
Linear maps act as x ↦ x Wᵀ + b, as in torch.nn.functional.linear.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor

from ase_fastchgnet.model.config import REFERENCE_ENERGIES, ModelConfig

DIRECT_READOUT = "direct_readout"  # what the names of its tensors start with


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """x ↦ x Wᵀ + b."""

    weight: Tensor  # (out, in)
    bias: Tensor | None  # (out,)


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """x ↦ (x - mean) / sqrt(variance + 1e-5) · weight + bias over the last axis, variance with 1/n."""

    weight: Tensor  # (features,)
    bias: Tensor  # (features,)


@dataclass(frozen=True, slots=True, eq=False)
class GatedMLP:
    """x ↦ silu(norm(core(x))) · sigmoid(norm(gate(x))).

    `core` and `gate` are two linear maps with a silu between them (atom and bond convolution) or one (angle update).
    """

    core: tuple[Linear, ...]
    gate: tuple[Linear, ...]
    core_norm: LayerNorm | None
    gate_norm: LayerNorm | None


@dataclass(frozen=True, slots=True, eq=False)
class AtomConv:
    """Messages along edges, summed over the edges of each centre, then `out`, then added to the atoms.

    Columns of the MLP's input: [centre atom, bond, neighbour atom], 64 each.
    """

    mlp: GatedMLP
    out: Linear


@dataclass(frozen=True, slots=True, eq=False)
class BondConv:
    """Messages along angles, summed over the angles of each receiving bond, then `out`, then added to the bonds.

    Columns of the MLP's input: [receiving bond, sending bond, angle, centre atom], 64 each.
    """

    mlp: GatedMLP
    out: Linear


@dataclass(frozen=True, slots=True, eq=False)
class AngleUpdate:
    """A gated MLP on each angle, added to the angles.

    Columns of its input: [receiving bond, sending bond, angle, centre atom], 64 each.
    """

    mlp: GatedMLP


@dataclass(frozen=True, slots=True, eq=False)
class EdgeMix:
    """silu(norm(one(atom) + other(other atom) + basis(bond) + envelope · short(features of a short bond)))."""

    one: Linear
    other: Tensor  # (64, 64)
    basis: Tensor  # (64, n_radial)
    short: Linear  # from the features that enter each block, side by side
    norm: LayerNorm


@dataclass(frozen=True, slots=True, eq=False)
class AngleReadout:
    """The part of a direct readout that is about angles."""

    angle: Tensor  # (32, 64)
    short: Tensor  # (32, 64 n_blocks)
    center: Linear
    neighbor: Tensor  # (32, 64)
    bond_sensitivity: Tensor  # (32, 64)
    center_sensitivity: Linear
    neighbor_sensitivity: Tensor  # (32, 64)
    norm: LayerNorm
    weight: Tensor  # (32, n_radial), radial functions up to the bond cut-off → factor of each of the two edges
    out: Tensor  # (1, 32)


@dataclass(frozen=True, slots=True, eq=False)
class DirectReadout:
    """Forces and stress without differentiation; the formulas are in `model/direct_readout.py`."""

    atom: tuple[Linear, ...]  # features of all blocks and sensitivity → 128 → 64
    sensitivity: Linear
    hop: EdgeMix
    hop_weight: Tensor  # (64, n_radial)
    hop_out: Linear
    bond: EdgeMix
    bond_hidden: Linear
    bond_weight: Tensor  # (64, 2 n_radial), of the radial functions and their slopes
    bond_out: Tensor  # (3, 64): ∂E/∂r, isotropic and traceless part of the virial
    angle: AngleReadout


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """All weights of one model; stock's names are in `_assemble`."""

    embedding: Tensor  # (94, 64), row Z - 1
    atom_frequencies: Tensor  # (n_radial,) of the radial functions up to the atom cut-off, about π n
    bond_frequencies: Tensor  # (n_radial,) of the radial functions up to the bond cut-off, about π n
    angle_frequencies: Tensor  # ((n_angular - 1) / 2,) of the sines and cosines, about n
    bond_embedding: Tensor  # (64, n_radial), of the radial functions up to the atom cut-off
    atom_weights: Tensor  # (64, n_radial), radial functions up to the atom cut-off → factor of a message to an atom
    bond_weights: Tensor  # (64, n_radial), radial functions up to the bond cut-off → factor of a message to a bond
    angle_embedding: Tensor  # (64, n_angular)
    atom_convs: tuple[AtomConv, ...]  # n_blocks
    bond_convs: tuple[BondConv, ...]  # n_blocks - 1
    angle_updates: tuple[AngleUpdate, ...]  # n_blocks - 1; the last one changes nothing that is read
    site_wise: Linear  # 64 → 1, |·| is the magnetic moment in μ_B
    readout_norm: LayerNorm | None
    readout: tuple[Linear, ...]  # 64 → … → 1, silu between; energy of an atom in eV
    reference_energies: Tensor  # (94,) eV, entry Z - 1
    direct_readout: DirectReadout | None

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], config: ModelConfig) -> Self:
        """The records of a state dict with stock's names; every tensor must be there, be used, fit and be finite."""
        shapes = stock_shapes(config)
        _check_names(state, shapes)
        for name, shape in shapes.items():
            _check_tensor(name, state[name], shape)
        return cls.of(state, config)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], config: ModelConfig) -> Self:
        """The records of tensors with stock's names that are known to fit, without a look at their values."""
        return cast(Self, _assemble(config, lambda name, *shape: tensors[name]))

    def to_state_dict(self, config: ModelConfig) -> dict[str, Tensor]:
        """The same tensors under stock's names and in stock's shapes."""
        leaves = zip(stock_shapes(config).items(), _leaves(self), strict=True)
        return {name: leaf.reshape(shape) for (name, shape), leaf in leaves}

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """A copy with every tensor in `dtype` on `device`; None keeps what is there."""
        return cast(Self, _map(self, lambda leaf: leaf.to(dtype=dtype, device=device)))


def stock_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a stock checkpoint with this configuration, in the order of our fields."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, *shape: int) -> Tensor:
        shapes[name] = shape
        return torch.empty(shape, device="meta")

    _assemble(config, record)
    return shapes


class Take(Protocol):
    """Gives the tensor that stock calls `name`."""

    def __call__(self, name: str, *shape: int) -> Tensor: ...


def _assemble(config: ModelConfig, take: Take) -> Parameters:
    """Every tensor is taken once and in the order of the fields, which `stock_shapes` and `to_state_dict` rely on."""
    width, n_radial, n_blocks = config.n_features, config.n_radial, config.n_blocks
    return Parameters(
        embedding=take("atom_embedding.embedding.weight", config.n_elements, width),
        atom_frequencies=take("bond_basis_expansion.rbf_expansion_ag.frequencies", n_radial),
        bond_frequencies=take("bond_basis_expansion.rbf_expansion_bg.frequencies", n_radial),
        angle_frequencies=take("angle_basis_expansion.fourier_expansion.frequencies", config.n_angular // 2),
        bond_embedding=take("bond_embedding.weight", width, n_radial),
        atom_weights=take("bond_weights_ag.weight", width, n_radial),
        bond_weights=take("bond_weights_bg.weight", width, n_radial),
        angle_embedding=take("angle_embedding.weight", width, config.n_angular),
        atom_convs=tuple(_atom_conv(take, f"atom_conv_layers.{block}", config) for block in range(n_blocks)),
        bond_convs=tuple(_bond_conv(take, f"bond_conv_layers.{block}", config) for block in range(n_blocks - 1)),
        angle_updates=tuple(_angle_update(take, f"angle_layers.{block}", config) for block in range(n_blocks - 1)),
        site_wise=_linear(take, "site_wise", 1, width),
        readout_norm=_layer_norm(take, "readout_norm", width) if config.readout_norm else None,
        readout=_readout(take, config),
        reference_energies=take(REFERENCE_ENERGIES, 1, config.n_elements).reshape(config.n_elements),
        direct_readout=direct_readout(take, config) if config.direct_readout else None,
    )


def direct_readout(take: Take, config: ModelConfig) -> DirectReadout:
    """The readout whose tensors are called "direct_readout.…"."""
    name, width, n_radial, n_blocks = DIRECT_READOUT, config.n_features, config.n_radial, config.n_blocks
    return DirectReadout(
        atom=(
            _linear(take, f"{name}.atom.0", 2 * width, (n_blocks + 2) * width),
            _linear(take, f"{name}.atom.1", width, 2 * width),
        ),
        sensitivity=_linear(take, f"{name}.sensitivity", width, 2 * width),
        hop=_edge_mix(take, f"{name}.hop", config),
        hop_weight=take(f"{name}.hop_weight", width, n_radial),
        hop_out=_linear(take, f"{name}.hop_out", width, width),
        bond=_edge_mix(take, f"{name}.bond", config),
        bond_hidden=_linear(take, f"{name}.bond_hidden", width, width),
        bond_weight=take(f"{name}.bond_weight", width, 2 * n_radial),
        bond_out=take(f"{name}.bond_out", 3, width),
        angle=_angle_readout(take, f"{name}.angle", config),
    )


def _edge_mix(take: Take, name: str, config: ModelConfig) -> EdgeMix:
    width = config.n_features
    return EdgeMix(
        one=_linear(take, f"{name}.one", width, width),
        other=take(f"{name}.other", width, width),
        basis=take(f"{name}.basis", width, config.n_radial),
        short=_linear(take, f"{name}.short", width, config.n_blocks * width),
        norm=_layer_norm(take, f"{name}.norm", width),
    )


def _angle_readout(take: Take, name: str, config: ModelConfig) -> AngleReadout:
    width, half = config.n_features, config.n_features // 2
    return AngleReadout(
        angle=take(f"{name}.angle", half, width),
        short=take(f"{name}.short", half, config.n_blocks * width),
        center=_linear(take, f"{name}.center", half, width),
        neighbor=take(f"{name}.neighbor", half, width),
        bond_sensitivity=take(f"{name}.bond_sensitivity", half, width),
        center_sensitivity=_linear(take, f"{name}.center_sensitivity", half, width),
        neighbor_sensitivity=take(f"{name}.neighbor_sensitivity", half, width),
        norm=_layer_norm(take, f"{name}.norm", half),
        weight=take(f"{name}.weight", half, config.n_radial),
        out=take(f"{name}.out", 1, half),
    )


def _atom_conv(take: Take, name: str, config: ModelConfig) -> AtomConv:
    mlp = _gated_mlp(take, f"{name}.twoBody_atom", 3 * config.n_features, (0, 3), config)
    return AtomConv(mlp, _out(take, name, config))


def _bond_conv(take: Take, name: str, config: ModelConfig) -> BondConv:
    mlp = _gated_mlp(take, f"{name}.twoBody_bond", 4 * config.n_features, (0, 3), config)
    return BondConv(mlp, _out(take, name, config))


def _angle_update(take: Take, name: str, config: ModelConfig) -> AngleUpdate:
    return AngleUpdate(_gated_mlp(take, f"{name}.twoBody_bond", 4 * config.n_features, (1,), config))


def _gated_mlp(take: Take, name: str, n_inputs: int, slots: tuple[int, ...], config: ModelConfig) -> GatedMLP:
    """`slots` are the places of the linear maps in stock's torch.nn.Sequential, which also counts silu and dropout."""
    width = config.n_features

    def chain(side: str) -> tuple[Linear, ...]:
        widths = (n_inputs, width)[: len(slots)]
        return tuple(
            _linear(take, f"{name}.{side}.layers.{slot}", width, n_in) for slot, n_in in zip(slots, widths, strict=True)
        )

    return GatedMLP(
        core=chain("mlp_core"),
        gate=chain("mlp_gate"),
        core_norm=_layer_norm(take, f"{name}.bn1", width) if config.gated_norm else None,
        gate_norm=_layer_norm(take, f"{name}.bn2", width) if config.gated_norm else None,
    )


def _out(take: Take, name: str, config: ModelConfig) -> Linear:
    width = config.n_features
    return _linear(take, f"{name}.mlp_out.layers.1", width, width, bias=config.mlp_out_bias)


def _readout(take: Take, config: ModelConfig) -> tuple[Linear, ...]:
    width, n_hidden = config.n_features, config.n_readout_hidden
    hidden = tuple(_linear(take, f"mlp.layers.{2 * layer}", width, width) for layer in range(n_hidden))
    return (*hidden, _linear(take, f"mlp.layers.{2 * n_hidden + 1}", 1, width))


def _linear(take: Take, name: str, n_out: int, n_in: int, *, bias: bool = True) -> Linear:
    return Linear(take(f"{name}.weight", n_out, n_in), take(f"{name}.bias", n_out) if bias else None)


def _layer_norm(take: Take, name: str, width: int) -> LayerNorm:
    return LayerNorm(take(f"{name}.weight", width), take(f"{name}.bias", width))


def _check_names(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in shapes if name not in state]
    unexpected = [name for name in state if name not in shapes]
    if missing or unexpected:
        raise ValueError(
            f"the tensors do not belong to this configuration: missing {missing or 'none'}, unexpected "
            f"{unexpected or 'none'}; weights and configuration must come from the same checkpoint"
        )


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {shape} by the configuration")
    if not tensor.isfinite().all():
        raise ValueError(f"{name}: holds NaN or infinity; was the checkpoint saved by a training run that diverged?")


def _leaves(node: object) -> Iterator[Tensor]:
    """The tensors of a record, depth first in the order of its fields."""
    if isinstance(node, Tensor):
        yield node
    elif node is not None:
        for child in _children(node):
            yield from _leaves(child)


def _map(node: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same record with `change` applied to every tensor."""
    if isinstance(node, Tensor):
        return change(node)
    if node is None:
        return None
    changed = (_map(child, change) for child in _children(node))
    return tuple(changed) if isinstance(node, tuple) else type(node)(*changed)


def _children(node: object) -> tuple[object, ...]:
    if isinstance(node, tuple):
        return node
    assert is_dataclass(node)
    return tuple(getattr(node, field.name) for field in fields(node))
