"""What a user may type for structures, and how each is called."""

import json
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from ase_fastchgnet.cli.inputs import read_structure, read_structures
from ase_fastchgnet.cli.report import Report


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a folder with ten frames of one lithium atom, 2.0 to 2.9 Å per cell edge."""
    monkeypatch.chdir(tmp_path)
    write("ten.extxyz", [Atoms("Li", cell=[2 + n / 10] * 3, pbc=True) for n in range(10)])


def names(*files: str) -> list[str]:
    return [one.name for one in read_structures(files, Report("read"))]


def edges(*files: str) -> list[float]:
    return [round(one.atoms.cell[0, 0], 6) for one in read_structures(files, Report("read"))]


def failures(*files: str) -> list[tuple[str, str]]:
    report = Report("read")
    list(read_structures(files, report))
    return report.failures


def test_all_frames_are_read_and_numbered() -> None:
    assert names("ten.extxyz") == [f"ten.extxyz@{n}" for n in range(10)]


@pytest.mark.parametrize(
    ("index", "found", "called"),
    [
        ("@3", [2.3], ["ten.extxyz@3"]),
        ("@-1", [2.9], ["ten.extxyz@-1"]),
        ("@:2", [2.0, 2.1], ["ten.extxyz@0", "ten.extxyz@1"]),
        ("@1::4", [2.1, 2.5, 2.9], ["ten.extxyz@1", "ten.extxyz@5", "ten.extxyz@9"]),
        ("@-2:", [2.8, 2.9], ["ten.extxyz@-2", "ten.extxyz@-1"]),
        ("@::-5", [2.9, 2.4], ["ten.extxyz@-1", "ten.extxyz@-6"]),
        ("@9:", [2.9], ["ten.extxyz@9:"]),
    ],
)
def test_an_index_takes_the_frames_that_python_would(index: str, found: list[float], called: list[str]) -> None:
    assert edges(f"ten.extxyz{index}") == found
    assert names(f"ten.extxyz{index}") == called


def test_the_name_of_a_frame_leads_to_it() -> None:
    for one in read_structures(["ten.extxyz@1::4", "ten.extxyz@-2:"], Report("read")):
        np.testing.assert_array_equal(read_structure(one.name).cell, one.atoms.cell)


def test_one_structure_is_the_last_unless_an_index_says_otherwise() -> None:
    assert read_structure("ten.extxyz").cell[0, 0] == pytest.approx(2.9)
    assert read_structure("ten.extxyz@0").cell[0, 0] == pytest.approx(2.0)


def test_a_glob_that_the_shell_has_not_expanded_is_expanded_in_order() -> None:
    for name in "b", "a", "c":
        bulk("Cu").write(f"{name}.cif")
    assert names("[ab].cif", "ten.extxyz@0") == ["a.cif", "b.cif", "ten.extxyz@0"]
    assert names("t*.extxyz@-1") == ["ten.extxyz@-1"]


def test_a_folder_means_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "crystals" / "deeper").mkdir(parents=True)
    for name in "b.cif", "a.vasp", ".hidden.cif", "deeper/c.cif":
        bulk("Cu").write(tmp_path / "crystals" / name)
    assert names("crystals") == ["crystals/a.vasp", "crystals/b.cif"]
    Path("empty").mkdir()
    assert failures("empty") == [("empty", "there is no file in this folder")]


def test_a_structure_of_a_database_or_of_a_line_is_called_by_its_id() -> None:
    with ase.db.connect("two.db") as database:
        database.write(Atoms("Li", cell=[2] * 3, pbc=True))
        database.write(Atoms("Na", cell=[4] * 3, pbc=True))
    line = {"id": "mp-1", "symbols": ["K"], "positions": [[0, 0, 0]], "cell": [[5, 0, 0], [0, 5, 0], [0, 0, 5]]}
    Path("two.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "id": "mp-2", "symbols": ["Rb"]}) + "\n")
    assert names("two.db", "two.jsonl") == ["1", "2", "mp-1", "mp-2"]
    assert names("two.jsonl@1:", "two.db@-1") == ["mp-2", "2"]
    assert str(read_structure("two.jsonl").symbols) == "Rb"
    assert str(read_structure("two.db@0").symbols) == "Li"
    assert failures("two.db@2") == [("two.db@2", "there is no structure 2 in it")]


def test_a_file_whose_name_looks_like_a_glob_or_an_index_is_that_file() -> None:
    bulk("Cu").write("a[1].cif")
    bulk("Cu").write("b@2.cif")
    assert names("a[1].cif", "b@2.cif") == ["a[1].cif", "b@2.cif"]
    assert len(read_structure("b@2.cif")) == 1


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("none.cif", "no such file"),
        ("*.none", "matches no file"),
        ("ten.extxyz@12", "there is no frame 12 in it"),
        ("ten.extxyz@last", "@last is no index; use @3, @-1, @:10 or @::5"),
        ("ten.extxyz@1:2:3:4", "@1:2:3:4 is no index; use @3, @-1, @:10 or @::5"),
    ],
)
def test_what_cannot_be_read_is_reported_with_the_reason(file: str, why: str) -> None:
    assert failures(file) == [(file, why)]
    with pytest.raises(ValueError, match="^" + file.replace("*", r"\*").replace(".", r"\.") + ": "):
        read_structure(file)


def test_one_bad_file_does_not_keep_others_from_being_read() -> None:
    Path("damaged.cif").write_text("data_x\nnonsense")
    Path("text.txt").write_text("not a structure")
    report = Report("read")
    found = list(read_structures(["damaged.cif", "ten.extxyz@0", "text.txt", "ten.extxyz@1"], report))
    assert [one.name for one in found] == ["ten.extxyz@0", "ten.extxyz@1"]
    assert [name for name, _ in report.failures] == ["damaged.cif", "text.txt"]
    assert all(why.startswith("cannot be read: ") and "\n" not in why for _, why in report.failures)


def test_full_occupancies_in_a_cif_are_no_reason_to_refuse_it() -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.write("salt.cif")
    assert "_atom_site_occupancy" in Path("salt.cif").read_text()
    (one,) = read_structures(["salt.cif"], Report("read"))
    assert one.atoms.get_chemical_formula() == "ClNa"
    assert not one.atoms.info  # symmetry as it was in the file would be wrong once atoms have moved
