"""Labels are read with the right units and signs from every kind of file; for its JSON, chgnet is the oracle."""

import gzip
import json
import logging
import lzma
import re
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa
from structures import STRUCTURES

from ase_fastchgnet.training.labels import Labelled, read_labelled

RANDOM = np.random.default_rng(0)


def labels_for(atoms: Atoms) -> dict[str, Any]:
    stress = RANDOM.normal(size=(3, 3))
    return {
        "energy": float(RANDOM.normal()),
        "forces": RANDOM.normal(size=(len(atoms), 3)),
        "stress": full_3x3_to_voigt_6_stress(stress + stress.T),
        "magmoms": RANDOM.normal(size=len(atoms)),
    }


def calculated(name: str, **labels: Any) -> Atoms:
    """The structure with these results, or with all kinds of them."""
    atoms = STRUCTURES[name].copy()
    atoms.info.clear()
    atoms.calc = SinglePointCalculator(atoms, **(labels or labels_for(atoms)))
    return atoms


def assert_same(one: Labelled, atoms: Atoms) -> None:
    """To the digits of an extended XYZ file."""
    results = atoms.calc.results
    assert one.atoms.calc is None
    assert one.atoms.info == {}
    np.testing.assert_array_equal(one.atoms.numbers, atoms.numbers)
    np.testing.assert_allclose(one.atoms.positions, atoms.positions, atol=1e-8)
    np.testing.assert_allclose(one.atoms.cell.array, atoms.cell.array, atol=1e-8)
    assert one.energy == pytest.approx(results["energy"], abs=1e-8)
    assert one.forces is not None
    assert one.stress is not None
    assert one.magmoms is not None
    np.testing.assert_allclose(one.forces, results["forces"], atol=1e-8)
    np.testing.assert_allclose(full_3x3_to_voigt_6_stress(one.stress), results["stress"], atol=1e-8)
    np.testing.assert_allclose(one.stress, one.stress.T)
    np.testing.assert_allclose(one.magmoms, np.abs(results["magmoms"]), atol=1e-8)


@pytest.mark.parametrize("ending", ["extxyz", "extxyz.gz", "extxyz.xz", "traj", "db"])
def test_what_ase_has_written_comes_back(tmp_path: Path, ending: str) -> None:
    frames = [calculated("LiMnO2"), calculated("MgO"), calculated("Si")]
    path = tmp_path / f"labelled.{ending}"
    if ending == "db":
        with ase.db.connect(path) as database:
            for frame in frames:
                database.write(frame)
    else:
        write(path, frames)
    labelled = read_labelled(path)
    assert len({one.source for one in labelled}) == len(frames)
    for one, frame in zip(labelled, frames, strict=True):
        assert_same(one, frame)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "part.extxyz"
    write(path, [calculated("MgO", forces=np.ones((8, 3))), calculated("Si", energy=1.0)])
    first, second = read_labelled(path)
    assert (first.energy, first.stress, first.magmoms) == (None, None, None)
    assert (second.energy, second.forces) == (1.0, None)


def test_nan_means_not_known_of_this_atom_and_of_all_atoms_not_known(tmp_path: Path) -> None:
    path = tmp_path / "nan.extxyz"
    forces = np.full((8, 3), np.nan)
    some = forces.copy()
    some[3] = 1.0
    write(path, [calculated("MgO", energy=np.nan, forces=forces), calculated("MgO", forces=some)])
    nothing, part = read_labelled(path)
    assert nothing.energy is None
    assert nothing.forces is None
    assert part.forces is not None
    np.testing.assert_array_equal(part.forces, some)


