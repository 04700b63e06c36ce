"""What the package promises before any physics: where things are, what is imported when, and which versions fit."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#")

LAYERS = [  # a module may import its own row and the rows above it
    ["fastchgnet_kernels", "ase_fastchgnet.figures", "ase_fastchgnet.parallel", "ase_fastchgnet.progress"],
    ["ase_fastchgnet.graph"],
    ["ase_fastchgnet.model"],
    ["ase_fastchgnet.evaluation", "ase_fastchgnet.training"],  # neighbours in a row are strangers
    ["ase_fastchgnet.calculator"],
    ["ase_fastchgnet.workflows"],
    ["ase_fastchgnet.cli"],
]
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for root, package in [(ROOT, "ase_fastchgnet"), (ROOT / "kernels", "fastchgnet_kernels")]
    for path in sorted((root / package).rglob("*.py"))
}


def layer_of(module: str) -> str | None:
    return next((name for name in RANK if f"{module}.".startswith(f"{name}.")), None)


def imports_of(module: str) -> set[str]:
    """Modules that the source of `module` imports anywhere, relative imports resolved."""
    path = SOURCES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    here = layer_of(module)
    if here is None:  # ase_fastchgnet itself and plugin.py, which name everything and import nothing of it
        return
    for imported in imports_of(module):
        there = layer_of(imported)
        if there and here != there:
            assert RANK[there] < RANK[here], f"{module} may not import {imported}"


@pytest.mark.parametrize("module", SOURCES)
def test_the_kernels_stand_alone(module: str) -> None:
    if module.startswith("fastchgnet_kernels"):
        assert not any(name.startswith("ase") for name in imports_of(module))


@pytest.mark.parametrize("module", SOURCES)
def test_every_folder_with_code_is_a_package_and_so_gets_installed(module: str) -> None:
    assert (SOURCES[module].parent / "__init__.py").is_file()


def test_importing_the_package_imports_no_torch() -> None:
    assert "ase_fastchgnet" in modules_loaded_by("import ase_fastchgnet")
    assert not modules_loaded_by("import ase_fastchgnet") & {"torch", "numpy", "ase"}


def test_the_plugin_that_ase_loads_at_start_up_imports_no_torch() -> None:
    assert "torch" not in modules_loaded_by("import ase_fastchgnet.plugin")


def test_the_calculator_needs_none_of_the_optional_packages() -> None:
    optional = {"chgnet", "dask", "matplotlib", "phonopy", "pymatgen", "rich", "tensorboard"}
    assert not modules_loaded_by("from ase_fastchgnet import FastCHGNet, evaluate, load_checkpoint") & optional


def test_the_entry_point_leads_to_the_calculator() -> None:
    ((name, target),) = PROJECT["project"]["entry-points"]["ase.plugins"].items()
    (plugin,) = importlib.import_module(target).__ase_plugins__
    assert (name, plugin.name) == ("ase_fastchgnet", "fastchgnet")
    assert plugin.implementation is importlib.import_module("ase_fastchgnet").FastCHGNet


def test_all_public_names_can_be_imported() -> None:
    package = importlib.import_module("ase_fastchgnet")
    assert all(hasattr(package, name) for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))


def test_one_version_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert importlib.import_module("ase_fastchgnet").__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert version in (ROOT / "CHANGELOG.md").read_text()


def requirements(*extras: str) -> list[Any]:
    project = PROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    "requirement", requirements("cluster", "dev", "gpu", "parquet", "phonons", "plot", "pymatgen", "train"), ids=str
)
def test_the_tested_version_of_every_requirement_is_pinned_and_allowed(requirement: Requirement) -> None:
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)


def test_make_installs_the_torch_that_is_pinned() -> None:
    installed = re.findall(r"torch==([\d.]+)", (ROOT / "Makefile").read_text())
    assert installed == [PINS["torch"]]


def test_both_packages_say_that_they_are_typed() -> None:
    assert (ROOT / "ase_fastchgnet/py.typed").is_file()
    assert (ROOT / "kernels/fastchgnet_kernels/py.typed").is_file()
