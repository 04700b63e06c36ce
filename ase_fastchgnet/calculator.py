"""FastCHGNet, the ASE calculator: what to compute, what to keep, when to forget."""

import copy
import inspect
import logging
import warnings
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)

from ase_fastchgnet.evaluation.backend import (
    Backend,
    Tape,
    check_options,
    load_backend,
    requested_device,
    resolve_backend,
)
from ase_fastchgnet.evaluation.captured import CapturedStep, Evaluated, captured_step
from ase_fastchgnet.evaluation.chunk import Options as ChunkOptions
from ase_fastchgnet.evaluation.evaluator import PROPERTIES, evaluate, is_out_of_memory, structure_too_large
from ase_fastchgnet.evaluation.isolated import IsolatedGuard, IsolatedPolicy, check_isolated_policy
from ase_fastchgnet.evaluation.moving import MovingBatch
from ase_fastchgnet.evaluation.prediction import Array, Prediction, predictions_of
from ase_fastchgnet.evaluation.source import Forces, ModelSource, check_source, load_weights, portable_name
from ase_fastchgnet.graph import AnyCache, Cutoffs, GraphBatch, neighbor_cache
from ase_fastchgnet.graph.validate import MAX_NUMBER
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.output import ModelOutput

_log = logging.getLogger(__name__)


class _Forward(NamedTuple):
    """A forward pass whose adjoint may still be wanted."""

    graph: GraphBatch
    tape: Tape


