"""Who gets which structures of a batch: ranks of equal counts and nearly equal work, and gradients that do not care.

Synchronous ranks wait for the slowest of them, so the time of a step is that of the most expensive share.  A global
batch is cut from the epoch's random order whatever the number of ranks; only how it is dealt out follows from costs.
The mean gradient over a global batch is therefore that of one process, however it was dealt.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Deal = Literal["lpt", "pair", "random"]


def deal_lpt(costs: Floats, n_ranks: int) -> list[Longs]:
    """From the most expensive to the cheapest, each to the rank that has least and still has room.

    Longest processing time first (Graham 1969), here with counts that differ by one at most.
    """
    least, spare = divmod(len(costs), n_ranks)  # so many ranks have one more
    shares: list[list[int]] = [[] for _ in range(n_ranks)]
    loads = [(0.0, rank) for rank in range(n_ranks)]  # a heap
    order = np.argsort(-costs, kind="stable")
    for number, cost in zip(order.tolist(), costs[order].tolist(), strict=True):
        while len(share := shares[loads[0][1]]) > least or (len(share) == least and not spare):
            heapq.heappop(loads)  # full
        spare -= len(share) == least
        share.append(number)
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + cost, rank))
    return [np.array(share, dtype=np.int64) for share in shares]


def deal_pairs(costs: Floats, n_ranks: int) -> list[Longs]:
    """In turns: every rank gets one of the most expensive that remain, then one of the cheapest."""
    order = np.argsort(-costs, kind="stable")
    rounds: list[Longs] = []
    for turn in itertools.count():
        if len(order) == 0:
            break
        take = min(n_ranks, len(order))
        rounds.append(order[:take] if turn % 2 == 0 else order[::-1][:take])
        order = order[take:] if turn % 2 == 0 else order[: len(order) - take]
    return [np.array([each[rank] for each in rounds if rank < len(each)], dtype=np.int64) for rank in range(n_ranks)]


def deal_randomly(costs: Floats, n_ranks: int) -> list[Longs]:
    """As they come: what a sampler does that knows nothing of costs."""
    return [np.arange(rank, len(costs), n_ranks) for rank in range(n_ranks)]


DEALS: dict[str, Callable[[Floats, int], list[Longs]]] = {
    "lpt": deal_lpt,
    "pair": deal_pairs,
    "random": deal_randomly,
}


class BalancedBatchSampler:
    """Iterates over one epoch's batches of this rank: lists of indices, from the first that was not trained on yet.

    Every structure is in exactly one batch of an epoch.  Global batches have `batch_size · n_ranks` structures at most,
    and in one epoch they differ by one at most, so that none is left with a few; where a rank would get none (possible
    with `batch_size=1` only), those that do not fill a batch are left out of the epoch.

    The place in the epoch is counted by `advance`, not by the iteration, since batches may be fetched ahead:

        sampler.set_epoch(epoch)
        for batch in prefetch(dataset, sampler):
            ...  # a step
            sampler.advance()
    """

    def __init__(
        self,
        costs: Sequence[float] | Floats,
        *,
        batch_size: int,
        n_ranks: int = 1,
        rank: int = 0,
        deal: Deal = "lpt",
        seed: int = 0,
    ) -> None:
        self.costs = np.asarray(costs, dtype=np.float64)
        _check(self.costs, batch_size, n_ranks, rank, deal)
        self.batch_size, self.n_ranks, self.rank, self.seed = batch_size, n_ranks, rank, seed
        self.epoch = self.done = 0  # done: batches of this epoch that were trained on
        self._deal = DEALS[deal]
        self._n_batches, self._n_used = _cut(len(self.costs), batch_size, n_ranks)

    def __len__(self) -> int:
        """Batches in an epoch, the same on all ranks."""
        return self._n_batches

    def __iter__(self) -> Iterator[list[int]]:
        for chosen in self.global_batches()[self.done :]:
            yield chosen[self._deal(self.costs[chosen], self.n_ranks)[self.rank]].tolist()

    def global_batches(self) -> list[Longs]:
        """The structures of each batch of this epoch, over all ranks."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.costs))
        return np.array_split(order[: self._n_used], self._n_batches)

    def advance(self) -> None:
        """The next batch of this epoch has been trained on."""
        if self.done == len(self):
            raise ValueError(f"epoch {self.epoch} has only {len(self)} batches; begin the next one with set_epoch")
        self.done += 1

    def set_epoch(self, epoch: int) -> None:
        """Begins this epoch, or goes on with it if it is the present one."""
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where training is, the same on all ranks."""
        return self._fixed() | {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken; ValueError if batches would not be the same ones.

        Ranks may be more or fewer, if `batch_size · n_ranks` stays.
        """
        changed = [
            f"{name} {state[name]}, now {value}" for name, value in self._fixed().items() if state[name] != value
        ]
        if changed:
            raise ValueError(f"batches would not go on as they began: {'; '.join(changed)}; start a new training")
        self.epoch, self.done = state["epoch"], state["done"]

    def _fixed(self) -> dict[str, Any]:
        """What decides which structures each global batch has."""
        return {
            "structures": len(self.costs),
            "global_batch": self.batch_size * self.n_ranks,
            "batches": len(self),
            "seed": self.seed,
        }


def _cut(n_structures: int, batch_size: int, n_ranks: int) -> tuple[int, int]:
    """Number of batches, and of structures in them all."""
    full = batch_size * n_ranks
    n_batches = math.ceil(n_structures / full)
    if n_structures // n_batches >= n_ranks:
        return n_batches, n_structures
    return n_structures // full, n_structures // full * full


def _check(costs: Floats, batch_size: int, n_ranks: int, rank: int, deal: str) -> None:
    if deal not in DEALS:
        raise ValueError(f"deal={deal!r} is not one of {', '.join(map(repr, DEALS))}")
    if batch_size < 1 or n_ranks < 1 or not 0 <= rank < n_ranks:
        raise ValueError(
            f"batch_size={batch_size}, rank={rank} of n_ranks={n_ranks}: expected 1 or more, rank < n_ranks"
        )
    if not (np.isfinite(costs) & (costs >= 0)).all():
        raise ValueError("costs must be finite and not negative")
    if len(costs) < n_ranks:
        raise ValueError(f"{len(costs)} structures are too few for {n_ranks} ranks: each needs one in every batch")
