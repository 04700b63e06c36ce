"""The fastchgnet command through real processes: help, what it does, what it says, and how it ends."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from command import COMMAND, Run, environment, fastchgnet

from ase_fastchgnet import __version__, evaluate
from ase_fastchgnet.cli.app import app

COMMANDS = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
DISORDERED = """data_CuAu
_cell_length_a 3.9
_cell_length_b 3.9
_cell_length_c 3.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 0 0 0 0.5
Au1 0 0 0 0.5
Cu2 0.5 0.5 0 1
"""


def salt(seed: int = 1) -> Atoms:
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.rattle(0.1, seed=seed)
    return crystal


def silicon() -> Atoms:
    crystal = bulk("Si", "diamond", a=5.5)
    crystal.rattle(0.05, seed=2)
    return crystal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few structures, good and bad."""
    salt().write(tmp_path / "salt.cif")
    write(tmp_path / "POSCAR", silicon())
    write(tmp_path / "two.extxyz", [salt(2), salt(3)])
    bulk("Ar", "fcc", a=20).write(tmp_path / "lonely.vasp")
    americium = bulk("Cu", "fcc", a=4.9)
    americium.numbers[:] = 95
    americium.write(tmp_path / "americium.cif")
    (tmp_path / "disordered.cif").write_text(DISORDERED)
    (tmp_path / "damaged.cif").write_text("data_x\nnonsense")
    return tmp_path


def assert_ends_well(run: Run) -> None:
    assert run.code == 0, run.stderr
    assert "Traceback" not in run.stderr


def assert_wrong_usage(run: Run, *words: str) -> None:
    """Exit status 2, and the words somewhere in the box around the message."""
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.code == 2
    assert run.stdout == ""
    assert "Traceback" not in said
    assert all(word in said for word in words), said


def table(text: str) -> dict[str, list[float]]:
    """The numbers of each structure in a table."""
    lines = [line.split() for line in text.splitlines()[2:] if line.split()]
    return {line[-1]: [float("nan" if cell == "-" else cell) for cell in line[:-1]] for line in lines}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_fits_a_narrow_terminal(command: str, tmp_path: Path) -> None:
    run = fastchgnet(command, "--help", cwd=tmp_path)
    assert_ends_well(run)
    assert f"fastchgnet {command} " in run.stdout.partition("Examples:")[2]
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_help_and_wrong_usage_import_neither_torch_nor_ase(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ase_fastchgnet.cli import main\n"
        "sys.argv = ['fastchgnet', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'ase'} & sys.modules.keys(), sorted(sys.modules)"
    )
    for arguments in ["--help"], ["relax", "--help"], ["predict", "x.cif", "--out", "x.unknown"]:
        subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment(), check=True, capture_output=True
        )


def test_the_bare_command_lists_its_commands(tmp_path: Path) -> None:
    run = fastchgnet(cwd=tmp_path)
    assert all(f" {command} " in run.stdout + run.stderr for command in COMMANDS)


def test_version(tmp_path: Path) -> None:
    assert fastchgnet("--version", cwd=tmp_path).stdout == f"ase-fastchgnet {__version__}\n"


def test_predict_does_what_it_can_and_names_what_it_cannot(folder: Path) -> None:
    (folder / "empty").mkdir()
    files = ["*.cif", "POSCAR", "two.extxyz", "lonely.vasp", "missing.vasp", "nothing*.xyz", "empty"]
    run = fastchgnet("predict", *files, "--out", "new/results.json", cwd=folder)
    assert run.code == 1
    assert "Traceback" not in run.stderr
    said = run.stderr.splitlines()
    assert any(line.startswith("warning: lonely.vasp: atom 0 has no neighbour within 6 Å") for line in said)
    assert "5 structures evaluated, 6 failed:" in said
    for line in (
        "  americium.cif: atom 0 has atomic number 95 (Am)",
        "  disordered.cif: has sites with partial occupancy",
        "  damaged.cif: cannot be read: ",
        "  missing.vasp: no such file",
        "  nothing*.xyz: matches no file",
        "  empty: there is no file in this folder",
    ):
        assert any(one.startswith(line) for one in said), line

    records = json.loads((folder / "new" / "results.json").read_text())
    names = ["salt.cif", "POSCAR", "two.extxyz@0", "two.extxyz@1", "lonely.vasp"]
    assert [record["structure"] for record in records] == names
    assert list(table(run.stdout)) == names
    structures = [read(folder / "salt.cif"), silicon(), salt(2), salt(3), read(folder / "lonely.vasp")]
    with pytest.warns(UserWarning, match="no neighbour"):
        predictions = evaluate(structures)
    for record, prediction in zip(records, predictions, strict=True):
        # float32 in batches of other sizes, and coordinates with the digits of a file
        assert record["energy_eV"] == pytest.approx(prediction.energy, abs=1e-4)
        np.testing.assert_allclose(record["forces_eV_A"], prediction.forces, atol=1e-4)
        np.testing.assert_allclose(record["stress_eV_A3"], prediction.stress, atol=1e-5)
        np.testing.assert_allclose(record["magmoms_muB"], prediction.magmoms, atol=1e-4)
        assert record["pressure_GPa"] == pytest.approx(-np.mean(prediction.stress[:3]) * 160.21766, abs=1e-2)
    assert table(run.stdout)["POSCAR"][1] == pytest.approx(records[1]["energy_eV"], abs=1e-4)


