"""`fastchgnet tune`: how the central operations are cut up on this machine, measured and kept."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .inputs import read_structure
from .options import Device, Dtype, Model

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.model.engine.gated_ops import Op
    from fastchgnet_kernels.io_model.tuner import Tuning

REPEATS = (2, 4)  # of the cubic cell of MgO, 8 atoms, where no structure is given


def tune(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILES]", help="Structures of the sizes to tune for.", show_default=False),
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", metavar="", help="Measure everything too, and compare.")
    ] = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Measure how best to cut up the central operations on this machine; later calculations use it.

    Examples:
      fastchgnet tune
      fastchgnet tune POSCAR --exhaustive

    Without this, a model of the machine decides; `--exhaustive` shows how near the best that is. Of each operation
    the tables show what it can be cut into, fastest first: the bytes that the model expects to move, how many times
    the least possible that is, and the time for forward and backward pass, predicted and measured (of a short list).
    Without FILES it tunes for crystals of MgO with 64 and 512 atoms. Nothing else should run meanwhile.
    """
    from ase_fastchgnet.evaluation import load_backend
    from ase_fastchgnet.graph import build_batch
    from ase_fastchgnet.model.engine.gated_ops import gated_ops
    from ase_fastchgnet.model.engine.tuning import keep, tune_op
    from ase_fastchgnet.model.engine.weights import pack

    try:
        backend = load_backend(model, dtype=dtype, device=device)
    except (ValueError, OSError, RuntimeError) as error:  # torch says with RuntimeError that a device is missing
        raise typer.BadParameter(str(error)) from error
    where = backend.device
    weights = pack(backend.checkpoint, backend.dtype, str(where))
    for name, atoms in _structures(files or []):
        for op in gated_ops(build_batch([atoms], backend.cutoffs).to(where), weights):
            tuning = tune_op(op, where)
            everything = tune_op(op, where, exhaustive=True) if exhaustive else None
            _show(name, op, everything or tuning)
            _conclude(tuning, everything)
            keep(op, where, tuning.best.candidate.choice)


def _structures(files: list[str]) -> "list[tuple[str, Atoms]]":
    from ase.build import bulk

    if files:
        return [(file, read_structure(file)) for file in files]
    crystals = []
    for n in REPEATS:
        crystal = bulk("MgO", "rocksalt", a=4.212, cubic=True).repeat(n)
        crystal.rattle(0.03, seed=n)  # Å: no two bonds are equal
        crystals.append((f"MgO, {len(crystal)} atoms", crystal))
    return crystals


def _show(name: str, op: "Op", tuning: "Tuning[Any]") -> None:
    print(f"{op.name} of {name}: {op.shape.messages:,} rows")
    print(f"{'moved':>10}{'× least':>9}{'predicted':>11}{'measured':>11}  cut into")
    for row in tuning.rows:
        moved, seconds = row.candidate.moved_bytes / 2**20, row.candidate.seconds
        measured = "" if row.seconds is None else f"{1e3 * row.seconds:.2f} ms"
        numbers = f"{moved:6.1f} MiB{row.bound_ratio:9.2f}{1e3 * seconds:8.2f} ms{measured:>11}"
        print(f"{numbers}  {_words(row.candidate.choice)}")


def _words(choice: Any) -> str:
    if isinstance(choice, int):
        return f"{choice:,} rows"
    return ", ".join(f"{value} {name}" for name, value in zip(choice._fields, choice, strict=True))


def _conclude(tuning: "Tuning[Any]", everything: "Tuning[Any] | None") -> None:
    chosen = f"chosen: {_words(tuning.best.candidate.choice)}, {tuning.n_measured} of {len(tuning.rows)} measured"
    if everything is None:
        print(chosen)
        return
    loss = 100 * tuning.loss(everything)
    print(f"{chosen}; {loss:.1f} % slower than the best of all {everything.n_measured}")
