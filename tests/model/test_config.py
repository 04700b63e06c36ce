"""The architecture is read from the checkpoint, and one that we do not have is refused by name."""

import dataclasses
import inspect
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.config import DEFAULTS, FIRST_OUT_BIAS, SUPPORTED, ModelConfig

BASE = load_checkpoint("0.3.0").config


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # chgnet 0.4.2, pretrained/*/README.md
        (
            "0.2.0",
            ModelConfig(
                n_blocks=4,
                n_radial=9,
                n_angular=9,
                atom_cutoff=5.0,
                bond_cutoff=3.0,
                envelope_exponent=5,
                n_readout_hidden=2,
                gated_norm=False,
                readout_norm=False,
                mlp_out_bias=True,
                is_intensive=True,
            ),
        ),
        *[
            (
                name,
                ModelConfig(
                    n_blocks=4,
                    n_radial=31,
                    n_angular=31,
                    atom_cutoff=6.0,
                    bond_cutoff=3.0,
                    envelope_exponent=8,
                    n_readout_hidden=3,
                    gated_norm=True,
                    readout_norm=True,
                    mlp_out_bias=False,
                    is_intensive=True,
                ),
            )
            for name in ("0.3.0", "r2scan")
        ],
    ],
)
def test_released_configurations_are_those_that_stock_publishes(name: str, expected: ModelConfig) -> None:
    assert load_checkpoint(name).config == expected


def test_missing_arguments_have_the_defaults_of_stock_s_constructor() -> None:
    from chgnet.model import CHGNet

    stock = {name: parameter.default for name, parameter in inspect.signature(CHGNet.__init__).parameters.items()}
    ours = {name: values[0] for name, values in SUPPORTED.items()} | DEFAULTS
    # Two are taken out of **kwargs inside stock's constructor.
    assert ours.pop("conv_norm") is None
    assert ours.pop("final_mlp") == "MLP"
    assert ours == {name: stock[name] for name in ours}


def test_no_arguments_at_all_mean_the_architecture_of_0_3_0() -> None:
    assert ModelConfig.from_stock({}, {}) == BASE


def test_unknown_and_misspelt_arguments_are_ignored_as_in_stock() -> None:
    assert ModelConfig.from_stock({"skip_connection": False, "cutofff_coeff": 5, "version": "0.3.0"}, {}) == BASE


def test_the_bias_after_message_sums_is_read_from_the_tensors_and_not_from_the_arguments() -> None:
    with_bias: dict[str, Tensor] = {FIRST_OUT_BIAS: torch.zeros(64)}
    assert ModelConfig.from_stock({}, with_bias).mlp_out_bias
    assert not ModelConfig.from_stock({"mlp_out_bias": True}, {}).mlp_out_bias


@pytest.mark.parametrize("hidden", [64, [64], (64,)])
def test_one_hidden_readout_layer_may_be_written_as_a_number(hidden: Any) -> None:
    assert ModelConfig.from_stock({"mlp_hidden_dims": hidden}, {}).n_readout_hidden == 1


@pytest.mark.parametrize(
    "argument",
    [
        {"atom_fea_dim": 128},
        {"bond_fea_dim": 32},
        {"angle_fea_dim": 32},
        {"atom_conv_hidden_dim": 128},
        {"bond_conv_hidden_dim": 0},
        {"angle_layer_hidden_dim": 64},
        {"update_bond": False},
        {"update_angle": False},
        {"non_linearity": "gelu"},
        {"gMLP_norm": "batch"},
        {"readout_norm": "batch"},
        {"conv_norm": "layer"},
        {"mlp_first": False},
        {"read_out": "attn"},
        {"final_mlp": "gated"},
        {"mlp_hidden_dims": [64, 32]},
        {"mlp_hidden_dims": 0},
        {"cutoff_coeff": 5.5},
        {"cutoff_coeff": None},
    ],
    ids=lambda argument: "=".join(map(str, *argument.items())),
)
def test_another_architecture_is_refused_by_the_name_and_value_of_the_argument(argument: dict[str, Any]) -> None:
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match="no released checkpoint") as error:
        ModelConfig.from_stock(argument, {})
    assert f"{name}={value!r}" in str(error.value)
    assert "supported: " in str(error.value)


@pytest.mark.parametrize(
    ("argument", "field"),
    [
        ({"num_angular": 30}, "n_angular=30"),
        ({"num_radial": 0}, "n_radial=0"),
        ({"n_conv": 1}, "n_blocks=1"),
        ({"cutoff_coeff": 0}, "envelope_exponent=0"),
        ({"bond_graph_cutoff": 7}, "bond_cutoff=7.0"),
    ],
)
def test_sizes_that_no_chgnet_can_have_are_refused(argument: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match="no released checkpoint") as error:
        ModelConfig.from_stock(argument, {})
    assert field in str(error.value)


def test_a_nonlinear_composition_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"composition_model\.fc1\.weight"):
        ModelConfig.from_stock({}, {"composition_model.fc1.weight": torch.zeros(64, 94)})


@pytest.mark.parametrize(("composition_model", "is_intensive"), [("MPtrj", False), ("MPF", True)])
def test_reference_energies_on_another_footing_than_the_network_are_refused(
    composition_model: str, is_intensive: bool
) -> None:
    arguments = {"composition_model": composition_model, "is_intensive": is_intensive}
    with pytest.raises(ValueError, match=f"is_intensive={is_intensive} with"):
        ModelConfig.from_stock(arguments, {})


def test_a_configuration_survives_json() -> None:
    config = dataclasses.replace(BASE, n_radial=9, atom_cutoff=5.5, gated_norm=False)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_configuration_with_missing_or_unknown_fields_is_refused_by_their_names() -> None:
    values = BASE.to_dict()
    values["n_heads"] = values.pop("n_radial")
    with pytest.raises(ValueError, match=r"missing \['n_radial'\], unknown \['n_heads'\]"):
        ModelConfig.from_dict(values)
