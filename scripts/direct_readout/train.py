"""Trains the readout: `python -m scripts.direct_readout.train SHARDS STATE.pt --check SHARDS --hours 2`.

One step is one group of structures. The schedule counts processor hours, so that a run ends when it should on any
machine. A run that was interrupted resumes; new shards are taken in whenever all known ones have been seen.
"""

import argparse
import csv
import logging
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ase import units
from torch import Tensor
from torch.nn.functional import huber_loss

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.engine.direct_readout import Derivatives, Features, forces_and_virial
from fastchgnet_kernels import edge_geometry
from scripts.direct_readout.shards import Group, load
from scripts.direct_readout.student import Student

LEARNING_RATE, WARM_UP, CLIP = 2e-3, 300, 1.0
WEIGHTS = {"forces": 1.0, "stress": 0.05, "length": 2.0, "theta": 0.5}
DELTAS = {"forces": 0.03, "stress": 0.3, "length": 0.03, "theta": 0.03}  # eV/Å, GPa, eV/Å, eV: linear beyond
AVERAGE = 0.999  # how much of the averaged weights stays in a step
REPORT = 5000  # steps
_log = logging.getLogger(__name__)


def losses(found: Derivatives, group: Group) -> dict[str, Tensor]:
    """Mean Huber losses in units of δ.

    The derivatives themselves are labels too: an atom has 3 components of a force, but some 25 bonds and 40 angles.
    """
    forces, virial = forces_and_virial(found, group.graph, edge_geometry.forward(group.graph), group.ends)
    per_volume = 1 / (units.GPa * group.graph.volume()[:, None, None])
    pairs = {
        "forces": (forces, group.forces.double()),
        "stress": (virial * per_volume, group.virial * per_volume),
        "length": (found.length, group.length),
        "theta": (found.theta, group.theta),
    }
    return {
        name: huber_loss(*pair, delta=DELTAS[name], reduction="sum") / (DELTAS[name] * max(pair[0].numel(), 1))
        for name, pair in pairs.items()
    }


class Run:
    """What a file needs to hold for training to go on."""

    def __init__(self, student: Student) -> None:
        self.student, self.step, self.epoch, self.seconds = student, 0, 0, 0.0
        self.average = {name: weight.detach().clone() for name, weight in student.named_parameters()}
        self.optimiser = torch.optim.Adam(student.parameters(), betas=(0.9, 0.99), foreach=True)

    def learn(self, group: Group, compute: Any, rate: float) -> dict[str, Tensor]:
        """One step; what was lost in it."""
        for options in self.optimiser.param_groups:
            options["lr"] = rate * min(1.0, (self.step + 1) / WARM_UP)
        lost = losses(compute(_features(group), group.ends), group)
        self.optimiser.zero_grad()
        sum(WEIGHTS[name] * value for name, value in lost.items()).backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        self.optimiser.step()
        self.step += 1
        kept = min(AVERAGE, 1 - 1 / (self.step / 10 + 1))
        weights = [weight.detach() for weight in self.student.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - kept)
        return {name: value.detach() for name, value in lost.items()}

    def averaged(self) -> Student:
        """The student with the averaged weights."""
        return Student.of(self.student.config, {**self.student.state_dict(), **self.average})

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        state = {name: getattr(self, name) for name in ("step", "epoch", "seconds", "average")}
        partial = path.with_suffix(".part")
        torch.save({**state, "student": self.student.state_dict(), "optimiser": self.optimiser.state_dict()}, partial)
        partial.rename(path)

    @classmethod
    def load(cls, path: Path, config: ModelConfig) -> "Run":
        """The run that `save` wrote."""
        state = torch.load(path)
        run = cls(Student.of(config, state["student"]))
        for name in ("step", "epoch", "seconds", "average"):
            setattr(run, name, state[name])
        run.optimiser.load_state_dict(state["optimiser"])
        return run


def schedule(done: float) -> float:
    """Factor of the learning rate: 1 for half of the run, then down to 0 along a cosine."""
    return 0.5 * (1 + math.cos(math.pi * min(max(2 * done - 1, 0.0), 1.0)))


def errors(student: Student, groups: list[Group]) -> dict[str, float]:
    """Mean absolute errors: forces in meV/Å, of each kind of structure too, and stress in GPa."""
    found: dict[str, list[float]] = {}
    for group in groups:
        with torch.no_grad():
            derivatives = student(_features(group), group.ends)
            forces, virial = forces_and_virial(derivatives, group.graph, edge_geometry.forward(group.graph), group.ends)
        off = 1000 * (forces - group.forces).abs().mean(1)
        for kind, part in zip(group.kinds, off.split(group.graph.atom_ptr.diff().tolist()), strict=True):
            found.setdefault("forces", []).extend(part.tolist())
            found.setdefault(kind, []).extend(part.tolist())
        stress = (virial - group.virial).abs().mean((1, 2)) / (units.GPa * group.graph.volume())
        found.setdefault("stress", []).extend(stress.tolist())
    return {name: sum(values) / len(values) for name, values in found.items()}


def train(run: Run, given: argparse.Namespace) -> None:
    """Learns until the hours are over."""
    compute = torch.compile(run.student, dynamic=True) if given.compile else run.student
    check = [group for path in sorted(given.check.glob("*.pt")) for group in load(path)]
    known: dict[Path, list[Group]] = {}
    while run.seconds < 3600 * given.hours:
        for path in set(given.shards.glob("*.pt")) - known.keys():
            known[path] = load(path)
        groups = [group for path in sorted(known) for group in known[path]]
        if run.step == 0:
            run.student.measure(groups[:: max(len(groups) // 100, 1)])
        random.Random(run.epoch).shuffle(groups)
        for _ in _epoch(run, groups, compute, given.hours):
            _report(run, check, given.state)
        run.epoch += 1
        _log.info("epoch %d over: %d groups", run.epoch, len(groups))
    run.save(given.state)
    _report(run, check, given.state)


def _epoch(run: Run, groups: list[Group], compute: Any, hours: float) -> Iterator[None]:
    """Every group once; yields now and then."""
    start = time.process_time() - run.seconds
    for group in groups:
        run.learn(group, compute, LEARNING_RATE * schedule(run.seconds / 3600 / hours))
        run.seconds = time.process_time() - start
        if run.step % REPORT == 0:
            yield
            start = time.process_time() - run.seconds  # looking does not count
        if run.seconds > 3600 * hours:
            return


def _report(run: Run, check: list[Group], state: Path) -> None:
    """Writes the state, and the errors of the averaged weights on structures that are not learnt from."""
    run.save(state)
    row = {"step": run.step, "hours": round(run.seconds / 3600, 4), **errors(run.averaged(), check)}
    table = state.with_suffix(".csv")
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    _log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in row.items()))


def _features(group: Group) -> Features:
    return Features(*(x.float() for x in group.features))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path, help="folder of training shards")
    parser.add_argument("state", type=Path, help="written as the run goes on, with a .csv of its errors beside it")
    parser.add_argument("--check", type=Path, required=True, help="folder of shards that are never learnt from")
    parser.add_argument("--hours", type=float, required=True, help="processor hours of the whole run")
    parser.add_argument("--compile", action="store_true", help="torch.compile: 1.7 times as fast, needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(given.seed)
    config = load_checkpoint("0.3.0").config
    train(Run.load(given.state, config) if given.state.exists() else Run(Student(config)), given)


if __name__ == "__main__":
    main()