def test_predict_on_a_terminal_draws_a_bar_and_keeps_it_out_of_a_pipe(folder: Path) -> None:
    leader, follower = pty.openpty()
    options = ["predict", "salt.cif", "two.extxyz@-1", "--dtype", "float64", "--out", "results.csv"]
    screen = environment() | {"TERM": "xterm"}
    shown = b""
    with subprocess.Popen(
        [*COMMAND, *options], cwd=folder, env=screen, stdout=subprocess.PIPE, stderr=follower
    ) as process:
        os.close(follower)
        printed = process.communicate()[0].decode()
        while not shown.endswith(b"structures evaluated\r\n"):
            shown += os.read(leader, 1000)
    os.close(leader)
    assert process.returncode == 0
    assert "━" in shown.decode()
    assert "━" not in printed
    assert list(table(printed)) == ["salt.cif", "two.extxyz@-1"]
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["structure"] for row in rows] == ["salt.cif", "two.extxyz@-1"]
    (exact,) = evaluate([salt(3)], dtype="float64")
    assert float(rows[1]["energy_eV"]) == pytest.approx(exact.energy, abs=1e-6)  # the digits of the extxyz file


def test_nothing_is_overwritten_and_suffixes_are_checked_before_the_work(folder: Path) -> None:
    before = (folder / "salt.cif").read_bytes()
    (folder / "old.csv").write_text("precious")
    for command in "predict", "relax":
        assert_wrong_usage(fastchgnet(command, "POSCAR", "--out", "old.csv", cwd=folder), "old.csv", "--overwrite")
    unknown = fastchgnet("predict", "POSCAR", "--out", "results.docx", cwd=folder)
    assert_wrong_usage(unknown, "unknown suffix '.docx'", ".csv, .json, .extxyz, .xyz, .traj")
    steps = fastchgnet("relax", "POSCAR", "--trajectory", "steps.cif", cwd=folder)
    assert_wrong_usage(steps, "--trajectory", "unknown suffix '.cif'")
    one = fastchgnet("relax", "two.extxyz", "--out", "relaxed.cif", cwd=folder)
    assert_wrong_usage(one, "relaxed.cif holds one structure, and there are 2")
    end = fastchgnet("neb", "POSCAR", "POSCAR", "--out", "salt.cif", cwd=folder)
    assert_wrong_usage(end, "salt.cif is a file; name a folder")
    assert (folder / "old.csv").read_text() == "precious"
    assert (folder / "salt.cif").read_bytes() == before


def test_a_model_or_device_that_is_not_there_is_wrong_usage(folder: Path) -> None:
    run = fastchgnet("predict", "POSCAR", "--model", "0.9", cwd=folder)
    assert_wrong_usage(run, "model '0.9' is neither a released model ('0.3.0', '0.2.0', 'r2scan') nor an existing file")
    assert_wrong_usage(fastchgnet("predict", "POSCAR", "--device", "tpu", cwd=folder), "'tpu' is not a device")


