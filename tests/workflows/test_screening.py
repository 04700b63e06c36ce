"""evaluate_many and screen: the calculator's numbers, in order, from any source; what fails fails alone."""

import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from structures import STRUCTURES, named

from ase_fastchgnet import FastCHGNet, Prediction, evaluate, evaluate_many, screen
from ase_fastchgnet.evaluation import backend
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.graph.size import Size, size_of

SMALL = named(lambda atoms: len(atoms) <= 14 and bool(atoms.pbc.all()))
QUIET = {"on_isolated_atoms": "ignore"}


@pytest.fixture(scope="module")
def crystals() -> dict[str, Atoms]:
    return {name: STRUCTURES[name] for name in SMALL}


def assert_same(found: Prediction | None, wanted: Prediction, tolerance: float) -> None:
    assert found is not None
    for name, value in wanted.results().items():
        np.testing.assert_allclose(found.results()[name], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("devices", [None, 2])
def test_each_result_is_that_of_the_calculator_in_order(crystals: dict[str, Atoms], devices: int | None) -> None:
    calculator = FastCHGNet(dtype="float64", **QUIET)
    found = list(evaluate_many(crystals.items(), calculator, devices=devices))
    assert [one.id for one in found] == list(crystals)
    assert [one.index for one in found] == list(range(len(crystals)))
    for one, atoms in zip(found, crystals.values(), strict=True):
        atoms = atoms.copy()
        atoms.calc = FastCHGNet(dtype="float64", **QUIET)
        atoms.get_stress()
        assert one.prediction is not None
        for name, value in one.prediction.results().items():
            np.testing.assert_allclose(value, atoms.calc.results[name], rtol=0, atol=1e-10)


def test_in_float32_results_differ_by_their_noise(crystals: dict[str, Atoms]) -> None:
    found = evaluate_many(crystals.values(), FastCHGNet(**QUIET))
    predictions = evaluate(crystals.values(), **QUIET)
    for one, atoms, wanted in zip(found, crystals.values(), predictions, strict=True):
        assert one.prediction is not None
        # chunks round otherwise: as much as float32 itself differs from float64, docs/accuracy.md
        assert one.prediction.energy == pytest.approx(wanted.energy, abs=4e-6 * len(atoms))
        np.testing.assert_allclose(one.prediction.forces, wanted.forces, atol=5e-4)


def test_nothing_is_read_ahead_of_what_is_asked_for() -> None:
    taken = 0

    def source() -> Any:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield bulk("NaCl", "rocksalt", a=5.6)

    stream = evaluate_many(source())
    next(stream)
    assert taken < 500
    stream.close()  # type: ignore[attr-defined]


def test_what_fails_has_an_error_and_the_others_have_results() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6)
    nan = salt.copy()
    nan.positions[0, 0] = np.nan
    sources = {
        "good": salt,
        "nan": nan,
        "einsteinium": Atoms("Es", cell=[5, 5, 5], pbc=True),
        "flat": Atoms("Li", cell=[[3, 0, 0], [3, 1e-9, 0], [0, 0, 3]], pbc=True),
        "overlap": Atoms("He2", positions=[[0, 0, 0], [0, 0, 0.001]]),
        "empty": Atoms(),
        "good too": salt,
    }
    for devices in (None, 1):
        found = {one.id: one for one in evaluate_many(sources.items(), devices=devices)}
        assert list(found) == list(sources)
        assert {name for name, one in found.items() if one.error} == set(sources) - {"good", "good too"}
        for word, name in [("finite", "nan"), ("99", "einsteinium"), ("closer than", "overlap"), ("no atoms", "empty")]:
            assert word in str(found[name].error)
        assert_same(found["good too"].prediction, evaluate([salt])[0], 1e-5)


def test_isolated_atoms_are_told_by_the_name_of_their_structure() -> None:
    lonely = Atoms("Ar2", positions=[[1, 1, 1], [1, 1, 12]])
    for devices in (None, 1):
        with pytest.warns(UserWarning, match=r"^pair: atoms 0, 1 have no neighbour"):
            (one,) = evaluate_many([("pair", lonely)], devices=devices)
        assert one.prediction is not None
    (one,) = evaluate_many([("pair", lonely)], FastCHGNet(on_isolated_atoms="error"))
    assert str(one.error).startswith("atoms 0, 1 have no neighbour")


def test_energies_alone_cost_no_gradient(crystals: dict[str, Atoms]) -> None:
    (one,) = evaluate_many([crystals["NaCl"]], properties=["energy"])
    assert one.prediction is not None
    assert one.prediction.forces is None
    with pytest.raises(ValueError, match="expected a collection"):
        evaluate_many([crystals["NaCl"]], properties="energy")


