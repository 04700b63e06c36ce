"""Weights arrive unchanged or not at all, and reading a file runs no code from it."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import PRETRAINED, RELEASED, Checkpoint, load_checkpoint, save_checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.parameters import Parameters, stock_shapes


def stock_file(name: str) -> Path:
    """The released file inside the installed chgnet, which need not be imported for it."""
    spec = importlib.util.find_spec("chgnet")
    assert spec is not None
    assert spec.origin is not None
    (path,) = (Path(spec.origin).parent / "pretrained" / name).glob("*.pth.tar")
    return path


def stock_content(name: str = "0.3.0") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(stock_file(name), weights_only=True, map_location="cpu")
    return content


def random_state(config: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = stock_shapes(config).items()
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes}


def same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Stock prints and warns."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the files of 0.3.0 that a test may damage."""
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"model{suffix}").write_bytes((PRETRAINED / f"0.3.0{suffix}").read_bytes())
    return tmp_path / "model.safetensors"


# the released models


@pytest.mark.parametrize("name", RELEASED)
def test_converted_weights_are_bit_equal_to_stock_s(name: str) -> None:
    ours = safetensors.torch.load_file(PRETRAINED / f"{name}.safetensors")
    assert same_tensors(ours, stock_content(name)["model"]["state_dict"])
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}


@pytest.mark.parametrize("name", RELEASED)
def test_loaded_parameters_are_stock_s_tensors_in_float64(name: str) -> None:
    checkpoint = load_checkpoint(name)
    loaded = checkpoint.parameters.to_state_dict(checkpoint.config)
    stock = {key: tensor.double() for key, tensor in stock_content(name)["model"]["state_dict"].items()}
    assert same_tensors(loaded, stock)


@pytest.mark.parametrize("name", RELEASED)
def test_the_stock_file_and_ours_give_the_same_checkpoint(name: str) -> None:
    ours, stock = load_checkpoint(name), load_checkpoint(stock_file(name))
    assert ours.config == stock.config
    assert same_tensors(ours.parameters.to_state_dict(ours.config), stock.parameters.to_state_dict(stock.config))


