"""A run that was interrupted and resumed is the run that was not, to the last bit."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from ase_fastchgnet import FastCHGNet, Thermo, md
from ase_fastchgnet.workflows.ensembles import ENSEMBLES
from ase_fastchgnet.workflows.restart import load
from tests.elastic_crystal import ElasticCrystal, salt

ROOT = Path(__file__).parents[2]
FILES = ("thermo.csv", "final.extxyz")


class Interrupted(Exception):
    """Stands for whatever stops a run."""


def stop_at(step: int) -> Callable[[int, float], None]:
    def tell(now: int, kelvin: float) -> None:
        if now == step:
            raise Interrupted

    return tell


def arguments(ensemble: str, steps: int = 23) -> dict[str, Any]:
    """Intervals and length have no common divisor, so that checkpoints, rows and frames fall on different steps."""
    chosen = ENSEMBLES[ensemble]
    return {
        "steps": steps,
        "ensemble": ensemble,
        "temperature": 600,
        "timestep": 2,
        "pressure": 2.0 if chosen.barostat else 0.0,
        "bulk_modulus": 25 if chosen.by_bulk_modulus else None,
        "trajectory_interval": 3,
        "log_interval": 2,
        "checkpoint_interval": 5,
    }


def same_bytes(a: Path, b: Path, trajectory: str = "trajectory.extxyz") -> None:
    for name in (trajectory, *FILES):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    with np.load(a / "checkpoint.npz") as one, np.load(b / "checkpoint.npz") as other:
        assert set(one) == set(other)
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name


def spring(**options: Any) -> Any:
    return md(salt(), ElasticCrystal(salt()), **options)


# One process for all, as each would spend most of its time on imports; what is killed are its children.
KILLED = """
import os, signal, sys
from pathlib import Path
from ase.build import bulk
from ase_fastchgnet import FastCHGNet, Thermo, md
from tests.workflows.test_restart import arguments

crystal, folder = bulk("NaCl", "rocksalt", a=5.64), Path(sys.argv[1])

def killed_at(last):
    def tell(step, kelvin):
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
    return tell

for ensemble in sys.argv[2:]:
    options = arguments(ensemble, steps=11)
    md(crystal, FastCHGNet(), out=folder / ensemble / "whole", **options)
    parts = folder / ensemble / "parts"
    for last in (7, 8):
        child = os.fork()
        if child == 0:
            md(crystal, FastCHGNet(), out=parts, resume=True, progress=killed_at(last), **options)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert (parts / "checkpoint.npz").exists() and not (parts / "final.extxyz").exists()
    md(crystal, FastCHGNet(), out=parts, resume=True, **options)