class FastCHGNet(Calculator):
    """CHGNet as an ASE calculator: `atoms.calc = FastCHGNet()`.

    Energies in eV, forces in eV/Å, stress in eV/Å³ (xx yy zz yz xz xy, tension positive), magnetic moments in μ_B.
    CHGNet's magnetic moments are absolute values, so `magmom` is their plain sum, not the net moment of the cell; and
    it takes none as input: initial magnetic moments and charges change nothing.  `free_energy` is the energy.

    model              a released name ("0.3.0", "0.2.0", "r2scan"), a path, or a Checkpoint
    device             "cpu", "cuda" or "cuda:N"; None: the environment's FASTCHGNET_DEVICE, else CUDA if there is one
    dtype              "float32" or "float64"
    forces             "conservative", exact derivatives of the energy, or "direct": predicted in the forward pass, in
                       a fraction of the time, with the errors that the model's card states.  Energies do not change
    backend            "auto": the engine, with Triton's kernels on CUDA ("triton") and plain torch on CPUs ("torch");
                       or "reference" (autograd: slow, for checking)
    tf32               True: Triton's kernels round the factors of products to 11 bits, in a third of the products, with
                       the errors that docs/accuracy.md states; refused where no such kernel runs, and in float64
    skin               Å; neighbours are searched again once atoms have moved half of it.  Does not change results
    deterministic      repeatable to the last bit: holds whatever the value, as sums run in a fixed order
    on_isolated_atoms  "warn", "error" or "ignore" atoms that have no neighbour within the cut-off
    stress_weight      ignored, with a warning: stress has one unit here

    Weights are loaded at first use.  A request for energies or magnetic moments runs the forward pass only, unless a
    whole step is recorded; one for forces or stress later, at the same geometry, adds the adjoint.  The logger of this
    module says so at level DEBUG.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "magmoms", "magmom"]  # noqa: RUF012
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012
    discard_results_on_any_change = True

    def __init__(
        self,
        model: ModelSource = "0.3.0",
        *,
        device: str | None = None,
        dtype: str = "float32",
        forces: Forces = "conservative",
        backend: str = "auto",
        tf32: bool = False,
        skin: float = 1.0,
        deterministic: bool = False,
        on_isolated_atoms: IsolatedPolicy = "warn",
        stress_weight: float | None = None,
    ) -> None:
        if stress_weight is not None:
            warnings.warn("stress_weight is ignored: FastCHGNet's stress is in eV/Å³, as ASE expects", stacklevel=2)
        super().__init__()  # type: ignore[no-untyped-call]
        self.set(
            model=model,
            device=None if device is None else str(device),
            dtype=dtype,
            forces=forces,
            backend=backend,
            tf32=tf32,
            skin=skin,
            deterministic=deterministic,
            on_isolated_atoms=on_isolated_atoms,
        )

    def set(self, **options: Any) -> dict[str, Any]:
        """Change options; what was loaded and computed with the old ones is forgotten."""
        if not options:  # ASE's constructor does this
            return {}
        if unknown := options.keys() - _OPTIONS:
            raise TypeError(f"unknown options {sorted(unknown)}; FastCHGNet has {sorted(_OPTIONS)}")
        _check({**self.parameters, **options})
        if "model" in options:
            source = self._source = check_source(options["model"])
            options["model"] = source.name if isinstance(source, Checkpoint) else source
        changed: dict[str, Any] = super().set(arch="fastchgnet", **options)  # type: ignore[no-untyped-call]
        self.reset()
        self._checkpoint = self._source if isinstance(self._source, Checkpoint) else None
        self._backend: Backend | None = None
        self._cache: AnyCache | None = None
        self._captured: CapturedStep | None = None
        return changed

    def todict(self, skip_default: bool = False) -> dict[str, Any]:
        """The options and the SHA-256 of the weights, JSON-ready, for the files that ASE writes."""
        del skip_default  # a file should still say what was computed when the defaults have changed
        return {**self.parameters, "model_sha256": self._load_checkpoint().sha256}

    def __repr__(self) -> str:
        option = self.parameters
        forces = "" if option["forces"] == "conservative" else f"forces={option['forces']!r}, "
        device = self._backend.device if self._backend else requested_device(option["device"])
        backend = resolve_backend(option["backend"], device) if device else option["backend"]
        return (
            f"FastCHGNet({option['model']!r}, device={str(device or 'auto')!r}, dtype={option['dtype']!r}, "
            f"{forces}backend={backend!r}{', tf32=True' if option['tf32'] else ''})"
        )

    @property
    def cutoffs(self) -> Cutoffs:
        """Cut-off radii of atoms and bonds, Å."""
        config = self._load_checkpoint().config
        return Cutoffs(config.atom_cutoff, config.bond_cutoff)

    def get_spin_polarized(self) -> bool:
        """False: CHGNet takes no spin as input."""
        # Without this method ASE stores a bound one in the instance, and that cycle keeps tensors alive for long.
        return False

    def _options(self) -> dict[str, Any]:
        return {**{name: self.parameters[name] for name in _OPTIONS}, "model": self._source}

    def _load_checkpoint(self) -> Checkpoint:
        if self._checkpoint is None:
            self._checkpoint = load_weights(self._source, self.parameters["forces"])
        return self._checkpoint

    def _load_backend(self) -> Backend:
        if self._backend is None:
            names = ("dtype", "device", "forces", "backend", "tf32")
            self._backend = load_backend(self._load_checkpoint(), **{name: self.parameters[name] for name in names})
            _log.info("using %r", self)
        return self._backend

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies are made from the options: no tensors in a pickle, and results are computed again.
        return _make, (type(self), {**self._options(), "model": portable_name(self._source)})

    def __copy__(self) -> Self:
        return type(self)(**self._options())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy.copy(self)

    def set_atoms(self, atoms: Atoms) -> None:
        """Called by `atoms.calc = calc`: refuses elements that CHGNet does not know."""
        if (wrong := np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > MAX_NUMBER))).size:
            first = int(wrong[0])
            raise ValueError(
                f"atom {first} has atomic number {atoms.numbers[first]} ({len(wrong)} such atom(s)): CHGNet knows the "
                f"elements 1 to {MAX_NUMBER} (H to Pu); remove or replace it"
            )

    def reset(self) -> None:
        """Forget the last geometry and all that was computed for it."""
        super().reset()  # type: ignore[no-untyped-call]
        self._forward: _Forward | None = None
        self._embeddings: tuple[Any, Any] | None = None

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the geometry of the results; exact, and ten times faster than ASE's comparison."""
        del tol
        return changes(self.atoms, atoms)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """The named property; arrays are copies."""
        if name == "stress" and allow_calculation:
            _require_volume(self._given(atoms))
        return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    @torch.inference_mode(False)  # the reference backend differentiates with autograd, which that mode forbids
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Iterable[str] = ("energy",),
        system_changes: Iterable[str] = all_changes,
    ) -> None:
        """Sets `results` to what was asked for and whatever comes with it, unless it is there already."""
        # ASE's own method is not called: all it does is to look for a directory and to copy everything in `atoms`.
        del system_changes  # some callers say that all has changed when nothing has
        atoms = self._given(atoms)
        wanted = set(properties)
        if "stress" in wanted:
            _require_volume(atoms)
        if self.check_state(atoms):
            self.reset()
        elif wanted & set(self.implemented_properties) <= self.results.keys():
            return

        try:
            found = self._evaluate(atoms, gradient=bool(wanted & {"forces", "stress"}))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            found = None
        if found is None:  # the handler is left, and with it what its frames had in memory
            self.reset()
            raise structure_too_large(atoms, self._load_backend(), self.parameters["skin"])
        self.results = found.prediction.results()
        self._embeddings = (found.site_embeddings, found.final_embeddings)
        self.atoms = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)

    def evaluate(self, structures: Iterable[Atoms], properties: Collection[str] = PROPERTIES) -> list[Prediction]:
        """Predictions for many structures, evaluated in batches with this calculator's model and options.

        What `ase_fastchgnet.evaluate` does; neither `results` nor the last geometry are touched.
        """
        names = ("dtype", "device", "forces", "backend", "tf32", "on_isolated_atoms")
        options = {name: self.parameters[name] for name in names}
        return evaluate(structures, self._load_checkpoint(), properties=properties, **options)

    def chunk_options(self, properties: Collection[str] = PROPERTIES) -> ChunkOptions:
        """This calculator's model and options for `evaluate_chunk`, which workers run."""
        names = ("dtype", "device", "forces", "backend", "tf32", "on_isolated_atoms")
        options = {name: self.parameters[name] for name in names}
        return ChunkOptions(model=self._source, gradient=not {"forces", "stress"}.isdisjoint(properties), **options)

    def moving_batch(self) -> MovingBatch:
        """For structures that move together, such as the images of a path: a batch that carries neighbours along."""
        names = ("skin", "on_isolated_atoms")
        return MovingBatch(self._load_backend(), **{name: self.parameters[name] for name in names})

    def site_embeddings(self, atoms: Atoms | None = None) -> Array:
        """Features of each atom before the last interaction block (n_atoms, 64); stock's `atom_fea`."""
        return self._embedding(0, atoms)

    def crystal_embedding(self, atoms: Atoms | None = None) -> Array:
        """Features of the whole structure, summed over its atoms (64,); stock's `crystal_fea`."""
        embedding: Array = self._embedding(1, atoms).sum(0)
        return embedding

    def _evaluate(self, atoms: Atoms, *, gradient: bool) -> Evaluated:
        """The forward pass, the adjoint of one that was kept, or both at once: as recorded, if they are."""
        backend = self._load_backend()
        kept, self._forward = self._forward, None
        if kept is None and self._captured is not None:  # everything, whatever was asked for, in less time than a part
            found = self._captured.evaluate(atoms)
            if found is not None:
                _log.debug("recorded step")
                return found
        graph = self._build_graph(atoms, backend) if kept is None else kept.graph
        if gradient:
            _log.debug("adjoint pass")
            output = backend.evaluate(graph) if kept is None else backend.backward(kept.tape)
            found = _evaluated(graph, output)
            if self._captured is not None:
                self._captured.learn(graph)
            return found
        self._forward = kept or _Forward(graph, backend.forward(graph))
        return _evaluated(graph, self._forward.tape.output)

    def _build_graph(self, atoms: Atoms, backend: Backend) -> GraphBatch:
        if self._cache is None:
            self._cache = neighbor_cache(backend.cutoffs, self.parameters["skin"], device=backend.device)
            self._guard = IsolatedGuard(self.parameters["on_isolated_atoms"], backend.cutoffs.atom)
            self._captured = captured_step(backend, self._cache)
        graph = self._cache.graph(atoms)
        self._guard.check(graph)
        _log.debug("forward pass: %d atoms, %d edges, %d angles", graph.n_atoms, graph.n_edges, graph.n_angles)
        return graph.to(backend.device)

    def _embedding(self, which: int, atoms: Atoms | None) -> Array:
        atoms = self._given(atoms)
        if self._embeddings is None or self.check_state(atoms):
            self.calculate(atoms)
        assert self._embeddings is not None
        embedding: Array = self._embeddings[which].cpu().numpy().astype(np.float64)
        return embedding

    def _given(self, atoms: Atoms | None) -> Atoms:
        if atoms is None:
            atoms = self.atoms
        if atoms is None:
            raise CalculatorSetupError("no structure yet: pass one, or set atoms.calc = calc and ask the atoms")
        return atoms