@pytest.mark.parametrize("name", RELEASED)
def test_the_description_of_a_released_model_names_the_stock_file_it_came_from(name: str) -> None:
    description = json.loads((PRETRAINED / f"{name}.json").read_text())
    assert description["name"] == name
    assert description["converted_from_sha256"] == hashlib.sha256(stock_file(name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_model_has_a_card_that_says_what_its_energies_mean(name: str) -> None:
    card = (PRETRAINED / f"{name}.md").read_text()
    assert stock_file(name).name in card
    assert "## What its energies mean" in card
    assert "LICENSE-CHGNet" in card


def test_a_released_model_is_read_from_disk_once() -> None:
    assert load_checkpoint("0.3.0") is load_checkpoint("0.3.0")


# records


def test_each_field_holds_the_tensor_of_its_meaning() -> None:
    config = load_checkpoint("0.3.0").config
    state = random_state(config)
    p = Parameters.from_state_dict(state, config)
    expected = {
        "atom_embedding.embedding.weight": p.embedding,
        "bond_basis_expansion.rbf_expansion_ag.frequencies": p.atom_frequencies,
        "bond_basis_expansion.rbf_expansion_bg.frequencies": p.bond_frequencies,
        "angle_basis_expansion.fourier_expansion.frequencies": p.angle_frequencies,
        "bond_embedding.weight": p.bond_embedding,
        "bond_weights_ag.weight": p.atom_weights,
        "bond_weights_bg.weight": p.bond_weights,
        "angle_embedding.weight": p.angle_embedding,
        "atom_conv_layers.3.twoBody_atom.mlp_core.layers.0.weight": p.atom_convs[3].mlp.core[0].weight,
        "atom_conv_layers.3.twoBody_atom.mlp_gate.layers.3.bias": p.atom_convs[3].mlp.gate[1].bias,
        "bond_conv_layers.2.twoBody_bond.mlp_gate.layers.0.weight": p.bond_convs[2].mlp.gate[0].weight,
        "bond_conv_layers.2.mlp_out.layers.1.weight": p.bond_convs[2].out.weight,
        "angle_layers.1.twoBody_bond.mlp_core.layers.1.weight": p.angle_updates[1].mlp.core[0].weight,
        "site_wise.weight": p.site_wise.weight,
        "mlp.layers.4.bias": p.readout[2].bias,
        "mlp.layers.7.weight": p.readout[3].weight,
    }
    for name, tensor in expected.items():
        assert tensor is not None
        assert torch.equal(tensor, state[name]), name
    norms = p.atom_convs[1].mlp
    assert norms.core_norm is not None
    assert norms.gate_norm is not None
    assert torch.equal(norms.core_norm.weight, state["atom_conv_layers.1.twoBody_atom.bn1.weight"])
    assert torch.equal(norms.gate_norm.bias, state["atom_conv_layers.1.twoBody_atom.bn2.bias"])
    assert torch.equal(p.reference_energies, state["composition_model.fc.weight"][0])


@pytest.mark.parametrize("name", RELEASED)
def test_every_tensor_is_used_once_and_written_back_under_its_name(name: str) -> None:
    config = load_checkpoint(name).config
    state = random_state(config)
    assert same_tensors(Parameters.from_state_dict(state, config).to_state_dict(config), state)


def test_a_copy_in_another_dtype_leaves_no_tensor_behind() -> None:
    checkpoint = load_checkpoint("0.3.0")
    single = checkpoint.parameters.to(dtype=torch.float32).to_state_dict(checkpoint.config)
    assert {tensor.dtype for tensor in single.values()} == {torch.float32}
    assert checkpoint.parameters.embedding.dtype == torch.float64


def test_missing_and_unexpected_tensors_are_named() -> None:
    config = load_checkpoint("0.3.0").config
    state = random_state(config)
    state["site_wise.extra"] = state.pop("site_wise.bias")
    with pytest.raises(ValueError, match=r"missing \['site_wise.bias'\], unexpected \['site_wise.extra'\]"):
        Parameters.from_state_dict(state, config)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes() -> None:
    config = load_checkpoint("0.3.0").config
    state = random_state(config) | {"bond_embedding.weight": torch.zeros(64, 9)}
    with pytest.raises(ValueError, match=r"bond_embedding.weight: shape \(64, 9\), expected \(64, 31\)"):
        Parameters.from_state_dict(state, config)


def test_weights_that_are_not_finite_are_refused() -> None:
    config = load_checkpoint("0.3.0").config
    state = random_state(config)
    state["site_wise.bias"][0] = torch.nan
    with pytest.raises(ValueError, match=r"site_wise.bias: holds NaN"):
        Parameters.from_state_dict(state, config)


# our files


@pytest.mark.parametrize("position", [3, 9_000, 20_000, -1], ids=["length", "header", "weights", "last"])
def test_one_changed_byte_is_noticed(copied: Path, position: int) -> None:
    data = bytearray(copied.read_bytes())
    data[position] ^= 1
    copied.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged.* SHA-256 .*expected"):
        load_checkpoint(copied)


def test_a_truncated_file_is_noticed(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(copied)


def test_weights_without_their_description_are_refused(copied: Path) -> None:
    copied.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.json: missing"):
        load_checkpoint(copied)


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "model"}'])
def test_a_damaged_description_is_refused_by_its_path(copied: Path, text: str) -> None:
    copied.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json: "):
        load_checkpoint(copied)


def test_a_missing_released_model_says_to_reinstall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ase_fastchgnet.model import checkpoint

    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path)
    checkpoint._load_released.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match="reinstall ase-fastchgnet"):
            load_checkpoint("0.3.0")
    finally:
        checkpoint._load_released.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saving_and_loading_changes_no_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    config = load_checkpoint("0.2.0").config
    state = {name: tensor.to(dtype).double() for name, tensor in random_state(config).items()}
    parameters = Parameters.from_state_dict(state, config)
    save_checkpoint(
        Checkpoint(name="mine", config=config, parameters=parameters, sha256="-"), tmp_path / "m.safetensors"
    )
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert (loaded.name, loaded.config) == ("mine", config)
    assert same_tensors(loaded.parameters.to_state_dict(config), state)
    stored = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}


def test_weights_are_saved_under_no_other_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_checkpoint(load_checkpoint("0.3.0"), tmp_path / "model.pth")


def test_checkpoints_are_equal_if_name_and_file_are(copied: Path) -> None:
    released, again = load_checkpoint("0.3.0"), load_checkpoint(copied)
    assert again is not released
    assert again == released
    assert hash(again) == hash(released)
    assert load_checkpoint("r2scan") != released
    assert dataclasses.replace(released, name="mine") != released


# names and paths


@pytest.mark.parametrize("model", ["0.4.0", "nowhere/model.safetensors", "~/nowhere.pth.tar"])
def test_an_unknown_name_lists_the_released_ones(model: str) -> None:
    with pytest.raises(
        ValueError, match=r"neither a released model .*'0\.3\.0', '0\.2\.0', 'r2scan'.* nor an existing file"
    ):
        load_checkpoint(model)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.onnx: unknown kind of file"):
        load_checkpoint(tmp_path / "model.onnx")


