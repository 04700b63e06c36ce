"""Chunks to an executor: everything comes back once, whatever dies on the way."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ase_fastchgnet.parallel.crew import crew, environments, n_cores
from ase_fastchgnet.parallel.pool import WorkerPool
from ase_fastchgnet.parallel.scheduler import KillsWorkers, run_chunks

sys.path.insert(0, str(Path(__file__).parent))  # workers have this process's path

import tasks


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool([{}, {}])
    yield pool
    pool.shutdown()


def chunks_of(n: int, size: int) -> list[list[int]]:
    return [list(range(lo, min(lo + size, n))) for lo in range(0, n, size)]


def results(found: list[tuple[object, object]]) -> dict[object, object]:
    """Item to result; an item that came twice is an error."""
    flat: dict[object, object] = {}
    for items, values in found:
        for item, value in zip(items, values, strict=True):  # type: ignore[call-overload]
            assert item not in flat
            flat[item] = value
    return flat


def test_every_item_comes_back_once(pool: WorkerPool) -> None:
    found = results(list(run_chunks(chunks_of(40, 3), tasks.doubled, pool, in_flight=4)))
    assert found == {n: 2 * n for n in range(40)}


def test_an_item_that_kills_is_set_aside_and_its_neighbours_are_not(pool: WorkerPool) -> None:
    found = list(run_chunks(chunks_of(20, 5), tasks.doubled_but_13_kills, pool, in_flight=4))
    ((killer, why),) = [(items, why) for items, why in found if isinstance(why, KillsWorkers)]
    assert list(killer) == [13]
    assert "2 worker processes died on it" in str(why)
    others = results([pair for pair in found if pair[1] is not why])
    assert others == {n: 2 * n for n in range(20) if n != 13}


def test_what_died_once_by_accident_is_done_in_the_end(pool: WorkerPool, tmp_path: Path) -> None:
    chunks = [[(n, str(tmp_path / str(n // 4))) for n in chunk] for chunk in chunks_of(8, 4)]
    found = results(list(run_chunks(chunks, tasks.doubled_once_dead, pool, in_flight=2)))
    assert {n: value for (n, _), value in found.items()} == {n: 2 * n for n in range(8)}  # type: ignore[misc]


def test_chunks_are_taken_as_there_is_room() -> None:
    taken = 0

    def chunks() -> Iterator[list[int]]:
        nonlocal taken
        for n in range(100):
            taken += 1
            yield [n]

    with ThreadPoolExecutor(2) as executor:
        running = run_chunks(chunks(), tasks.doubled, executor, in_flight=3)
        next(running)
        assert taken <= 3
        assert len(list(running)) == 99


def test_an_error_of_the_work_itself_is_raised(pool: WorkerPool) -> None:
    with pytest.raises(ValueError, match="cannot do"):
        list(run_chunks([[1]], tasks.failing, pool, in_flight=1))


def test_this_process_can_do_it_alone() -> None:
    with crew(None) as (executor, in_flight):
        found = results(list(run_chunks(chunks_of(10, 4), tasks.doubled, executor, in_flight=in_flight)))
    assert found == {n: 2 * n for n in range(10)}


def test_workers_share_the_cores() -> None:
    shares = [int(e["OMP_NUM_THREADS"]) for e in environments(2)]
    assert len(shares) == 2
    assert sum(shares) <= max(2, n_cores())
    assert [e["FASTCHGNET_DEVICE"] for e in environments(["cuda:0", "cuda:3"])] == ["cuda:0", "cuda:3"]


@pytest.mark.parametrize("wrong", [0, -1, True, [], "cuda", 2.5])
def test_what_is_no_crew_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"expected None, 'auto', a number of worker processes"):
        environments(wrong)  # type: ignore[arg-type]


def test_workers_that_do_nothing_but_die_end_the_run(pool: WorkerPool) -> None:
    with pytest.raises(RuntimeError, match=r"8 worker processes died and none has answered yet: .*code 3"):
        list(run_chunks(chunks_of(40, 5), tasks.always_dies, pool, in_flight=4))
