"""What the ops use: the model's choice, a measured winner over it, and the same results whatever it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastchgnet_kernels import gated_message, gated_update
from fastchgnet_kernels._launch import BLACKWELL_TILE, DEFAULT_TILE, DOUBLE_TILE, SMALL_TILE
from fastchgnet_kernels.io_model import block_rows, store, tile_choice
from fastchgnet_kernels.io_model.candidates import BLOCK_ROWS
from fastchgnet_kernels.io_model.device import this_cpu
from fastchgnet_kernels.io_model.gated import GatedShape
from fastchgnet_kernels.io_model.gpu_tiles import TILES
from fastchgnet_kernels.io_model.known_gpus import KNOWN
from tests.kernels.gated import Case, make_case, memory

ROW = {"summed": True, "gathered": 2, "dense": 5, "layers": 2, "width": 64, "itemsize": 4}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty store, and nothing looked up yet."""
    monkeypatch.setattr(store, "folder", lambda: tmp_path)
    block_rows.forget()
    tile_choice.forget()
    yield tmp_path
    block_rows.forget()
    tile_choice.forget()


def stored(rows: int, shape: GatedShape) -> None:
    store.save(block_rows.key_of(shape, this_cpu(torch.get_num_threads())), rows)
    block_rows.forget()


def shape(messages: int, **changes: int) -> GatedShape:
    return GatedShape(messages, 7, 20, 2, 5, 9, 2, 64, 4)._replace(**changes)


@pytest.mark.parametrize("messages", [0, 1, 63, 64, 65, 1000, 32768, 10**7])
def test_the_model_chooses_a_block_for_any_number_of_messages(messages: int) -> None:
    rows = block_rows.best_block_rows(messages, **ROW)
    assert rows in BLOCK_ROWS
    assert rows == block_rows.best_block_rows(messages, **ROW)


@given(st.integers(1, 10**7))
def test_the_model_is_asked_for_a_number_of_messages_near_the_true_one_and_for_few(messages: int) -> None:
    near = block_rows.rounded(messages)
    assert messages <= near <= 1.125 * messages + 1
    assert len({block_rows.rounded(messages + n * messages // 100) for n in range(100)}) <= 17
    assert block_rows.bucket(near) == block_rows.bucket(messages)  # and so it finds the winner for its bucket


def test_a_measured_winner_is_used_by_the_sizes_of_its_bucket_and_by_no_others() -> None:
    stored(96, shape(3000))
    assert [block_rows.best_block_rows(n, **ROW) for n in (2049, 3000, 4096)] == [96, 96, 96]
    assert block_rows.best_block_rows(2048, **ROW) != 96
    assert block_rows.best_block_rows(3000, **(ROW | {"layers": 1})) != 96
    assert block_rows.best_block_rows(3000, **(ROW | {"itemsize": 8})) != 96


def test_it_is_for_as_many_threads_as_there_are_now() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = block_rows.best_block_rows(40_000, **ROW)
        torch.set_num_threads(16)
        assert block_rows.best_block_rows(40_000, **ROW) > one
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("winner", [0, -5, 97, "64", None, [64], True])
def test_a_winner_that_is_none_of_the_candidates_is_not_used(winner: object) -> None:
    model = block_rows.best_block_rows(3000, **ROW)
    assert model > 64
    stored(winner, shape(3000))  # type: ignore[arg-type]
    assert block_rows.best_block_rows(3000, **ROW) == model


def test_a_measured_tile_is_used_and_without_one_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = KNOWN["H100"]
    monkeypatch.setattr(tile_choice, "this_gpu", lambda index: gpu)
    assert tile_choice.best_tile(shape(3000)) == DEFAULT_TILE
    assert {DEFAULT_TILE, BLACKWELL_TILE, SMALL_TILE} <= set(TILES)
    assert TILES[0] != DEFAULT_TILE
    store.save(tile_choice.key_of(shape(3000), gpu), list(TILES[0]))
    tile_choice.forget()
    assert tile_choice.best_tile(shape(3001)) == TILES[0]


def test_unmeasured_each_generation_and_dtype_has_its_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, tile in [("A100", SMALL_TILE), ("H200", DEFAULT_TILE), ("B200", BLACKWELL_TILE)]:
        monkeypatch.setattr(tile_choice, "this_gpu", lambda index, name=name: KNOWN[name])
        tile_choice.forget()
        assert tile_choice.best_tile(shape(3000)) == tile
        assert tile_choice.best_tile(shape(3000, itemsize=8)) == DOUBLE_TILE


def run(case: Case, keep: bool) -> list[torch.Tensor]:
    out, kept = gated_message.forward(*case, keep=memory(keep))
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    grads = gated_message.backward(grad_out, *case, grad_x=torch.zeros_like(case.inputs[1]), kept=kept)
    updated = torch.zeros(case.n_messages, case.width)
    kept = gated_update.forward(case.rows, case.weights, out=updated, keep=memory(keep))
    grad_x = torch.zeros_like(case.inputs[1])
    table = gated_update.backward(updated, case.rows, case.weights, grad_x=grad_x, kept=kept)
    return [out, *grads, updated, table, grad_x]


def test_results_depend_on_the_block_by_rounding_alone() -> None:
    """float32, rows of 8: a row's own arithmetic is the same, and sums of a few hundred numbers lose at most 1e-5."""
    case = make_case(700, dtype=torch.float32)
    whole = run(case, keep=False)
    for rows in (64, 96, 128, 192, 256, 512, 768):
        for summed in (True, False):
            changes = {"gathered": 2, "dense": 5, "width": 8, "segments": int(summed)}
            stored(rows, shape(700, **changes))
        for keep in (True, False):
            for found, expected in zip(run(case, keep), whole, strict=True):
                assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_ops_are_cut_up_as_chosen() -> None:
    stored(64, shape(700, width=8))
    case = make_case(700, dtype=torch.float32, lengths=[10] * 70)
    _, kept = gated_message.forward(*case, keep=memory(True))
    assert kept is not None
    sizes = [saved.p.shape[0] for saved in kept]
    assert set(sizes) == {60, 70}  # whole segments, 64 on the average
    assert len(sizes) == 11
