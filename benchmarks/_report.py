"""Results of the benchmarks as JSON files that say where, when, with what and how they were taken."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "ase", "ase_fastchgnet", "chgnet")
FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile")  # what decides how fast a CPU kernel can be


def write_result(name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> Path:
    """Write `rows` with their circumstances to results/<name>.json; an older file of that name is replaced.

    `more` is of the circumstances that only this benchmark has.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"name": name, **circumstances(), **more, "rows": list(rows)}, indent=1) + "\n")
    return path


def read_result(name: str) -> dict[str, Any] | None:
    """The contents of results/<name>.json, or None if that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def circumstances() -> dict[str, Any]:
    """Machine, versions, threads, date and command line of this process."""
    return {
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "threads": threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
    }


def machine() -> dict[str, Any]:
    """CPU model, cores, memory in GiB, operating system, and the GPU if torch sees one."""
    model, flags = _cpuinfo()
    found = {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [flag for flag in FLAGS if flag in flags],
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "os": _os_name(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def command_line() -> str:
    """How this process was started; of absolute paths only the last part, they mean nothing elsewhere."""
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.orig_argv[1:]]
    return shlex.join(["python", *arguments])


def version(package: str) -> str:
    """Of the installed distribution, else what the imported module says (a checkout on the path)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", "not installed")


def threads() -> int | None:
    """Threads that torch uses for one operation; None if torch was not imported (another process measured)."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


def _cpuinfo() -> tuple[str, set[str]]:
    fields: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields.get("model name", ""), set(fields.get("flags", "").split())


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, AttributeError, KeyError):
        return f"{platform.system()} {platform.release()}"