def test_a_batch_too_large_for_memory_is_halved_until_it_fits(
    crystals: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The memory is that of a device that holds 3,000 edges and angles; LiMnO2 twice has more than that alone."""
    limit, refused = 3000, []
    evaluate_all = backend.Backend.evaluate

    def small_memory(self: backend.Backend, graph: Any) -> Any:
        if graph.n_edges + graph.n_angles > limit:
            refused.append(graph.n_systems)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return evaluate_all(self, graph)

    structures = [*list(crystals.values())[:20], crystals["LiMnO2"].repeat(2)]
    wanted = evaluate(structures, **QUIET)
    monkeypatch.setattr(backend.Backend, "evaluate", small_memory)
    found = list(evaluate_many(structures, FastCHGNet(**QUIET)))
    assert max(refused) > 1
    fits = [size_of(atoms, Cutoffs()).edges + size_of(atoms, Cutoffs()).angles <= limit for atoms in structures]
    assert fits[0]
    assert not fits[-1]
    for one, prediction, fit in zip(found, wanted, fits, strict=True):
        if fit:
            assert_same(one.prediction, prediction, 1e-3)
        else:
            assert "do not fit into the memory of cpu" in str(one.error)
    with pytest.raises(MemoryError, match=r"system \d+: .* do not fit"):
        evaluate(structures, **QUIET)


def test_sizes_are_those_of_the_graph() -> None:
    for atoms in STRUCTURES.values():
        graph = build_batch([atoms], Cutoffs())
        assert size_of(atoms, Cutoffs()) == Size(1, graph.n_atoms, graph.n_edges, graph.n_angles)


def write_extxyz(folder: Path, crystals: dict[str, Atoms]) -> Path:
    ase.io.write(folder / "all.extxyz", list(crystals.values()))
    return folder / "all.extxyz"


def write_traj(folder: Path, crystals: dict[str, Atoms]) -> Path:
    ase.io.write(folder / "all.traj", list(crystals.values()))
    return folder / "all.traj"


def write_cifs(folder: Path, crystals: dict[str, Atoms]) -> Path:
    (folder / "cifs").mkdir()
    for number, atoms in enumerate(crystals.values()):
        ase.io.write(folder / "cifs" / f"{number:03d}.cif", atoms)
    return folder / "cifs"


def write_database(folder: Path, crystals: dict[str, Atoms]) -> Path:
    with ase.db.connect(folder / "all.db") as database:
        for atoms in crystals.values():
            database.write(atoms)
    return folder / "all.db"


def write_plain_lines(folder: Path, crystals: dict[str, Atoms]) -> Path:
    lines = [
        json.dumps(
            {"id": name, "structure": {key: np.asarray(value).tolist() for key, value in atoms.todict().items()}}
        )
        for name, atoms in crystals.items()
    ]
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "all.jsonl"


def write_pymatgen_lines(folder: Path, crystals: dict[str, Atoms]) -> Path:
    ase_io = pytest.importorskip("pymatgen.io.ase", reason="pymatgen is an extra")
    structures = [ase_io.AseAtomsAdaptor.get_structure(Atoms(atoms)) for atoms in crystals.values()]
    (folder / "all.jsonl").write_text("".join(json.dumps(structure.as_dict()) + "\n" for structure in structures))
    return folder / "all.jsonl"


WRITERS = [write_extxyz, write_traj, write_cifs, write_database, write_plain_lines, write_pymatgen_lines]


@pytest.mark.parametrize("write", WRITERS)
def test_every_source_gives_the_same_structures(
    write: Callable[[Path, dict[str, Atoms]], Path], crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    chosen = {name: crystals[name] for name in SMALL[:6]}
    wanted = evaluate(chosen.values(), dtype="float64", **QUIET)
    found = list(evaluate_many(write(tmp_path, chosen), FastCHGNet(dtype="float64", **QUIET)))
    assert len({one.id for one in found}) == len(chosen)
    for one, prediction in zip(found, wanted, strict=True):
        assert one.prediction is not None
        # a CIF has eight decimals, and six of a cell's length; an energy's slope is a few eV/Å per atom
        assert one.prediction.energy == pytest.approx(prediction.energy, abs=1e-4)


def test_what_cannot_be_read_is_an_error_with_its_place(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "good.vasp", bulk("NaCl", "rocksalt", a=5.6))
    (tmp_path / "broken.vasp").write_text("nonsense\n1.0\n1 0 0\n")
    found = {Path(one.id).name: one for one in evaluate_many(tmp_path)}
    assert found["good.vasp"].prediction is not None
    assert "cannot be read" in str(found["broken.vasp"].error)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"id": "x", "structure": {"numbers": [3], "positions": [[0, 0, 0]]}}\nnonsense\n{"id": "y"}\n')
    first, second, third = evaluate_many(lines, FastCHGNet(**QUIET))
    assert (first.id, first.error) == ("x", None)
    assert second.id.endswith("lines.jsonl@1")
    assert str(second.error).startswith("line 2 holds no structure")
    assert (third.id, third.prediction) == ("y", None)
    (missing,) = evaluate_many(tmp_path / "nowhere.cif")
    assert missing.error == "no such file"


def records_of(out: Path) -> list[dict[str, Any]]:
    """What is in a result file, in the order of the source."""
    if out.suffix == ".jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
    elif out.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
        found = parquet.read_table(out).to_pylist()
    else:
        found = []
        for atoms in ase.io.iread(out, ":"):
            results = atoms.calc.results
            found.append({"index": atoms.info["index"], "id": atoms.info["id"], "energy_eV": results["energy"]})
            found[-1] |= {"forces_eV_A": results["forces"], "magmoms_muB": results["magmoms"]}
    return sorted(found, key=lambda record: record["index"])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".extxyz"])
def test_results_on_disk_are_those_of_evaluate(suffix: str, crystals: dict[str, Atoms], tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    out = tmp_path / f"results{suffix}"
    done = screen(list(crystals.items()), out, FastCHGNet(dtype="float64", **QUIET))
    assert (done.n_done, done.failures, done.n_skipped) == (len(crystals), [], 0)
    records = records_of(out)
    assert [record["id"] for record in records] == list(crystals)
    decimals = 1e-7 if suffix == ".extxyz" else 1e-10
    for record, wanted in zip(records, evaluate(crystals.values(), dtype="float64", **QUIET), strict=True):
        assert record["energy_eV"] == pytest.approx(wanted.energy, abs=decimals)
        np.testing.assert_allclose(record["forces_eV_A"], wanted.forces, rtol=0, atol=decimals)
        np.testing.assert_allclose(record["magmoms_muB"], wanted.magmoms, rtol=0, atol=decimals)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".extxyz"])
def test_a_torn_end_is_cut_and_only_what_is_missing_is_evaluated(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    source = [(f"salt {n}", bulk("NaCl", "rocksalt", a=5.5 + 0.01 * n)) for n in range(12)]
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"results{suffix}"
    screen(source, whole)
    screen(source[:7], out)
    if suffix == ".parquet":
        (out / ".part-000009.unfinished").write_bytes(b"PAR1 torn")
    else:
        out.write_bytes(out.read_bytes()[:-9])  # into the last record
    again = screen(source, out, resume=True)
    torn = suffix != ".parquet"
    assert (again.n_skipped, again.n_done) == (7 - torn, 12)
    assert again.n_atoms == 2 * (5 + torn)
    assert [record["id"] for record in records_of(out)] == [name for name, _ in source]
    for record, wanted in zip(records_of(out), records_of(whole), strict=True):
        assert record["energy_eV"] == pytest.approx(wanted["energy_eV"], abs=1e-5)
    assert screen(source, out, resume=True).n_atoms == 0


@pytest.mark.parametrize("suffix", [".jsonl", ".extxyz"])
def test_a_disk_that_gets_full_ends_the_run_with_what_is_finished(suffix: str, tmp_path: Path) -> None:
    """A limit to the size of files stands for the disk: it makes the same system calls fail in the same way."""
    source = [(f"salt {n}", bulk("NaCl", "rocksalt", a=5.5 + 0.01 * n)) for n in range(250)]  # more than a chunk
    out = tmp_path / f"results{suffix}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (130_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"free some space, and resume.*results") as full:
            screen(source, out, progress=False)
        assert full.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    done = screen(source, out, resume=True)
    assert done.n_skipped > 0
    assert [record["id"] for record in records_of(out)] == [name for name, _ in source]


def test_failures_are_on_disk_and_in_the_summary(tmp_path: Path) -> None:
    source = [("good", bulk("NaCl", "rocksalt", a=5.6)), ("bad", Atoms("He2", positions=[[0, 0, 0], [0, 0, 0.001]]))]
    done = screen(source, tmp_path / "results.jsonl")
    assert done.n_done == 1
    ((name, why),) = done.failures
    assert name == "bad"
    good, bad = records_of(tmp_path / "results.jsonl")
    assert "energy_eV" in good
    assert bad["error"] == why
    assert screen(source, tmp_path / "results.jsonl", resume=True).n_skipped == 2


def test_what_is_wrong_with_the_output_is_said_before_the_work(tmp_path: Path) -> None:
    def source() -> Any:
        raise AssertionError("the work has begun")
        yield

    taken = tmp_path / "taken.jsonl"
    screen([("a", bulk("NaCl", "rocksalt", a=5.6))], taken)
    with pytest.raises(FileExistsError, match="resume continues it, overwrite replaces it"):
        screen(source(), taken)
    with pytest.raises(ValueError, match=r"unknown suffix '.xlsx'; results go to .jsonl, .extxyz, .parquet"):
        screen(source(), tmp_path / "results.xlsx")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(OSError, match=r"folder\.jsonl"):
        screen(source(), tmp_path / "folder.jsonl", overwrite=True)
    with pytest.raises(ValueError, match="devices and executor"):
        screen(source(), tmp_path / "new.jsonl", devices=1, executor=object())  # type: ignore[arg-type]


def test_results_of_another_source_are_not_continued(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    screen([("a", bulk("NaCl", "rocksalt", a=5.6))], out)
    with pytest.raises(ValueError, match=r"belongs to another source: its structure 0 is 'a' .*, this one's is 'b'"):
        screen([("b", bulk("NaCl", "rocksalt", a=5.6))], out, resume=True)


def test_results_of_another_model_are_not_continued(tmp_path: Path) -> None:
    source = [("a", bulk("NaCl", "rocksalt", a=5.6)), ("b", bulk("Si"))]
    for out in tmp_path / "results.jsonl", tmp_path / "results.extxyz":
        screen(source[:1], out)
        for other in FastCHGNet("r2scan"), FastCHGNet(dtype="float64"):
            with pytest.raises(
                ValueError, match=r"has results of 0.3.0, float32, and these would be of (r2scan|0.3.0)"
            ):
                screen(source, out, other, resume=True)
        with pytest.raises(ValueError, match="energies only"):
            screen(source, out, properties=["energy"], resume=True)
        with pytest.raises(ValueError, match="belongs to another source"):
            screen([("a", bulk("KCl", "rocksalt", a=6.3))], out, resume=True)
        assert screen(source, out, resume=True).n_skipped == 1


def test_an_id_that_looks_like_a_number_is_resumed(tmp_path: Path) -> None:
    source = [(name, bulk("NaCl", "rocksalt", a=5.6)) for name in ("00001", "1e5", "T")]
    for suffix in ".jsonl", ".extxyz":
        screen(source, tmp_path / f"results{suffix}")
        assert screen(source, tmp_path / f"results{suffix}", resume=True).n_skipped == 3


def test_the_source_is_safe_from_the_results(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    screen([("a", bulk("NaCl", "rocksalt", a=5.6))], out)
    before = out.read_bytes()
    for source in out, [out], tmp_path, str(tmp_path / "*.jsonl"):
        with pytest.raises(ValueError, match="is in the source"):
            screen(source, out, overwrite=True)
    with pytest.raises(ValueError, match="devices='Auto'"):
        screen([], out, devices="Auto", overwrite=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose one"):
        screen([], out, resume=True, overwrite=True)
    assert out.read_bytes() == before


def test_a_damaged_line_or_file_is_one_failure(tmp_path: Path) -> None:
    good = {"symbols": ["Si"], "positions": [[0, 0, 0]], "cell": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}
    lines = [json.dumps({**good, "id": str(n)}).encode() for n in range(5)]
    lines[2] = lines[2].replace(b'"2"', b'"\xe9"')
    lines[3] = json.dumps({"symbols": [], "positions": [], "cell": good["cell"], "id": "3"}).encode()
    (tmp_path / "some.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "damaged.db").write_bytes(b"SQLite format 3\0 and nonsense" * 50)
    found = list(evaluate_many([tmp_path / "damaged.db", tmp_path / "some.jsonl"], progress=None))
    assert [one.error is None for one in found] == [False, True, True, False, False, True]
    assert "no atoms" in str(found[4].error)


def test_overwriting_replaces_everything(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    screen([("a", bulk("NaCl", "rocksalt", a=5.6)), ("b", bulk("Si"))], out)
    screen([("c", bulk("Si"))], out, overwrite=True)
    assert [record["id"] for record in records_of(out)] == ["c"]


def test_an_empty_source_is_no_error(tmp_path: Path) -> None:
    assert list(evaluate_many([])) == []
    done = screen([], tmp_path / "results.jsonl")
    assert (done.n_done, done.balance) == (0, 1.0)


def test_a_single_structure_is_no_source() -> None:
    with pytest.raises(TypeError, match=r"\[atoms\] for a single one"):
        list(evaluate_many(bulk("Si")))