def test_labels_with_ref_before_their_names_come_first(tmp_path: Path) -> None:
    atoms = calculated("MgO", energy=1.0, forces=np.ones((8, 3)))
    atoms.info["REF_energy"] = 2.0
    atoms.arrays["REF_forces"] = np.full((8, 3), 2.0)
    atoms.info["REF_stress"] = np.diag([1.0, 2.0, 3.0])
    write(tmp_path / "ref.extxyz", atoms)
    (one,) = read_labelled(tmp_path / "ref.extxyz")
    assert one.energy == 2.0
    assert one.forces is not None
    assert (one.forces == 2.0).all()
    np.testing.assert_array_equal(one.stress, np.diag([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial"])
def test_a_virial_is_the_stress_times_minus_the_volume(tmp_path: Path, name: str) -> None:
    atoms = calculated("MgO", energy=1.0)
    atoms.info[name] = -atoms.get_volume() * np.diag([1.0, 2.0, 3.0])
    write(tmp_path / "virial.extxyz", atoms)
    (one,) = read_labelled(tmp_path / "virial.extxyz")
    np.testing.assert_allclose(one.stress, np.diag([1.0, 2.0, 3.0]), rtol=1e-7)


def test_there_is_no_stress_where_there_is_no_volume(tmp_path: Path) -> None:
    write(tmp_path / "slab.extxyz", calculated("slab without a third vector", energy=1.0, stress=np.ones(6)))
    (one,) = read_labelled(tmp_path / "slab.extxyz")
    assert one.stress is None


def test_the_correction_of_the_materials_project_is_added_and_its_absence_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_it, without = calculated("MgO", energy=1.0), calculated("Si", energy=1.0)
    with_it.info["mp2020_correction"] = -2.5
    write(tmp_path / "mixed.extxyz", [with_it, without])
    with caplog.at_level(logging.INFO):
        assert [one.energy for one in read_labelled(tmp_path / "mixed.extxyz")] == [-1.5, 1.0]
    assert "added to the energies of 1 structures" in caplog.text
    assert "1 of 2 structures have no mp2020_correction" in caplog.text


def mptrj_frame(atoms: Atoms, structure: dict[str, Any]) -> dict[str, Any]:
    """A frame of MPtrj's JSON with random labels: eV/atom, eV/Å, kilobar, μ_B."""
    n = len(atoms)
    stress = RANDOM.normal(scale=30, size=(3, 3))
    return {
        "structure": structure,
        "energy_per_atom": -5.0 + float(RANDOM.random()),
        "uncorrected_total_energy": 17.0,
        "force": RANDOM.normal(size=(n, 3)).tolist(),
        "stress": (stress + stress.T).tolist(),
        "magmom": RANDOM.normal(size=n).tolist(),
    }


@pytest.fixture(scope="module")
def mptrj() -> dict[str, dict[str, Any]]:
    """Two materials, three frames."""
    pymatgen = pytest.importorskip("pymatgen.io.ase")
    frames = []
    for name in ("LiMnO2", "LiMnO2 skewed", "MgO"):
        structure = pymatgen.AseAtomsAdaptor.get_structure(STRUCTURES[name])
        frames.append(mptrj_frame(STRUCTURES[name], structure.as_dict()))
    frames[1]["magmom"] = None
    return {"mp-1": {"mp-1-0-0": frames[0], "mp-1-0-1": frames[1]}, "mp-2": {"mp-2-0-0": frames[2]}}


def flat(mptrj: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame for frames in mptrj.values() for frame in frames.values()]


def test_chgnets_json_means_what_chgnets_own_reader_makes_of_it(tmp_path: Path, mptrj: Any) -> None:
    dataset = pytest.importorskip("chgnet.data.dataset")
    converter = pytest.importorskip("chgnet.graph").CrystalGraphConverter(atom_graph_cutoff=5, bond_graph_cutoff=3)
    path = tmp_path / "mptrj.json"
    path.write_text(json.dumps(mptrj))
    oracle = dataset.StructureJsonData(str(path), converter, shuffle=False)
    for number, one in enumerate(read_labelled(path)):
        graph, targets = oracle[number]
        np.testing.assert_allclose(
            one.atoms.get_scaled_positions(wrap=False), graph.atom_frac_coord.detach(), atol=1e-6
        )
        np.testing.assert_array_equal(one.atoms.numbers, graph.atomic_number)
        # float32 there
        assert one.energy == pytest.approx(float(targets["e"]) * len(one.atoms), rel=1e-6)
        np.testing.assert_allclose(one.forces, targets["f"], rtol=1e-6)
        assert one.stress is not None
        np.testing.assert_allclose(one.stress / GPa, targets["s"], rtol=1e-5)
        if targets["m"] is None:
            assert one.magmoms is None
        else:
            np.testing.assert_allclose(one.magmoms, targets["m"], rtol=1e-6)


def test_all_forms_of_chgnets_json_mean_the_same(tmp_path: Path, mptrj: Any) -> None:
    frames = flat(mptrj)
    columns = {key: [frame[key] for frame in frames] for key in frames[0]}
    forms = {"nested.json": mptrj, "list.json": frames, "columns.json": columns}
    for name, content in forms.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps(frames).encode()))
    (tmp_path / "list.json.xz").write_bytes(lzma.compress(json.dumps(frames).encode()))
    expected = read_labelled(tmp_path / "nested.json")
    for name in ("list.json", "columns.json", "list.json.gz", "list.json.xz"):
        for one, other in zip(read_labelled(tmp_path / name), expected, strict=True):
            assert one.energy == other.energy
            assert one.atoms == other.atoms
            for label in ("forces", "stress", "magmoms"):
                np.testing.assert_array_equal(getattr(one, label), getattr(other, label))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"forces": np.ones((7, 3))}, r"@1: forces: shape \(7, 3\), expected \(8, 3\)"),
        ({"energy": np.inf}, "@1: energy: infinite"),
    ],
)
def test_errors_name_the_structure(tmp_path: Path, labels: dict[str, Any], message: str) -> None:
    with ase.db.connect(tmp_path / "bad.db") as database:
        database.write(calculated("MgO", **labels))
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / "bad.db")


def test_a_file_without_labels_or_no_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "bare.extxyz", STRUCTURES["MgO"])
    with pytest.raises(ValueError, match="no energy, forces, stress or magnetic moments in any of 1 structures"):
        read_labelled(tmp_path / "bare.extxyz")
    with pytest.raises(ValueError, match="no such file"):
        read_labelled(tmp_path / "absent.extxyz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ('"text"', "this JSON is not chgnet's"),
        ('[{"energy_per_atom": 1.0}]', "@0: not a frame of chgnet's"),
    ],
)
def test_json_that_is_not_chgnets_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / "odd.json")


def test_partial_occupancy_is_refused(tmp_path: Path, mptrj: Any) -> None:
    frame = json.loads(json.dumps(flat(mptrj)[0]))
    frame["structure"]["sites"][0]["species"][0]["occu"] = 0.5
    (tmp_path / "shared.json").write_text(json.dumps([frame]))
    with pytest.raises(ValueError, match="@0: sites with partial occupancy"):
        read_labelled(tmp_path / "shared.json")


@pytest.mark.parametrize("name", ["frames.extxyz", "frames.extxyz.xz", "model.safetensors"])
def test_a_file_that_ase_cannot_read_is_named(tmp_path: Path, name: str) -> None:
    content = b"2\nProperties=species:S:1:pos:R:3\nSi 0 0 0\n"
    (tmp_path / name).write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: cannot be read by ase\.io: "):
        read_labelled(tmp_path / name)
