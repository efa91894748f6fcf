"""The networks: generator, early exits, attribute encoder and mapper, and their compiled forms."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch.nn import functional

from vidanon.errors import ModelsError
from vidanon.models.registry import ModelStore, weights_path
from vidanon.networks.dlib_resnet import load_dlib_net
from vidanon.networks.exit_heads import EXITS_PX, arrange_for_inference, load_exit_generator
from vidanon.networks.generator import WIDTHS, Generator, inverse_haar, load_generator, load_mapping
from vidanon.networks.mapper import load_attribute_mapper
from vidanon.networks.runtime import (
    OpenVinoNetwork,
    graph_from_module,
    network_from_file,
    network_from_module,
)
from vidanon.networks.torch_graph import TorchGraph
from vidanon.networks.weights import load_weights
from vidanon.training.exits import haar

PSNR_FLOOR_DB = {128: 26.5, 256: 29.0, 512: 32.0}
"""Below these an exit no longer looks like the full picture."""


@pytest.fixture(scope="module")
def models() -> ModelStore:
    return ModelStore()


@pytest.fixture(scope="module")
def generator(models: ModelStore) -> Generator:
    return load_generator(models)


@pytest.fixture(scope="module")
def w(models: ModelStore) -> np.ndarray:
    """Latents of two fictional people, truncated as the pipeline does."""
    mapping = load_mapping(models)
    rng = np.random.default_rng(7)
    mean = mapping(rng.standard_normal((2048, 512)).astype(np.float32))[0].mean(0)
    (raw,) = mapping(rng.standard_normal((2, 512)).astype(np.float32))
    return (mean + 0.7 * (raw - mean)).astype(np.float32)


@pytest.fixture(scope="module")
def picture(generator: Generator, w: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return generator(torch.from_numpy(w))


def test_generator_equals_openvino(models: ModelStore, w: np.ndarray, picture: torch.Tensor) -> None:
    reference = network_from_file(models.path("generator-synthesis"))
    for row, mine in zip(w, picture.numpy(), strict=True):
        np.testing.assert_allclose(mine, reference(row[None])[0][0], atol=1e-3)


def test_mapping_takes_any_batch_and_does_not_mix_rows(models: ModelStore) -> None:
    mapping = load_mapping(models)
    z = np.random.default_rng(1).standard_normal((5, 512)).astype(np.float32)
    (together,) = mapping(z)
    assert together.shape == (5, 512)
    np.testing.assert_allclose(together[3:4], mapping(z[3:4])[0], atol=1e-5)


@pytest.mark.parametrize("size", [4, 64, 256])
def test_features_have_the_documented_shape(generator: Generator, w: np.ndarray, size: int) -> None:
    with torch.inference_mode():
        assert generator.features(torch.from_numpy(w), size).shape == (2, WIDTHS[size], size, size)


def test_haar_is_its_own_inverse() -> None:
    x = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(inverse_haar(haar(x)), x)


def test_gradient_reaches_w(generator: Generator, w: np.ndarray) -> None:
    latent = torch.from_numpy(w[:1]).requires_grad_()
    generator.features(latent, 32).square().mean().backward()
    assert latent.grad is not None
    assert float(latent.grad.abs().max()) > 0


@pytest.mark.parametrize("px", EXITS_PX)
def test_exit_looks_like_the_full_picture(
    models: ModelStore, w: np.ndarray, picture: torch.Tensor, px: int
) -> None:
    with torch.inference_mode():
        small = load_exit_generator(models, px)(torch.from_numpy(w))
    assert small.shape == (2, 3, px, px)
    wanted = functional.adaptive_avg_pool2d(picture, px).clamp(-1, 1)
    psnr = 10 * torch.log10(4 / functional.mse_loss(small.clamp(-1, 1), wanted))
    assert float(psnr) > PSNR_FLOOR_DB[px]


def test_last_exit_is_the_full_generator(models: ModelStore, w: np.ndarray, picture: torch.Tensor) -> None:
    with torch.inference_mode():
        full = load_exit_generator(models, 1024)(torch.from_numpy(w[:1]))
    torch.testing.assert_close(full, picture[:1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("px", [64, 200])
def test_unknown_exit_is_refused(models: ModelStore, px: int) -> None:
    with pytest.raises(ValueError, match=f"no exit at {px} px"):
        load_exit_generator(models, px)


@pytest.mark.parametrize("px", [128, 256])
def test_compiled_exit_equals_torch_for_any_batch(models: ModelStore, w: np.ndarray, px: int) -> None:
    module = load_exit_generator(models, px)
    compiled = network_from_module(module, (w[:1],))
    with torch.inference_mode():
        wanted = module(torch.from_numpy(w)).numpy()
    np.testing.assert_allclose(compiled(w)[0], wanted, atol=1e-3)
    np.testing.assert_allclose(compiled(w[1:])[0], wanted[1:], atol=1e-3)


@pytest.mark.parametrize("px", [128, 1024])
def test_arrangement_for_inference_keeps_the_picture(models: ModelStore, w: np.ndarray, px: int) -> None:
    module = load_exit_generator(models, px)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(w[:1]))
        found = arrange_for_inference(module)(torch.from_numpy(w[:1]))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_bfloat16_looks_like_float32(models: ModelStore, w: np.ndarray) -> None:
    graph = graph_from_module(arrange_for_inference(load_exit_generator(models, 256)), (w[:1],))
    exact, fast = (OpenVinoNetwork(graph, 1, bfloat16)(w)[0] for bfloat16 in (False, True))
    error = np.square(fast.clip(-1, 1) - exact.clip(-1, 1)).mean(axis=(1, 2, 3))
    assert (10 * np.log10(4 / np.maximum(error, 1e-12)) > 45).all()


def _faces(count: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    identity = rng.standard_normal((count, 128))
    identity /= np.linalg.norm(identity, axis=1, keepdims=True)
    colours, blendshapes = rng.uniform(-1, 1, (count, 3, 2, 2)), rng.uniform(0, 0.6, (count, 52))
    crop = colours.repeat(64, 2).repeat(64, 3)
    face = rng.uniform(0.3, 0.7, (478, 2)) + rng.normal(0, 0.01, (count, 478, 2))
    return tuple(x.astype(np.float32) for x in (crop, identity, blendshapes, face))


def test_mapper_is_deterministic_and_every_input_counts() -> None:
    mapper = load_attribute_mapper()
    first, again = _faces(2), _faces(2)
    with torch.inference_mode():
        w = mapper(*map(torch.from_numpy, first))
        assert w.shape == (2, 512)
        assert w.dtype == torch.float32
        torch.testing.assert_close(w, load_attribute_mapper()(*map(torch.from_numpy, again)), atol=0, rtol=0)
        for i in range(4):
            changed = [torch.from_numpy(x) for x in first]
            changed[i] = changed[i].flip(0)
            assert float((mapper(*changed) - w).abs().mean()) > 0.01


def test_compiled_mapper_equals_torch_for_any_batch() -> None:
    mapper = load_attribute_mapper()
    faces = _faces(3)
    compiled = network_from_module(mapper, tuple(x[:1] for x in faces))
    with torch.inference_mode():
        wanted = mapper(*map(torch.from_numpy, faces)).numpy()
    np.testing.assert_allclose(compiled(*faces)[0], wanted, atol=1e-4)
    np.testing.assert_allclose(compiled(*(x[1:] for x in faces))[0], wanted[1:], atol=1e-4)


@pytest.mark.parametrize("name", ["mapper.safetensors", "exits.safetensors"])
def test_shipped_weights_are_finite(name: str) -> None:
    assert all(bool(x.isfinite().all()) for x in load_weights(weights_path(name)).values())


@pytest.mark.parametrize(("name", "shape"), [("sface", (3, 112, 112)), ("generator-mapping", (512,))])
def test_torch_graph_equals_openvino_and_takes_batches(
    models: ModelStore, name: str, shape: tuple[int, ...]
) -> None:
    path = models.path(name)
    graph = TorchGraph(ov.Core().read_model(path))
    x = np.random.default_rng(5).uniform(0, 255 if name == "sface" else 1, (2, *shape)).astype(np.float32)
    reference = network_from_file(path)
    wanted = np.concatenate([reference(row[None])[0] for row in x])
    with torch.inference_mode():
        (mine,) = graph(torch.from_numpy(x))
    np.testing.assert_allclose(mine.numpy(), wanted, atol=1e-4)


def test_torch_graph_passes_gradients(models: ModelStore) -> None:
    graph = TorchGraph(ov.Core().read_model(models.path("sface")))
    picture = torch.full((1, 3, 112, 112), 100.0, requires_grad=True)
    graph(picture)[0].square().sum().backward()
    assert picture.grad is not None
    assert float(picture.grad.abs().max()) > 0


def test_torch_graph_names_what_it_does_not_know() -> None:
    x = ov.opset8.parameter([1, 4], np.float32)
    model = ov.Model([ov.opset8.erf(x)], [x])
    with pytest.raises(ModelsError, match="Erf"):
        TorchGraph(model)


def test_dlibs_network_gives_dlibs_descriptors(models: ModelStore, tmp_path: Path) -> None:
    dlib = pytest.importorskip("dlib", reason="dlib is optional")
    if models.problem("dlib-resnet"):
        pytest.skip("dlib's model is not here")
    path = models.path("dlib-resnet")
    chip = np.random.default_rng(6).integers(0, 255, (10, 10, 3), dtype=np.uint8)
    chip = np.kron(chip, np.ones((15, 15, 1), np.uint8))
    wanted = np.array(dlib.face_recognition_model_v1(str(path)).compute_face_descriptor(chip))
    with torch.inference_mode():
        found = load_dlib_net(path)(torch.from_numpy(chip).permute(2, 0, 1)[None].float())[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    cut_off = tmp_path / "cut.dat"
    cut_off.write_bytes(path.read_bytes()[:1_000_000])
    with pytest.raises(ModelsError, match="models fetch"):
        load_dlib_net(cut_off)


def test_no_thread_is_held_to_a_core(models: ModelStore) -> None:
    """The workers of a batch would all be held to the same ones."""
    network = network_from_file(models.path("sface"), workers=1)
    allowed, seen, end = os.sched_getaffinity(0), [], threading.Event()

    def look() -> None:
        while not end.wait(0.002):
            for thread in Path("/proc/self/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    seen.append(os.sched_getaffinity(int(thread.name)))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(20):
        network(np.zeros((1, 3, 112, 112), np.float32))
    end.set()
    watcher.join()
    assert seen and all(cores == allowed for cores in seen)
