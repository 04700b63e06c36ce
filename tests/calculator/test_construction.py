"""The constructor: checks, side effects, device, what it shows of itself."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms

from ase_fastchgnet import FastCHGNet, load_checkpoint
from ase_fastchgnet.model.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[2]

SILENT = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import ase_fastchgnet
assert "torch" not in sys.modules, "import ase_fastchgnet imports torch"
assert "FastCHGNet" in dir(ase_fastchgnet)
calc = ase_fastchgnet.FastCHGNet()
calc.set_atoms(__import__("ase.build").build.bulk("Cu"))
repr(calc)
weights = [path for path in opened if "pretrained" in path]
assert not weights, weights
assert not __import__("torch").cuda.is_initialized()
"""


def test_importing_is_light_and_constructing_prints_nothing_and_loads_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SILENT],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "PATH": "", "OMP_NUM_THREADS": "1"},
        cwd="/",
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "0.4.0"}, ValueError, "neither a released model .* nor an existing file"),
        ({"model": "no/such/file.pth.tar"}, ValueError, "nor an existing file"),
        ({"model": 0.3}, TypeError, "released name, a path or a Checkpoint, got float"),
        ({"dtype": "float16"}, ValueError, "dtype='float16' is not one of 'float32', 'float64'"),
        ({"forces": "direct", "backend": "reference"}, ValueError, "has no direct forces"),
        ({"forces": "exact"}, ValueError, "forces='exact' is not one of 'conservative', 'direct'"),
        ({"backend": "triton", "device": "cpu"}, ValueError, "does not run on 'cpu'; use 'auto'"),
        ({"tf32": True, "dtype": "float64"}, ValueError, "tf32=True rounds products of float32 .* dtype is 'float64'"),
        (
            {"tf32": True, "device": "cpu"},
            ValueError,
            "tf32=True is for Triton's kernels, and backend 'torch' has none",
        ),
        ({"tf32": True, "backend": "reference"}, ValueError, "backend 'reference' has none; use a CUDA device"),
        ({"tf32": True, "backend": "torch"}, ValueError, "backend 'torch' has none"),
        ({"backend": "jax"}, ValueError, "backend='jax' is not one of"),
        ({"device": "gpu"}, ValueError, "device='gpu' is not a device; use 'cpu', 'cuda' or 'cuda:N'"),
        ({"device": "cuda:first"}, ValueError, "is not a device"),
        ({"on_isolated_atoms": "maybe"}, ValueError, "on_isolated_atoms='maybe' is not one of"),
        ({"skin": -1.0}, ValueError, "expected a length of 0 Å or more"),
        ({"skin": float("nan")}, ValueError, "expected a length of 0 Å or more"),
        ({"cutoff": 5.0}, TypeError, "cutoff"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        FastCHGNet(**options)


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError):
        FastCHGNet("0.3.0", "cpu")


def test_stress_weight_is_ignored_with_a_warning(salt: Atoms) -> None:
    with pytest.warns(UserWarning, match="stress_weight is ignored"):
        calc = FastCHGNet(stress_weight=0.01)
    assert (calc.get_stress(salt) == FastCHGNet().get_stress(salt)).all()


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch, salt: Atoms) -> None:
    monkeypatch.setenv("FASTCHGNET_DEVICE", "cpu")
    calc = FastCHGNet()
    calc.get_potential_energy(salt)
    assert "device='cpu'" in repr(calc)
    monkeypatch.setenv("FASTCHGNET_DEVICE", "gpu")
    with pytest.raises(ValueError, match="FASTCHGNET_DEVICE='gpu' is not a device"):
        FastCHGNet()
    assert "device='cpu'" in repr(FastCHGNet(device="cpu"))  # the argument wins


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named_at_first_use(monkeypatch: pytest.MonkeyPatch, salt: Atoms) -> None:
    with pytest.raises(RuntimeError, match=r"device 'cuda' is not available: .*use device='cpu'"):
        FastCHGNet(device="cuda").get_potential_energy(salt)
    monkeypatch.setenv("FASTCHGNET_DEVICE", "cuda:3")
    with pytest.raises(RuntimeError, match="device 'cuda:3' is not available"):
        FastCHGNet().get_potential_energy(salt)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_tf32_without_a_device_is_refused_once_there_turns_out_to_be_no_gpu(salt: Atoms) -> None:
    calc = FastCHGNet(tf32=True)
    with pytest.raises(ValueError, match=r"backend 'torch' has none; use a CUDA device"):
        calc.get_potential_energy(salt)


