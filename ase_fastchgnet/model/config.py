"""The architecture of a CHGNet: a frozen ModelConfig, read from a checkpoint and never assumed.

The three released models differ in basis sizes, cut-offs, layer norms and biases, and those are the fields.  Every
other switch of stock CHGNet's constructor has one value in all of them, so any other value is refused by name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from torch import Tensor

WIDTH = 64  # of every hidden vector in every released CHGNet

# Arguments of stock CHGNet's constructor: the values supported here, stock's own default first.
SUPPORTED: dict[str, tuple[object, ...]] = {
    "atom_fea_dim": (WIDTH,),
    "bond_fea_dim": (WIDTH,),
    "angle_fea_dim": (WIDTH,),
    "atom_conv_hidden_dim": (WIDTH,),
    "bond_conv_hidden_dim": (WIDTH,),
    "angle_layer_hidden_dim": (0, None),
    "update_bond": (True,),
    "update_angle": (True,),
    "non_linearity": ("silu",),
    "gMLP_norm": ("layer", None),
    "readout_norm": ("layer", None),
    "conv_norm": (None,),
    "mlp_first": (True,),
    "read_out": ("ave",),
    "final_mlp": ("MLP", "normal"),
}

# Stock's defaults for the arguments that become fields.
DEFAULTS: dict[str, Any] = {
    "composition_model": "MPtrj",
    "n_conv": 4,
    "num_radial": 31,
    "num_angular": 31,
    "atom_graph_cutoff": 6,
    "bond_graph_cutoff": 3,
    "cutoff_coeff": 8,
    "mlp_hidden_dims": (WIDTH, WIDTH, WIDTH),
    "is_intensive": True,
}

# Fields that older files do not have, and what these mean.
LATER: dict[str, Any] = {"parallel_updates": False, "direct_readout": False}

REFERENCE_ENERGIES = "composition_model.fc.weight"
FIRST_OUT_BIAS = "atom_conv_layers.0.mlp_out.layers.1.bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What the weights alone do not say, plus the sizes that say which weights there must be."""

    n_blocks: int  # interaction blocks; the last one updates atoms only
    n_radial: int  # radial Bessel functions, one set per cut-off
    n_angular: int  # Fourier functions of the angle: a constant, (n - 1) / 2 sines and as many cosines
    atom_cutoff: float  # Å, edges
    bond_cutoff: float  # Å, short edges, which form angles
    envelope_exponent: int  # p of the polynomial that takes the radial functions to zero at the cut-off
    n_readout_hidden: int  # hidden layers of the energy readout
    gated_norm: bool  # layer norms in the gated MLPs
    readout_norm: bool  # layer norm before the energy readout
    mlp_out_bias: bool  # bias in the linear map after each sum over messages
    is_intensive: bool  # trained on eV/atom; a record of the training: predictions are extensive either way
    n_features: int = WIDTH
    n_elements: int = 94
    # Whether AngleUpdate reads the bonds as BondConv does, before and not after their update: FastCHGNet's block, whose
    # two parts need not wait for each other.  In no released model: it needs weights of its own.
    parallel_updates: bool = False
    direct_readout: bool = False  # weights that give forces and stress without differentiation

    def __post_init__(self) -> None:
        _require(self.n_features == WIDTH, f"n_features={self.n_features}", f"{WIDTH}")
        _require(self.n_elements == 94, f"n_elements={self.n_elements}", "94")
        # Magnetic moments are read before the last block, so there must be one before it.
        _require(self.n_blocks >= 2, f"n_blocks={self.n_blocks}", "2 or more")
        _require(self.n_radial >= 1, f"n_radial={self.n_radial}", "1 or more")
        _require(self.n_angular >= 3 and self.n_angular % 2 == 1, f"n_angular={self.n_angular}", "an odd number ≥ 3")
        _require(self.n_readout_hidden >= 1, f"n_readout_hidden={self.n_readout_hidden}", "1 or more")
        _require(self.envelope_exponent >= 1, f"envelope_exponent={self.envelope_exponent}", "an integer ≥ 1")
        _require(
            0 < self.bond_cutoff <= self.atom_cutoff,
            f"bond_cutoff={self.bond_cutoff} Å with atom_cutoff={self.atom_cutoff} Å",
            "0 < bond_cutoff ≤ atom_cutoff",
        )

    @classmethod
    def from_stock(cls, model_args: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> Self:
        """Configuration of a stock CHGNet, given the `model_args` and the `state_dict` that it was saved with.

        Arguments that are missing have the defaults of chgnet 0.4.2; unknown ones are ignored, as chgnet does.
        """
        for key, supported in SUPPORTED.items():
            got = model_args.get(key, supported[0])
            _require(got in supported, f"{key}={got!r}", " or ".join(map(repr, supported)))
        args = DEFAULTS | dict(model_args)
        hidden = _hidden_widths(args["mlp_hidden_dims"])
        _require(set(hidden) == {WIDTH}, f"mlp_hidden_dims={args['mlp_hidden_dims']!r}", f"layers of width {WIDTH}")
        _check_integer(args, "cutoff_coeff")
        _check_reference_energies(args["composition_model"], args["is_intensive"], state_dict)
        return cls(
            n_blocks=args["n_conv"],
            n_radial=args["num_radial"],
            n_angular=args["num_angular"],
            atom_cutoff=float(args["atom_graph_cutoff"]),
            bond_cutoff=float(args["bond_graph_cutoff"]),
            envelope_exponent=int(args["cutoff_coeff"]),
            n_readout_hidden=len(hidden),
            gated_norm=model_args.get("gMLP_norm", "layer") == "layer",
            readout_norm=model_args.get("readout_norm", "layer") == "layer",
            mlp_out_bias=FIRST_OUT_BIAS in state_dict,
            is_intensive=args["is_intensive"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-ready dictionary; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration written by `to_dict`."""
        known = {field.name for field in fields(cls)}
        values = LATER | dict(values)
        if values.keys() != known:
            missing, unknown = sorted(known - values.keys()), sorted(values.keys() - known)
            raise ValueError(f"model configuration: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
        return cls(**values)


def _require(condition: bool, got: str, supported: str) -> None:
    if not condition:
        raise ValueError(f"CHGNet architecture: {got} is in no released checkpoint; supported: {supported}")


def _hidden_widths(value: Any) -> tuple[int, ...]:
    """Stock writes one hidden layer as a number and none as 0 or None."""
    if not value:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _check_integer(args: Mapping[str, Any], key: str) -> None:
    _require(args[key] is not None and args[key] == int(args[key]), f"{key}={args[key]!r}", "an integer")


def _check_reference_energies(composition_model: Any, is_intensive: bool, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse composition models other than one energy per element, on the same footing as the network's energy.

    A named one is per atom except "MPF" (stock's AtomRef.initialize_from), a stored one says so itself.  If the two
    disagree, stock adds a total to a mean, and the result is neither.
    """
    others = [key for key in state_dict if key.startswith("composition_model.") and key != REFERENCE_ENERGIES]
    _require(not others, f"composition_model with tensors {others}", "one reference energy per element (AtomRef)")
    if composition_model is None:
        return
    named = isinstance(composition_model, str)
    per_atom = composition_model != "MPF" if named else getattr(composition_model, "is_intensive", is_intensive)
    _require(
        per_atom == is_intensive,
        f"is_intensive={is_intensive} with reference energies for is_intensive={per_atom}",
        "the same for both",
    )
