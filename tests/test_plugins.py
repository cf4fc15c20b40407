"""Extension points: registries, and what other packages add to them by their entry points."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint import _plugins
from mezzotint._plugins import Registry, load_plugins
from mezzotint.cli import app
from mezzotint.errors import FormatError, PluginError, UsageError
from mezzotint.recipes import recipe_named
from tests.docs.pages import ROOT, blocks

KERNEL = """
from mezzotint.runtime import register_kernel
from mezzotint.runtime.reference_kernel import ReferenceKernel
class Added(ReferenceKernel):
    name = "added-kernel"
    def refuse(self, request):
        return "never serves"
register_kernel(Added())
"""

STRUCTURE = """
from dataclasses import dataclass
from mezzotint.plan import register_structure
from mezzotint.runtime import SplitInput
@register_structure
@dataclass(frozen=True)
class Added(SplitInput):
    kind = "added-structure"
"""

ROUNDING = """
from mezzotint.rounding import nearest, register_rounding
@register_rounding("added-rounding")
def rounded(weight, grid, moments):
    return nearest(weight, grid)
"""

METRIC = """
from dataclasses import dataclass
from mezzotint.measuring import Noise, register_metric
@register_metric
@dataclass(frozen=True)
class Added(Noise):
    kind = "added-metric"
"""

EXECUTOR = """
from mezzotint.measuring import InProcess, register_executor
@register_executor("added-executor")
def added(colour="red"):
    return InProcess
"""

RECIPE = """
import dataclasses
import mezzotint as mz
from mezzotint.recipes import Outcome, register_recipe
from mezzotint.runtime import Calibration
@dataclasses.dataclass
class Options: pass
@register_recipe("added-recipe", "decides nothing", Options)
def run(job, options):
    return Outcome(mz.Plan({}), Calibration())
"""

ENGINE = """
from mezzotint.engines import Engine, register_engine
class Added(Engine):
    name = "added-engine"
    def refuse(self, denoiser): return "never serves"
    def attach(self, denoiser): return denoiser
    def executions(self, denoiser): return ()
register_engine(Added(), preferred=False)
"""

LOOK_UP = """
import sys
import mezzotint as mz
from mezzotint import engines, measuring, recipes, rounding, runtime
print(mz.Choice("int4/channel").weight_format.name, "added_format" in sys.modules)
print(mz.Choice("ternary").weight_format.name, "added_format" in sys.modules)
print([kernel.name for kernel in runtime.registered_kernels()][0])
layer = {"weight": "int4/channel", "structures": [{"kind": "added-structure", "first": 8}]}
print(mz.Plan.from_dict({"version": 1, "layers": {"a": layer}})["a"].structures[0].kind)
print(rounding.rounding_named("added-rounding").__name__)
print(measuring.metric_named("added-metric").kind)
print(measuring.executor_named("added-executor", colour="blue").__name__)
print(recipes.recipe_named("added-recipe").name)
print([recipe.name for recipe in recipes.recipes()][0])
engines.check_engine("added-engine")
print([engine.name for engine in engines.engines()][-1])
"""


def install(folder: Path, name: str, points: dict[str, str], **modules: str) -> None:
    """A distribution as pip leaves it: modules, and what its metadata says of them.

    `points` is group → `name = module`.
    """
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = [f"[mezzotint.{group}]\n{point}\n" for group, point in points.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))


def test_what_a_package_adds_is_found(tmp_path: Path):
    ternary = next(
        block
        for block in blocks(ROOT / "docs" / "extending.md", "python")
        if "register_weight_format" in block
    )
    points = {
        "formats": "ternary = added_format",
        "kernels": "never = added_kernel",
        "structures": "split = added_structure",
        "roundings": "nearest = added_rounding",
        "metrics": "noise = added_metric",
        "executors": "slow = added_executor",
        "recipes": "nothing = added_recipe",
        "engines": "never = added_engine",
    }
    install(
        tmp_path,
        "additions",
        points,
        added_format=ternary,
        added_kernel=KERNEL,
        added_structure=STRUCTURE,
        added_rounding=ROUNDING,
        added_metric=METRIC,
        added_executor=EXECUTOR,
        added_recipe=RECIPE,
        added_engine=ENGINE,
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", LOOK_UP],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert result.stdout.splitlines() == [
        "int4/channel False",
        "ternary True",
        "added-kernel",
        "added-structure",
        "rounded",
        "added-metric",
        "InProcess",
        "added-recipe",
        "added-recipe",
        "added-engine",
    ], result.stderr


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, for a process that has not looked for any yet."""
    monkeypatch.setattr(_plugins, "_loaded", set())
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_modules_are_imported_once_and_for_their_group_only(site: Path):
    count = "import pathlib\nwith open({!r}, 'a') as file: file.write('x')\n"
    imports = site / "imports"
    install(
        site,
        "counting",
        {"structures": "one = counted_structure", "metrics": "two = counted_metric"},
        counted_structure=count.format(str(imports)),
        counted_metric=count.format(str(imports)),
    )
    for expected in ("x", "x"):
        load_plugins("structures")
        assert imports.read_text() == expected
    load_plugins("metrics")
    assert imports.read_text() == "xx"