def test_tf32_is_shown() -> None:
    calc = FastCHGNet(tf32=True, device="cuda")
    assert repr(calc) == "FastCHGNet('0.3.0', device='cuda', dtype='float32', backend='triton', tf32=True)"
    assert calc.todict()["tf32"]
    assert calc.chunk_options().describe() == "0.3.0, tf32"
    assert copy.copy(calc).parameters == calc.parameters
    assert "tf32" not in repr(FastCHGNet())


def test_repr_shows_model_device_dtype_and_backend(salt: Atoms) -> None:
    calc = FastCHGNet("r2scan", dtype="float64", device="cpu")
    assert repr(calc) == "FastCHGNet('r2scan', device='cpu', dtype='float64', backend='torch')"
    assert "device='auto'" in repr(FastCHGNet())
    calc = FastCHGNet(backend="reference", device="cpu")
    calc.get_potential_energy(salt)
    assert repr(calc) == "FastCHGNet('0.3.0', device='cpu', dtype='float32', backend='reference')"


def test_backends_agree(salt: Atoms) -> None:
    engine, reference = FastCHGNet(dtype="float64"), FastCHGNet(dtype="float64", backend="reference")
    assert abs(engine.get_forces(salt) - reference.get_forces(salt)).max() < 1e-10
    assert abs(engine.get_stress(salt) - reference.get_stress(salt)).max() < 1e-12
    assert abs(engine.site_embeddings(salt) - reference.site_embeddings(salt)).max() < 1e-10


def test_a_model_may_be_a_path_or_a_checkpoint(tmp_path: Path, salt: Atoms) -> None:
    checkpoint = load_checkpoint("0.2.0")
    save_checkpoint(checkpoint, tmp_path / "mine.safetensors")
    energies = [
        FastCHGNet(model).get_potential_energy(salt)
        for model in ("0.2.0", checkpoint, tmp_path / "mine.safetensors", str(tmp_path / "mine.safetensors"))
    ]
    assert len(set(energies)) == 1


def test_parameters_name_the_architecture_for_janus_and_are_json() -> None:
    calc = FastCHGNet()
    assert calc.parameters["arch"] == "fastchgnet"
    assert calc.name == "fastchgnet"
    description = json.loads(json.dumps(calc.todict()))
    assert description["model"] == "0.3.0"
    assert description["model_sha256"] == load_checkpoint("0.3.0").sha256


def test_calculators_are_hashable_and_only_equal_to_themselves() -> None:
    # ASE's NEB tells by a set of calculators whether images share one.
    first, second = FastCHGNet(), FastCHGNet()
    assert len({first, second}) == 2


@pytest.mark.parametrize("number", [95, 118, 0])
def test_elements_that_chgnet_does_not_know_are_refused_when_attached(number: int) -> None:
    atoms = Atoms([6, number], positions=[[0, 0, 0], [0, 0, 2]])
    with pytest.raises(ValueError, match=rf"atom 1 has atomic number {number}"):
        atoms.calc = FastCHGNet()


def test_elements_changed_after_attaching_are_refused_too(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    salt.numbers[3] = 95
    with pytest.raises(ValueError, match=r"atom 3 .*95"):
        salt.get_potential_energy()


def test_plutonium_is_known() -> None:
    atoms = Atoms("PuO", positions=[[0, 0, 0], [0, 0, 1.9]])
    atoms.calc = FastCHGNet()
    assert atoms.get_forces().shape == (2, 3)