def changes(before: Atoms | None, now: Atoms) -> list[str]:
    """What differs, of that which CHGNet's energy depends on."""
    if before is None:
        return list(all_changes)
    same = {
        "positions": np.array_equal(before.positions, now.positions),
        "numbers": np.array_equal(before.numbers, now.numbers),
        "cell": np.array_equal(before.cell.array, now.cell.array),
        "pbc": np.array_equal(before.pbc, now.pbc),
    }
    return [name for name, value in same.items() if not value]


_OPTIONS = frozenset(inspect.signature(FastCHGNet).parameters) - {"stress_weight"}


def _evaluated(graph: GraphBatch, output: ModelOutput) -> Evaluated:
    return Evaluated(predictions_of(graph, output)[0], output.site_embeddings, output.final_embeddings)


def _make(kind: type[FastCHGNet], options: dict[str, Any]) -> FastCHGNet:
    return kind(**options)


def _check(options: dict[str, Any]) -> None:
    """Raises what can be found wrong with the options without loading anything."""
    check_options(**{name: options[name] for name in ("dtype", "device", "forces", "backend", "tf32")})
    check_isolated_policy(options["on_isolated_atoms"])
    if not 0 <= options["skin"] < np.inf:
        raise ValueError(f"skin={options['skin']!r}: expected a length of 0 Å or more")


def _require_volume(atoms: Atoms) -> None:
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise PropertyNotImplementedError(
            f"stress needs a cell that is periodic in three directions; pbc is {atoms.pbc.tolist()} and the cell has "
            f"{atoms.cell.rank} independent vectors"
        )