"""


@pytest.fixture(scope="module")
def killed_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For every ensemble, CHGNet in float32, "whole" and in "parts": SIGKILL after steps 7 and 8, a checkpoint at 5."""
    folder = tmp_path_factory.mktemp("killed")
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}  # threads would not survive the fork
    command = [sys.executable, "-c", KILLED, str(folder), *ENSEMBLES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_ensemble_that_is_killed_goes_on_as_if_nothing_had_happened(killed_runs: Path, ensemble: str) -> None:
    whole, parts = killed_runs / ensemble / "whole", killed_runs / ensemble / "parts"
    same_bytes(whole, parts)
    assert Thermo.read(parts / "thermo.csv").step.tolist() == list(range(0, 11, 2))
    frames: Any = read(parts / "trajectory.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 3, 6, 9]
    assert load(parts / "checkpoint.npz").step == 11


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_ensemble_goes_on_and_returns_the_same_result(tmp_path: Path, ensemble: str) -> None:
    """Interrupted by an exception, and read back from a .traj, whose numbers are not rounded."""
    options = arguments(ensemble) | {"trajectory_format": "traj"}
    whole = spring(out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        spring(out=tmp_path / "parts", progress=stop_at(13), **options)
    parts = spring(out=tmp_path / "parts", resume=True, **options)
    same_bytes(tmp_path / "whole", tmp_path / "parts", "trajectory.traj")
    for a, b in (parts.structure, whole.structure), (parts.frames()[-1], whole.frames()[-1]):
        for get in (Atoms.get_positions, Atoms.get_momenta, Atoms.get_forces, Atoms.get_cell):
            np.testing.assert_array_equal(get(a), get(b))
    assert parts.n_steps == whole.n_steps == 23


@pytest.mark.parametrize("step", range(24))
@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_it_may_be_interrupted_at_any_step(tmp_path: Path, step: int, suffix: str) -> None:
    options = arguments("nvt-langevin") | {"trajectory_format": suffix}
    spring(out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        spring(out=tmp_path / "parts", progress=stop_at(step), **options)
    for name in ("thermo.csv", f"trajectory.{suffix}"):  # what was being written when it was killed
        with open(tmp_path / "parts" / name, "ab") as file:
            file.write(b'8\nLattice="5.6')
    (tmp_path / "parts" / ".checkpoint.npz.unfinished").write_bytes(b"PK")
    spring(out=tmp_path / "parts", resume=True, **options)
    same_bytes(tmp_path / "whole", tmp_path / "parts", f"trajectory.{suffix}")
    frames: Any = read(tmp_path / "parts" / f"trajectory.{suffix}", ":")
    assert [frame.info["step"] for frame in frames] == list(range(0, 24, 3))


def test_a_long_traj_can_be_cut_where_its_list_of_frames_has_moved(tmp_path: Path) -> None:
    """ASE moves that list to the end of the file when it is full: after 1, 42 and 42² frames."""
    options = arguments("nve", steps=60) | {"trajectory_format": "traj", "trajectory_interval": 1}
    options["checkpoint_interval"] = 41
    spring(out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        spring(out=tmp_path / "parts", progress=stop_at(50), **options)
    spring(out=tmp_path / "parts", resume=True, **options)
    same_bytes(tmp_path / "whole", tmp_path / "parts", "trajectory.traj")
    frames: Any = read(tmp_path / "parts" / "trajectory.traj", ":")
    assert [frame.info["step"] for frame in frames] == list(range(61))


def test_a_finished_run_can_be_made_longer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    short = arguments("npt-mtk", steps=13)
    spring(out=tmp_path / "parts", **short)
    with caplog.at_level("INFO", logger="ase_fastchgnet"):
        spring(out=tmp_path / "parts", resume=True, **short | {"steps": 31})
    assert f"{tmp_path / 'parts'}: going on from step 13" in caplog.messages
    spring(out=tmp_path / "whole", **short | {"steps": 31})
    same_bytes(tmp_path / "whole", tmp_path / "parts")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    options = arguments("nvt-bussi")
    first = spring(out=tmp_path / "run", **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    again = spring(out=tmp_path / "run", resume=True, **options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    np.testing.assert_array_equal(again.structure.positions, first.structure.positions)
    assert again.structure.get_potential_energy() == first.structure.get_potential_energy()
    with pytest.raises(ValueError, match="steps=20, but the run to resume is at step 23 already"):
        spring(out=tmp_path / "run", resume=True, **options | {"steps": 20})


def test_what_is_there_is_not_replaced_unless_told_so(tmp_path: Path) -> None:
    options = arguments("nve")
    spring(out=tmp_path / "run", **options)
    kept = (tmp_path / "run" / "thermo.csv").read_bytes()
    with pytest.raises(FileExistsError, match=r"checkpoint\.npz exists; resume continues that run, overwrite replaces"):
        spring(out=tmp_path / "run", seed=5, **options)
    assert (tmp_path / "run" / "thermo.csv").read_bytes() == kept
    spring(out=tmp_path / "run", seed=5, overwrite=True, **options | {"trajectory_format": "traj"})
    assert (tmp_path / "run" / "thermo.csv").read_bytes() != kept
    assert not (tmp_path / "run" / "trajectory.extxyz").exists()
    (tmp_path / "run" / "checkpoint.npz").unlink()
    with pytest.raises(FileExistsError, match="there is no checkpoint to resume from"):
        spring(out=tmp_path / "run", resume=True, **options)
    with pytest.raises(ValueError, match="resume continues what is in the folder"):
        spring(resume=True, **options)
    with pytest.raises(ValueError, match="no overwrite"):
        spring(out=tmp_path / "run", resume=True, overwrite=True, **options)


def moved(atoms: Atoms) -> Atoms:
    atoms.positions[0, 0] += 1e-9
    return atoms


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 601}, r"temperature \(was 600, now 601\)"),
        (
            {"ensemble": "nvt-langevin", "seed": 3},
            r"ensemble \(was nvt-bussi, now nvt-langevin\), seed \(was 0, now 3\)",
        ),
        ({"timestep": 1.0}, r"timestep \(was 2, now 1\.0\)"),
        ({"log_interval": 1}, r"log_interval \(was 2, now 1\)"),
        ({"structure": moved(salt())}, "what differs: structure"),
        ({"calculator": FastCHGNet()}, "calculator \\(was ElasticCrystal, now FastCHGNet"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    options = {"structure": salt(), "calculator": ElasticCrystal(salt())} | arguments("nvt-bussi")
    md(**options, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"checkpoint.npz belongs to another run.*{message}"):
        md(**options | changes, out=tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_models_and_precisions_are_other_runs(tmp_path: Path) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    options: dict[str, Any] = {"steps": 1, "temperature": 300, "out": tmp_path}
    md(crystal, FastCHGNet(), **options)
    for other in FastCHGNet("0.2.0"), FastCHGNet(dtype="float64"):
        with pytest.raises(ValueError, match="what differs: calculator"):
            md(crystal, other, resume=True, **options)
    md(crystal, FastCHGNet(skin=0.5), resume=True, **options)  # which changes no result


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, or with a byte changed anywhere: an error that names it, or no difference at all."""
    options = arguments("nvt-bussi")
    spring(out=tmp_path / "run", **options)
    path = tmp_path / "run" / "checkpoint.npz"
    intact = path.read_bytes()
    with np.load(path) as file:
        good = {name: file[name].tobytes() for name in file}

    def damage() -> list[bytes]:
        cut = [intact[:size] for size in range(0, len(intact) - 1, 37)]
        places = range(0, len(intact), 11)
        return cut + [intact[:k] + bytes([intact[k] ^ 0x41]) + intact[k + 1 :] for k in places]

    def outcome(data: bytes) -> dict[str, np.ndarray] | str:
        path.write_bytes(data)
        try:
            return dict(load(path).arrays)
        except ValueError as error:
            return str(error)

    outcomes = [outcome(data) for data in damage()]
    errors = [found for found in outcomes if isinstance(found, str)]
    assert all(re.match(r".*checkpoint\.npz is no checkpoint that can be continued", error) for error in errors)
    assert len(errors) > 0.7 * len(outcomes)
    for found in outcomes:
        if not isinstance(found, str):
            assert all(good[name] == array.tobytes() for name, array in found.items())
    path.write_bytes(intact[:1000])
    with pytest.raises(ValueError, match="start the run again"):
        spring(out=tmp_path / "run", resume=True, **options)


def test_objects_in_a_checkpoint_are_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "checkpoint.npz", header=np.array(Trap(), dtype=object))
    with pytest.raises(ValueError, match="no checkpoint that can be continued"):
        spring(out=tmp_path, resume=True, **arguments("nve"))
    assert not (tmp_path / "sprung").exists()


def test_files_that_were_shortened_are_refused(tmp_path: Path) -> None:
    options = arguments("nve")
    spring(out=tmp_path, **options)
    (tmp_path / "trajectory.extxyz").write_text("")
    with pytest.raises(ValueError, match=r"trajectory\.extxyz is missing or shorter"):
        spring(out=tmp_path, resume=True, **options | {"steps": 40})


def test_resume_starts_a_run_that_has_not_begun(tmp_path: Path) -> None:
    spring(out=tmp_path / "a", resume=True, **arguments("nve"))
    spring(out=tmp_path / "b", **arguments("nve"))
    same_bytes(tmp_path / "a", tmp_path / "b")