def test_relax_fills_a_folder_and_sums_up(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "POSCAR", silicon())
    files = ["salt.cif", "two.extxyz", "POSCAR", "sub/POSCAR", "americium.cif", "damaged.cif"]
    run = fastchgnet("relax", *files, "--out", "relaxed", "--fmax", "0.02", "--format", "extxyz", cwd=folder)
    assert run.code == 1
    assert "5 structures relaxed, 2 failed:" in run.stderr
    names = ["salt", "two_0", "two_1", "Si2", "sub-Si2"]
    assert {path.name for path in (folder / "relaxed").iterdir()} == {"summary.csv", *(f"{n}.extxyz" for n in names)}
    relaxed = [read(folder / "relaxed" / f"{name}.extxyz") for name in names]
    for prediction in evaluate(relaxed):
        assert np.linalg.norm(prediction.forces, axis=1).max() < 0.021
    with open(folder / "relaxed" / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["structure"] for row in rows] == ["salt.cif", "two.extxyz@0", "two.extxyz@1", "POSCAR", "sub/POSCAR"]
    for row, atoms in zip(rows, relaxed, strict=True):
        assert row["converged"] == "True"
        assert float(row["energy_eV"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert float(row["volume_A3"]) == pytest.approx(atoms.get_volume(), abs=1e-4)
    assert len({round(float(row["energy_eV"]), 3) for row in rows[:3]}) == 1  # one minimum from three starts

    again = fastchgnet("relax", "salt.cif", "--out", "relaxed", "--format", "extxyz", cwd=folder)
    assert_wrong_usage(again, "salt.extxyz exists")


def test_a_relaxation_that_does_not_converge_is_written_and_counts_as_failed(folder: Path) -> None:
    run = fastchgnet("relax", "POSCAR", "--steps", "2", "--out", "CONTCAR", "--trajectory", "steps.traj", cwd=folder)
    assert run.code == 1
    assert "POSCAR: not converged after 2 steps" in run.stderr
    steps = read(folder / "steps.traj", ":")
    assert len(steps) == 3
    np.testing.assert_allclose(read(folder / "CONTCAR").positions, steps[-1].positions, atol=1e-9)
    np.testing.assert_allclose(steps[0].positions, silicon().positions, atol=1e-9)


def test_when_everything_failed_nothing_is_written(folder: Path) -> None:
    run = fastchgnet("relax", "americium.cif", "--out", "relaxed.cif", cwd=folder)
    assert run.code == 1
    assert run.stdout == ""
    assert run.stderr.splitlines()[0] == "0 structures relaxed, 1 failed:"
    assert not list(folder.glob("*relaxed*"))


def test_neb_prints_the_barrier_and_writes_the_band(folder: Path) -> None:
    crystal = bulk("Li", "bcc", a=3.43, cubic=True) * (2, 2, 2)
    before, after = crystal.copy(), crystal.copy()
    after.positions[1] = crystal.positions[0]
    del before[0], after[0]
    before.write(folder / "before.vasp")
    after.write(folder / "after.vasp")
    options = ["--images", "1", "--relax-ends", "--fmax", "0.1", "--out", "hop"]
    run = fastchgnet("neb", "before.vasp", "after.vasp", *options, cwd=folder)
    assert_ends_well(run)
    barrier, reverse = map(float, re.findall(r"(\d\.\d{3}) eV", run.stdout))
    assert barrier == pytest.approx(reverse, abs=2e-3)
    band = read(folder / "hop" / "images.extxyz", ":")
    energies = [frame.get_potential_energy() for frame in band]
    assert barrier == pytest.approx(
        max(energies) - energies[0], abs=5e-3
    )  # the curve through them goes a little higher
    assert (folder / "hop" / "neb.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "hop" / "neb.json").read_text())["barrier_eV"] == pytest.approx(barrier, abs=1e-3)

    run = fastchgnet("neb", "before.vasp", "salt.cif", cwd=folder)
    assert run.code == 1
    assert run.stderr.splitlines()[-1] == "error: initial has 15 atoms and final has 2; a path needs the same atoms"


def test_info_names_versions_models_and_devices(folder: Path) -> None:
    run = fastchgnet("info", cwd=folder)
    assert_ends_well(run)
    assert f"ase-fastchgnet {__version__}" in run.stdout
    assert re.search(r"0\.2\.0 +5 Å +3 Å", run.stdout)
    assert "torch 2." in run.stdout
    assert "cpu" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80

    run = fastchgnet("info", "salt.cif", cwd=folder)
    assert run.code == 1
    assert run.stderr == ("error: salt.cif: unknown kind of file; expected .safetensors or stock .pth.tar, .pth, .pt\n")


def test_ctrl_c_ends_with_one_line_and_leaves_nothing_half_written(folder: Path) -> None:
    files = ["two.extxyz", "salt.cif", "--fmax", "1e-9", "--steps", "100000", "--out", "relaxed.extxyz"]
    with subprocess.Popen(
        [*COMMAND, "relax", *files], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("using FastCHGNet")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "interrupted"
    assert "Traceback" not in rest
    assert not [path for path in folder.iterdir() if "relaxed" in path.name or path.name.startswith(".")]
