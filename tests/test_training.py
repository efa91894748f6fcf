"""Training: what it makes, what it compares, and that a stopped run goes on as if it had not stopped."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from vidanon.cli import main
from vidanon.errors import SettingsError
from vidanon.geometry import fit_similarity
from vidanon.models.registry import ModelStore, weights_path
from vidanon.networks.mapper import AttributeMapper, gaze_offsets, load_attribute_mapper
from vidanon.training import readers
from vidanon.training.augment import attribute_crop
from vidanon.training.ceiling import descend
from vidanon.training.config import (
    Losses,
    TrainConfig,
    load_config,
    training_folder,
)
from vidanon.training.data import FaceReader, load_samples
from vidanon.training.feed import Feeder
from vidanon.training.losses import Discriminator, LossTerms, discriminator_loss
from vidanon.training.run import Run
from vidanon.training.surrogate import explained
from vidanon.training.trainer import Spread, Trainer
from vidanon.training.traits import TRAITS_SIZE, Traits, TraitSpace, aligned_landmarks, split

SILENT = lambda *_: None  # noqa: E731
TINY = """
seed = 3
sheet_every = 4
[data]
drawn = 24
made = 8
held_out = 16
shard = 8
[surrogate]
members = 2
width = 64
depth = 2
steps = 30
batch = 16
[[stages]]
steps = 6
batch = 4
[stages.losses]
identity = 1.0
stranger = 1.0
pose = 1.0
gaze = 1.0
expression = 1.0
landmarks = 1.0
latent = 1.0
adversarial = 0.1
prior = 1.0
[[stages]]
reader = "generator"
steps = 1
batch = 2
cross = 0.0
fresh = 8
[stages.losses]
identity_l1 = 1.0
landmarks_jawless = 0.001
picture = 1.0
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run, made by the command, real networks and all."""
    root = tmp_path_factory.mktemp("training")
    config = root / "tiny.toml"
    config.write_text(TINY)
    folder = root / "run"
    result = CliRunner().invoke(main, ["train", "--config", str(config), "--run", str(folder)])
    assert result.exit_code == 0, result.output
    assert str(folder / "mapper.safetensors") in result.output
    return folder


def test_a_run_leaves_weights_sheets_and_a_log(finished: Path) -> None:
    from safetensors.torch import load_file

    model = AttributeMapper()
    model.load_state_dict(load_file(finished / "mapper.safetensors"))
    assert model.mapper.turn.slopes.abs().sum(1).min() > 0 and model.mapper.turn.lack.abs().min() > 0
    assert (finished / "mapper.safetensors").stat().st_size < 20e6
    assert list(finished.glob("sheet-*.png"))
    assert list((finished / "log").glob("events.out.tfevents.*"))


def test_a_folder_with_a_run_is_not_overwritten(finished: Path) -> None:
    before = (finished / "mapper.safetensors").read_bytes()
    result = CliRunner().invoke(main, ["train", "--run", str(finished)])
    assert result.exit_code == 6
    assert "--resume" in result.output
    assert (finished / "mapper.safetensors").read_bytes() == before


def _run(finished: Path, config: TrainConfig) -> Run:
    return Run(config, finished, ModelStore(), "cpu", 1, SILENT)


@pytest.fixture(scope="module")
def parts(finished: Path) -> tuple[Feeder, TraitSpace, Spread, TrainConfig]:
    config = load_config(finished.parent / "tiny.toml")
    run = _run(finished, config)
    samples = run._samples("drawn", config.data.drawn, run._draw(0))
    space = run._space(samples)
    white = run.spread.whiten(torch.from_numpy(samples.w))
    return Feeder(samples, space.traits_of(samples), white, config), space, run.spread, config


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    parts: tuple[Feeder, TraitSpace, Spread, TrainConfig], tmp_path: Path
) -> None:
    feeder, space, spread, config = parts
    config = replace(config, stages=(replace(config.stages[0], steps=5),))
    torch.manual_seed(0)
    project = torch.nn.Linear(512, TRAITS_SIZE).requires_grad_(False)

    def reader(w: torch.Tensor) -> tuple[Traits, None]:
        return split(project(spread.whiten(w))), None

    through = Trainer(config, space, spread, "cpu")
    list(through.run_stage(feeder, reader))
    stopped = Trainer(config, space, spread, "cpu")
    list(islice(stopped.run_stage(feeder, reader), 3))
    stopped.save(tmp_path / "checkpoint.pt")
    again = Trainer(config, space, spread, "cpu")
    again.load(tmp_path / "checkpoint.pt")
    reports = list(again.run_stage(feeder, reader))
    assert [report.step for report in reports] == [4, 5]
    for name, x in through.result.state_dict().items():
        torch.testing.assert_close(again.result.state_dict()[name], x, atol=0, rtol=0, msg=name)


def test_a_run_starts_from_earlier_weights(
    parts: tuple[Feeder, TraitSpace, Spread, TrainConfig], finished: Path
) -> None:
    feeder, space, spread, config = parts
    inputs = feeder.draw(config.stages[0], 0, 0)
    trainer = Trainer(config, space, spread, "cpu")
    random = trainer.latents(inputs)
    trainer.start_from(weights_path("mapper.safetensors"), space)
    model = load_attribute_mapper()
    earlier = model.mapper(inputs.batch.identity, model.attributes(inputs.crop), inputs.expression)
    torch.testing.assert_close(trainer.latents(inputs) - spread.mean, earlier - model.mapper.w_mean)
    assert float((random - trainer.latents(inputs)).abs().mean()) > 0.01


def test_surrogates_read_better_together(finished: Path) -> None:
    config = load_config(finished.parent / "tiny.toml")
    run = _run(finished, config)
    samples = run._samples("drawn", config.data.drawn, run._draw(0))
    space = run._space(samples)
    w, truth = torch.from_numpy(samples.w), space.traits_of(samples)
    surrogate = run._surrogate("first", samples, space, samples)
    alone = [explained(member, w, truth)["landmarks"] for member in surrogate.members]
    assert len(alone) == 2
    assert explained(surrogate, w, truth)["landmarks"] > np.mean(alone)
    dealt = surrogate.dealt(w)
    half = len(w) // 2
    torch.testing.assert_close(dealt.pose[:half], surrogate.members[0](w[:half]).pose)
    torch.testing.assert_close(dealt.pose[half:], surrogate.members[1](w[half:]).pose)


def test_every_third_step_rebuilds_one_face(parts: tuple[Feeder, TraitSpace, Spread, TrainConfig]) -> None:
    feeder, _, _, config = parts
    drawn = [feeder.draw(config.stages[0], 0, step).batch for step in range(6)]
    assert [batch.same for batch in drawn] == [False, False, True] * 2
    torch.testing.assert_close(drawn[2].identity, drawn[2].source.embedding)
    again = feeder.draw(config.stages[0], 0, 4)
    torch.testing.assert_close(again.batch.identity, drawn[4].identity, atol=0, rtol=0)


def test_losses_vanish_for_the_face_itself_and_only_then(
    parts: tuple[Feeder, TraitSpace, Spread, TrainConfig],
) -> None:
    feeder, space, _, config = parts
    batch = feeder.draw(config.stages[0], 0, 2).batch
    losses = Losses(identity=1, identity_l1=1, pose=1, gaze=1, expression=1, landmarks=1, latent=1)
    losses = replace(losses, landmarks_jawless=1.0, thumbnail=1.0)
    terms = LossTerms(space)
    same = terms(batch.source, batch.white, batch, losses, None)
    assert max(float(x) for x in same.values()) < 1e-5
    other = feeder.draw(config.stages[0], 0, 5).batch
    different = terms(other.source, other.white, batch, losses, None)
    assert min(float(x) for x in different.values()) > 1e-3
    assert (
        set(same)
        == set(different)
        == {
            *("identity", "identity_l1", "pose", "gaze", "expression"),
            *("landmarks", "latent", "landmarks_jawless", "thumbnail"),
        }
    )


def test_resemblance_to_the_attribute_source_costs(
    parts: tuple[Feeder, TraitSpace, Spread, TrainConfig],
) -> None:
    feeder, space, _, config = parts
    batch = feeder.draw(config.stages[0], 0, 0).batch
    terms, losses = LossTerms(space), Losses(stranger=1.0)
    copied = terms(batch.source, batch.white, batch, losses, None)["stranger"]
    shown = replace(batch.source, embedding=batch.identity)
    right = terms(shown, batch.white, batch, losses, None)["stranger"]
    assert float(copied) > 0.2
    assert float(right) == pytest.approx(0, abs=1e-6)


def test_the_discriminator_learns_to_tell_latents_apart() -> None:
    torch.manual_seed(0)
    network = Discriminator()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    real, fake = torch.randn(256, 512), torch.randn(256, 512) * 0.3 + 0.5
    for _ in range(60):
        optimiser.zero_grad()
        discriminator_loss(network, real, fake, r1=1.0).backward()
        optimiser.step()
    with torch.no_grad():
        assert float(network(real).mean()) > float(network(fake).mean()) + 0.5


def test_the_reader_reads_what_the_frozen_networks_read(finished: Path) -> None:
    config = load_config(finished.parent / "tiny.toml")
    run = _run(finished, config)
    samples = run._samples("drawn", config.data.drawn, run._draw(0))
    space = run._space(samples)
    truth = space.traits_of(samples)[torch.arange(4)]
    w = torch.from_numpy(samples.w[:4]).requires_grad_(True)
    result, picture = readers.GeneratorReader(ModelStore(), space)(w)
    seen = split(result.flat().detach())
    assert picture.shape == (4, 3, 128, 128)
    assert float((seen.embedding * truth.embedding).sum(1).min()) > 0.9
    assert float((seen.pose - truth.pose).abs().max()) < 0.3
    assert float((seen.gaze - truth.gaze).abs().mean()) < 0.4
    result.flat().sum().backward()
    assert w.grad is not None and float(w.grad.abs().sum()) > 0


def test_a_descent_on_w_brings_a_face_nearer_to_another_identity(finished: Path) -> None:
    models = ModelStore()
    run = _run(finished, load_config(finished.parent / "tiny.toml"))
    samples = load_samples(run.folder.data("drawn"), 3)
    spread = run.spread.mean.numpy(), run.spread.std.numpy()
    wanted = samples.embeddings[1:2]
    before, after = descend(samples.w[:1], samples, wanted, spread, models, (0, 4))
    np.testing.assert_allclose(before, samples.w[:1], atol=1e-4)
    reader = FaceReader(models, 1)
    likeness = [float(reader.read(w[0]).embeddings[0] @ wanted[0]) for w in (before, after)]
    assert likeness[1] > likeness[0] + 0.02


@settings(max_examples=20)
@given(
    angle=st.floats(-3, 3), scale=st.floats(0.2, 5), shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50))
)
def test_traits_do_not_depend_on_where_the_face_is(
    angle: float, scale: float, shift: tuple[float, float]
) -> None:
    face = _face()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    moved = (face @ turn.T * scale + np.array(shift)).astype(np.float32)
    pair = aligned_landmarks(np.stack([face, moved]))
    np.testing.assert_allclose(pair[1], pair[0], atol=2e-3)
    torch_pair = readers.align(torch.from_numpy(np.stack([face, moved]))).numpy()
    np.testing.assert_allclose(torch_pair, pair, atol=2e-3)
    gaze = gaze_offsets(torch.from_numpy(np.stack([face, moved]))).numpy()
    np.testing.assert_allclose(gaze[1], gaze[0], atol=2e-3)


def _face() -> np.ndarray:
    random = np.random.default_rng(4)
    face = random.uniform(0.2, 0.8, (478, 2)).astype(np.float32)
    eyes = {33: (0.3, 0.45), 133: (0.42, 0.45), 362: (0.56, 0.45), 263: (0.68, 0.45)}
    lids = {159: (0.36, 0.43), 145: (0.36, 0.47), 386: (0.62, 0.43), 374: (0.62, 0.47)}
    mouth = {61: (0.4, 0.72), 291: (0.6, 0.72), 468: (0.36, 0.45), 473: (0.62, 0.45)}
    for index, point in (eyes | lids | mouth).items():
        face[index] = point
    return face


def test_gaze_is_where_the_iris_is() -> None:
    face = torch.from_numpy(_face())[None].repeat(2, 1, 1)
    face[1, 468, 0] += 0.03
    offset = gaze_offsets(face)
    assert float(offset[1, 0] - offset[0, 0]) == pytest.approx(0.25, abs=1e-3)
    torch.testing.assert_close(offset[1, 1:], offset[0, 1:])


def test_similarities_agree_with_those_of_the_pipeline() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0, 1, (2, 5, 2)).astype(np.float32)
    ours = readers.similarity(torch.from_numpy(a)[None], torch.from_numpy(b)[None])[0].numpy()
    np.testing.assert_allclose(ours, fit_similarity(a, b), atol=1e-5)


def test_the_plain_crop_of_an_aligned_face_is_the_picture() -> None:
    face = aligned_landmarks(_face()[None])[0]
    random = np.random.default_rng(0)
    picture = np.asarray(random.integers(0, 255, (128, 128, 3)), np.uint8)
    crop = attribute_crop(picture, face, None)
    np.testing.assert_allclose((crop.transpose(1, 2, 0) + 1) * 127.5, picture, atol=2)
    poor = attribute_crop(picture, face, np.random.default_rng(1))
    np.testing.assert_array_equal(poor, attribute_crop(picture, face, np.random.default_rng(1)))
    assert np.abs(poor - crop).mean() > 0.01


def test_shipped_configurations_load() -> None:
    assert {path.stem for path in training_folder().glob("*.toml")} == {"default", "paper"}
    paper = load_config(training_folder() / "paper.toml")
    assert (paper.data.drawn, paper.stages[0].batch, paper.data.truncation) == (70000, 6, (0.7, 0.7))
    assert not paper.data.made and [stage.reader for stage in paper.stages] == ["generator"]
    default = load_config(training_folder() / "default.toml")
    assert [stage.reader for stage in default.stages] == ["surrogate"] * 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("sed = 1", "unknown option 'sed'"),
        ("seed = 'x'", "expected a int"),
        ("[[stages]]\nreader = 'magic'", "choose surrogate or generator"),
        ("[[stages]]\n[stages.losses]\npicture = 1.0", "needs reader"),
        ("seed = ", "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_config(path)
