"""Converted graphs on disk: used again when nothing changed, made anew when anything did."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from vidanon import conversion
from vidanon.cli import main
from vidanon.models.registry import ModelStore
from vidanon.networks.converted import Recipe, converted_network, shared_network
from vidanon.networks.runtime import SHARED_NETWORKS, shared
from vidanon.stages.synthesize import Synthesizer

X = np.arange(4, dtype=np.float32)[None]


class Linear(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def recipe(weights: Path) -> Recipe:
    return Recipe("line", lambda: Linear(float(weights.read_text())), (X,), (weights,))


def forbidden() -> nn.Module:
    raise AssertionError("the graph is on disk and needs no module")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_text("3")
    return path


def test_graph_is_kept_and_used_again(tmp_path: Path, weights: Path) -> None:
    first = recipe(weights)
    folder = tmp_path / "models" / "converted"
    np.testing.assert_array_equal(converted_network(first, folder)(X)[0], 3 * X)
    again = converted_network(dataclasses.replace(first, build=forbidden), folder)
    np.testing.assert_array_equal(again(X)[0], 3 * X)
    assert len(list(folder.iterdir())) == 1


def test_other_weights_give_another_graph_and_the_old_one_goes(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "converted"
    converted_network(recipe(weights), folder)
    weights.write_text("5")
    np.testing.assert_array_equal(converted_network(recipe(weights), folder)(X)[0], 5 * X)
    assert len(list(folder.iterdir())) == 1


def test_damaged_graph_is_made_again(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "converted"
    converted_network(recipe(weights), folder)
    (graph,) = folder.glob("*/graph.xml")
    graph.write_text(graph.read_text()[:100])
    np.testing.assert_array_equal(converted_network(recipe(weights), folder)(X)[0], 3 * X)
    converted_network(dataclasses.replace(recipe(weights), build=forbidden), folder)


def test_module_built_otherwise_is_converted_again(tmp_path: Path, weights: Path) -> None:
    converted_network(recipe(weights), tmp_path / "converted")
    other = dataclasses.replace(recipe(weights), build=forbidden, options=(4, 3))
    with pytest.raises(AssertionError, match="needs no module"):
        converted_network(other, tmp_path / "converted")


def test_folder_that_cannot_be_written_to_is_no_obstacle(weights: Path) -> None:
    folder = weights / "converted"  # below a file
    np.testing.assert_array_equal(converted_network(recipe(weights), folder)(X)[0], 3 * X)


def test_second_run_does_without_torch() -> None:
    Synthesizer(ModelStore(), "cpu", 1).prepare(128)
    code = (
        "import sys\n"
        "from vidanon.models.registry import ModelStore\n"
        "from vidanon.networks.runtime import resolve_device\n"
        "from vidanon.stages.synthesize import Synthesizer\n"
        "Synthesizer(ModelStore(), 'cpu', 1).prepare(128)\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_network_is_loaded_once_per_process_and_again_when_its_file_changes(
    tmp_path: Path, weights: Path
) -> None:
    folder = tmp_path / "converted"
    first = shared_network(recipe(weights), folder)
    assert shared_network(dataclasses.replace(recipe(weights), build=forbidden), folder) is first
    weights.write_text("25")
    np.testing.assert_array_equal(shared_network(recipe(weights), folder)(X)[0], 25 * X)


def test_only_a_bounded_number_of_networks_stays_loaded() -> None:
    built = [shared(("test", number), object) for number in range(SHARED_NETWORKS + 1)]
    assert shared(("test", SHARED_NETWORKS), object) is built[-1]
    assert shared(("test", 0), object) is not built[0]


def test_everything_is_converted_ahead_for_stores_that_will_be_read_only() -> None:
    store = ModelStore()
    if any(store.problem(name) for name in ("generator-synthesis", "dlib-resnet")):
        pytest.skip("the models are not here; run 'vidanon models fetch'")
    result = CliRunner().invoke(main, ["models", "convert"])
    assert result.exit_code == 0, result.output
    kept = {path.name.rpartition("-")[0] for path in (store.root / "converted").iterdir()}
    exits = {f"{kind}-{size}" for kind in ("exit", "close-up") for size in (128, 256, 512, 1024)}
    assert kept >= {*exits, "mapper", "segmenter", "looks", "dlib-resnet"}


def test_the_first_run_has_all_converted_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ModelStore()
    if any(here.problem(name) for name in ("generator-synthesis", "dlib-resnet")):
        pytest.skip("the models are not here; run 'vidanon models fetch'")
    for path in here.root.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    store, calls = ModelStore(tmp_path), list[tuple[int, int]]()
    conversion.convert_ahead(store, "cpu", lambda done, total: calls.append((done, total)))
    wanted = conversion.recipes(store)
    assert calls == [(number, len(wanted)) for number in range(1, len(wanted) + 1)]
    for recipe in wanted:
        converted_network(dataclasses.replace(recipe, build=forbidden), store.converted)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("all is there"))
    conversion.convert_ahead(store, "cpu")


def test_nothing_is_converted_ahead_where_it_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "converted").write_text("in the way")
    monkeypatch.setattr(conversion, "recipes", lambda _: [recipe(tmp_path / "converted")])
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("in vain in every run"))
    conversion.convert_ahead(ModelStore(tmp_path), "cpu")
