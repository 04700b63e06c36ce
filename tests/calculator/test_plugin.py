"""ASE finds the calculator by its name."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from ase._4.plugins import PluginCollection, plugins
from ase._4.plugins.plugin import CalculatorPlugin

import ase_fastchgnet
from ase_fastchgnet import FastCHGNet

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_entry_point_leads_to_the_calculator() -> None:
    (name, value) = PROJECT["entry-points"]["ase.plugins"].popitem()
    module = EntryPoint(name, value, "ase.plugins").load()
    (plugin,) = module.__ase_plugins__
    assert isinstance(plugin, CalculatorPlugin)
    assert plugin.name == "fastchgnet"
    assert plugin() is FastCHGNet


def test_ase_lists_it_where_the_package_is_installed() -> None:
    assert isinstance(plugins, PluginCollection)
    found = [plugin for plugin in plugins.calculators if plugin.name == "fastchgnet"]
    if not found:
        pytest.skip("a bare checkout: no entry points")
    assert found[0]() is FastCHGNet
    assert found[0].version == ase_fastchgnet.__version__
    assert "fastchgnet" in plugins.display()


def test_the_version_is_that_of_the_project() -> None:
    assert ase_fastchgnet.__version__ == PROJECT["version"]


def test_the_package_exports_what_it_says() -> None:
    for name in ase_fastchgnet.__all__:
        assert getattr(ase_fastchgnet, name) is not None
    assert callable(ase_fastchgnet.evaluate)
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        ase_fastchgnet.unheard_of  # noqa: B018
