"""Winners on disk: found again, never for another key, and no file of any kind is fatal."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchgnet_kernels.io_model import store
from fastchgnet_kernels.io_model.store import Key

KEY = Key("some CPU, 1 threads", "gated_message", "1024 of k3", "0.1.0, torch 2.13.0")


@pytest.mark.parametrize("winner", [2048, [128, 4, 8, 1]])
def test_what_is_saved_is_found(winner: object, tmp_path: Path) -> None:
    path = store.save(KEY, winner, tmp_path / "not" / "there yet")
    assert path is not None
    assert path.parent == tmp_path / "not" / "there yet"
    assert store.load(KEY, path.parent) == winner
    assert [entry.name for entry in path.parent.iterdir()] == [KEY.file_name]


@pytest.mark.parametrize("field", ["device", "op", "shape", "version"])
def test_a_winner_holds_for_its_key_alone(field: str, tmp_path: Path) -> None:
    store.save(KEY, 2048, tmp_path)
    assert store.load(replace(KEY, **{field: "other"}), tmp_path) is None


def test_nothing_saved_is_nothing_found_and_nothing_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert store.load(KEY, tmp_path / "not there") is None
    assert not caplog.records


def contents() -> list[bytes]:
    whole = json.dumps({"format": store.FORMAT, "key": vars(KEY), "winner": 1}).encode()
    foreign = json.dumps({"format": store.FORMAT, "key": vars(replace(KEY, device="other")), "winner": 1}).encode()
    old = json.dumps({"format": store.FORMAT - 1, "key": vars(KEY), "winner": 1}).encode()
    return [b"", b"\x00\xff", whole[:-5], b"[]", b"3", b"{}", b'{"format": 1}', foreign, old]


@pytest.mark.parametrize("content", contents())
def test_a_damaged_foreign_or_old_file_is_passed_over_with_a_line_and_replaced(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / KEY.file_name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.load(KEY, tmp_path) is None
    assert len(caplog.records) == 1
    assert KEY.file_name in caplog.text
    store.save(KEY, 512, tmp_path)
    assert store.load(KEY, tmp_path) == 512


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_are_fatal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY.file_name).write_bytes(content)
    assert store.load(KEY, tmp_path) is None


def test_where_nothing_can_be_written_a_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert store.save(KEY, 1, tmp_path / "file") is None
    assert "could not be kept" in caplog.text


def test_a_folder_in_the_place_of_a_file_is_not_fatal(tmp_path: Path) -> None:
    (tmp_path / KEY.file_name).mkdir()
    assert store.load(KEY, tmp_path) is None
    assert store.save(KEY, 1, tmp_path) is None
    assert list(tmp_path.iterdir()) == [tmp_path / KEY.file_name]


def test_processes_that_write_and_read_at_once_see_whole_files(tmp_path: Path) -> None:
    """Three processes write the same key 60 times each and read it in between; a torn file would be a None."""
    code = (
        "import sys; from pathlib import Path; import store\n"
        f"key, folder = store.Key(*{list(vars(KEY).values())!r}), Path(sys.argv[1])\n"
        "found = []\n"
        "for n in range(60):\n"
        "    store.save(key, [n] * 500, folder)\n"
        "    found.append(store.load(key, folder))\n"
        "print(found.count(None), {len(winner) for winner in found}, {len(set(winner)) for winner in found})"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    alone = os.environ | {"PYTHONPATH": str(Path(store.__file__).parent)}  # the file by itself loads no torch
    writers = [subprocess.Popen(command, env=alone, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [writer.communicate()[0] for writer in writers] == ["0 {500} {1}\n"] * 3
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY.file_name]