# stock files


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What chgnet's Trainer leaves behind after an epoch, with reference energies of its own in the model."""
    with quiet():
        from chgnet.data.dataset import StructureData, collate_graphs
        from chgnet.model import CHGNet
        from chgnet.model.composition_model import AtomRef
        from chgnet.trainer import Trainer
        from pymatgen.core import Lattice, Structure

        crystals = [Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]) for a in (3.9, 4.0)]
        reference = AtomRef(is_intensive=True)
        reference.fit(crystals, [-3.0, -3.1])
        model = CHGNet(composition_model=reference, n_conv=2, mlp_hidden_dims=[64, 64])
        data = StructureData(structures=crystals, energies=[-3.0, -3.1], forces=[np.zeros((2, 3))] * 2)
        loader = torch.utils.data.DataLoader(data, batch_size=2, collate_fn=collate_graphs)
        trainer = Trainer(model=model, targets="ef", epochs=1, use_device="cpu", learning_rate=np.float64(1e-3))
        folder = tmp_path_factory.mktemp("trained")
        trainer.train(loader, loader, save_dir=str(folder))
    return next(folder.glob("bestE_*.pth.tar"))


def test_a_model_fine_tuned_with_stock_s_trainer_loads_as_it_is(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    saved = torch.load(trained, weights_only=False, map_location="cpu")["model"]["state_dict"]
    assert checkpoint.name == trained.name.removesuffix(".pth.tar")
    assert (checkpoint.config.n_blocks, checkpoint.config.n_readout_hidden) == (2, 2)
    loaded = checkpoint.parameters.to_state_dict(checkpoint.config)
    assert same_tensors(loaded, {name: tensor.double() for name, tensor in saved.items()})


def test_that_file_does_need_more_than_torch_allows_by_itself(trained: Path) -> None:
    # Guards the test above: without these the list of allowed names would not be exercised.
    needed = torch.serialization.get_unsafe_globals_in_checkpoint(trained)
    assert {"chgnet.model.composition_model.AtomRef", "numpy.ndarray"} <= set(needed)


def test_numbers_pickled_by_numpy_1_load_too(tmp_path: Path) -> None:
    content = {"model": stock_content()["model"], "training_history": {"e": np.float64(0.03)}}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=False)  # no offsets that could shift
    data = (tmp_path / "model.pth").read_bytes()
    older = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert older != data
    (tmp_path / "model.pth").write_bytes(older)
    assert load_checkpoint(tmp_path / "model.pth").config == load_checkpoint("0.3.0").config


def test_a_model_saved_as_a_dictionary_loads(tmp_path: Path) -> None:
    torch.save(stock_content()["model"], tmp_path / "model.pt")
    assert load_checkpoint(tmp_path / "model.pt").config == load_checkpoint("0.3.0").config


def test_a_model_without_a_composition_model_has_zero_reference_energies(tmp_path: Path) -> None:
    model = stock_content()["model"]
    model["model_args"]["composition_model"] = None
    del model["state_dict"]["composition_model.fc.weight"]
    torch.save(model, tmp_path / "model.pth")
    assert not load_checkpoint(tmp_path / "model.pth").parameters.reference_energies.any()


def test_an_unsupported_stock_file_is_refused_with_its_path(tmp_path: Path) -> None:
    model = stock_content()["model"]
    model["model_args"]["non_linearity"] = "relu"
    torch.save({"model": model}, tmp_path / "model.pth.tar")
    with pytest.raises(ValueError, match=r"model\.pth\.tar: .*non_linearity='relu'"):
        load_checkpoint(tmp_path / "model.pth.tar")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_malicious_pickle_is_refused_and_its_code_not_run(tmp_path: Path, zipped: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "model.pth.tar"
    content = {"model": stock_content()["model"], "trainer_args": Malicious(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"model\.pth\.tar: "):
        load_checkpoint(path)
    assert not victim.exists()


def test_the_refusal_says_what_the_file_wants_and_how_to_trust_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save({"model": stock_content()["model"], "trainer_args": Malicious(tmp_path / "victim")}, path)
    with pytest.raises(ValueError, match=r"\.mkdir,.*can run any code.*load_checkpoint\(path, trust_pickle=True\)"):
        load_checkpoint(path)


def test_trust_pickle_loads_what_is_refused_without_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save({"model": stock_content()["model"], "trainer_args": {"save_dir": Path("runs")}}, path)
    with pytest.raises(ValueError, match="trust_pickle=True"):
        load_checkpoint(path)
    assert load_checkpoint(path, trust_pickle=True).config == load_checkpoint("0.3.0").config


def test_reading_a_stock_file_allows_nothing_for_the_rest_of_the_process(trained: Path) -> None:
    before = torch.serialization.get_safe_globals()
    load_checkpoint(trained)
    assert set(torch.serialization.get_safe_globals()) == set(before)  # torch keeps a set: its order means nothing
    with pytest.raises(pickle.UnpicklingError):
        torch.load(trained, weights_only=True)


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"not a checkpoint at all", b"\x80\x02", b"PK\x03\x04 broken", bytes(range(256))]
)
def test_a_file_that_torch_did_not_write_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.pth").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.pth: .*not written by torch\.save"):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("content", [{"weights": {}}, [1, 2]])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="no CHGNet in it"):
        load_checkpoint(tmp_path / "model.pth")
