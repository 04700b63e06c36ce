"""What is known of a device: read where the system tells, from a table or a default where it does not."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fastchgnet_kernels.io_model.device import Cpu, cache_sizes, count_cpus, cpu_name, size_bytes
from fastchgnet_kernels.io_model.known_gpus import KNOWN, described


def cache(folder: Path, index: int, level: str, kind: str, size: str, shared: str) -> None:
    entry = folder / f"index{index}"
    entry.mkdir()
    for name, text in {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}.items():
        (entry / name).write_text(text + "\n")


def test_a_shared_cache_is_divided_among_those_that_share_it(tmp_path: Path) -> None:
    cache(tmp_path, 0, "1", "Data", "32K", "0")
    cache(tmp_path, 1, "1", "Instruction", "64K", "0")
    cache(tmp_path, 2, "2", "Unified", "1024K", "0,32")
    cache(tmp_path, 3, "3", "Unified", "32M", "0-3,32-35")
    assert cache_sizes(tmp_path) == {1: 2**15, 2: 2**19, 3: 2**22}


def test_what_is_not_described_is_left_out(tmp_path: Path) -> None:
    cache(tmp_path, 0, "2", "Unified", "many", "0")
    (tmp_path / "index1").mkdir()
    assert cache_sizes(tmp_path) == {}
    assert cache_sizes(tmp_path / "not there") == {}


@pytest.mark.parametrize(("text", "n"), [("0", 1), ("0-3,8", 5), ("", 0), ("1,3", 2)])
def test_lists_of_cpus_are_counted(text: str, n: int) -> None:
    assert count_cpus(text) == n


@pytest.mark.parametrize(("text", "n"), [("512K", 2**19), ("32M", 2**25), ("1G", 2**30), ("4096", 4096)])
def test_sizes_have_units(text: str, n: int) -> None:
    assert size_bytes(text) == n


def test_a_cpu_has_a_name_even_where_the_system_gives_none(tmp_path: Path) -> None:
    assert cpu_name(tmp_path / "not there")
    path = tmp_path / "cpuinfo"
    path.write_text("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nmodel name\t: other\n")
    assert cpu_name(path) == "AMD EPYC (25-1)"


def properties(name: str, processors: int, capability: tuple[int, int], **more: int) -> SimpleNamespace:
    major, minor = capability
    return SimpleNamespace(name=name, multi_processor_count=processors, major=major, minor=minor, **more)


def test_a_known_gpu_has_the_rates_of_the_table_and_the_sizes_of_the_driver() -> None:
    gpu = described(properties("NVIDIA H200 NVL", 132, (9, 0), L2_cache_size=2**25, regs_per_multiprocessor=2**16))
    assert (gpu.memory_rate, gpu.l2_rate) == (KNOWN["H200"].memory_rate, KNOWN["H200"].l2_rate)
    assert (gpu.l2, gpu.shared) == (2**25, KNOWN["H200"].shared)


def test_an_unknown_gpu_has_the_rates_of_its_kin_for_each_of_its_processors() -> None:
    gpu = described(properties("NVIDIA L4", 58, (8, 9)))
    part = 58 / KNOWN["A100"].processors
    assert gpu.tf32_rate == pytest.approx(KNOWN["A100"].tf32_rate * part)
    assert gpu.memory_rate == pytest.approx(KNOWN["A100"].memory_rate * part)


@pytest.mark.parametrize("capability", [(7, 5), (12, 0)])
def test_older_and_newer_gpus_than_the_table_knows_are_described_too(capability: tuple[int, int]) -> None:
    assert described(properties("some GPU", 10, capability)).shared_per_program > 0


def test_a_cpu_knows_more_of_its_caches_than_of_nothing() -> None:
    assert Cpu("any").l2 < Cpu("any").l3