def test_a_plugin_may_look_into_the_registry_that_it_adds_to(site: Path):
    text = "from mezzotint._plugins import load_plugins\nload_plugins('structures')\n"
    install(site, "curious", {"structures": "it = curious_structure"}, curious_structure=text)
    load_plugins("structures")
    assert "curious_structure" in sys.modules


def test_kernels_are_found_while_a_compiler_traces_the_first_call(site: Path):
    install(site, "tracing", {"kernels": "it = traced_kernel"}, traced_kernel="")
    module = mz.quantize_denoiser(nn.Sequential(nn.Linear(4, 4)), weight_bits=8)
    x = torch.ones(2, 4, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert "traced_kernel" not in sys.modules
    assert torch.equal(compiled(x), module(x))
    assert "traced_kernel" in sys.modules


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError"),
    ],
    ids=["import", "exception", "syntax"],
)
def test_a_module_that_cannot_be_imported_is_named_each_time(site: Path, text: str, why: str):
    install(site, "broken", {"metrics": "it = broken_metric"}, broken_metric=text)
    where = r"broken 1\.0, entry point mezzotint\.metrics: it = broken_metric"
    for _ in range(2):
        with pytest.raises(PluginError, match=f"{where}: cannot be imported .{why}.*uninstall"):
            load_plugins("metrics")


def test_a_missing_module_is_named(site: Path):
    install(site, "empty", {"metrics": "it = no_such_metric"})
    with pytest.raises(PluginError, match=r"empty 1\.0.*No module named 'no_such_metric'"):
        load_plugins("metrics")


def test_the_command_line_reports_a_broken_package(site: Path):
    install(site, "broken", {"recipes": "it = broken_recipe"}, broken_recipe="1 / 0")
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: broken 1.0, entry point mezzotint.recipes: it")


def test_a_recipe_cannot_take_the_name_of_a_built_in_one(site: Path):
    install(
        site,
        "greedy",
        {"recipes": "it = greedy_recipe"},
        greedy_recipe=RECIPE.replace("added-recipe", "auto"),
    )
    assert recipe_named("auto").options is mz.Auto
    with pytest.raises(PluginError, match=r"greedy 1\.0.*greedy_recipe\.run: 'auto' is the recipe"):
        recipe_named("unknown")
    assert recipe_named("auto").options is mz.Auto


class Red:
    """Something to register."""


class Blue:
    """Something else."""


class TestRegistry:
    @pytest.fixture
    def colours(self, site: Path) -> Registry[str]:
        registry: Registry[str] = Registry("metrics", "colour", FormatError, reserved=("any",))
        registry.add("red", "#f00", Red)
        return registry

    def test_a_second_definition_of_a_name_is_refused_and_both_are_named(self, colours):
        why = r"test_plugins\.Blue: 'red' is the colour tests\.test_plugins\.Red; rename yours"
        with pytest.raises(UsageError, match=why):
            colours.add("red", "#00f", Blue)
        assert colours.named("red") == "#f00"

    def test_the_same_definition_may_come_again(self, colours):
        colours.add("blue", "#00f", Blue)
        colours.add("red", "#e00", Red)
        assert colours.all() == ("#e00", "#00f")

    def test_a_reserved_name_is_refused(self, colours):
        with pytest.raises(UsageError, match=r"Blue: no colour can be named 'any'"):
            colours.add("any", "#00f", Blue)

    def test_an_unknown_name_is_answered_with_all_there_are(self, colours):
        colours.add("blue", "#00f", Blue)
        with pytest.raises(FormatError, match=r"unknown colour 'x'; there are: any, blue, red$"):
            colours.named("x")

    def test_things_are_asked_in_order(self, colours):
        colours.add("blue", "#00f", Blue)
        colours.add("green", "#0f0", Blue, first=True)
        assert colours.all() == ("#0f0", "#f00", "#00f")

    def test_a_known_name_imports_no_foreign_module(self, site: Path, colours):
        install(site, "broken", {"metrics": "it = broken_metric"}, broken_metric="1 / 0")
        assert colours.named("red") == "#f00"
        for look_up in (lambda: colours.named("blue"), colours.all):
            with pytest.raises(PluginError, match="broken"):
                look_up()
