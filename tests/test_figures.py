"""What the figures of the learned map say of made-up people whose truth is known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vidanon.cli import main
from vidanon.errors import InputError, ModelsError
from vidanon.evaluate_mapper import images_in
from vidanon.figures import (
    Seen,
    cross_figures,
    group_means,
    groups_of,
    likeness_figures,
    same_figures,
    w_figures,
)
from vidanon.measures import ms_ssim, psnr_db
from vidanon.models.registry import ModelStore
from vidanon.networks.mapper import load_attribute_mapper
from vidanon.sheets import write_picture

RANDOM = np.random.default_rng(3)


def person(number: int) -> Seen:
    random = np.random.default_rng(number)
    identity = random.standard_normal(128).astype(np.float32)
    identity /= np.linalg.norm(identity)
    return Seen(
        picture=random.integers(0, 256, (256, 256, 3)).astype(np.uint8),
        landmarks=random.uniform(60, 200, (478, 2)).astype(np.float32),
        blendshapes=random.uniform(0, 1, 52).astype(np.float32),
        embeddings={"SFace": identity, "EdgeFace": identity, "dlib": identity * np.float32(0.6)},
        turn=np.eye(3, dtype=np.float32),
    )


PEOPLE = [person(number) for number in range(40)]
OTHERS = PEOPLE[1:] + PEOPLE[:1]


def with_identity_of(attributes: Seen, identity: Seen) -> Seen:
    return replace(attributes, embeddings=identity.embeddings)


def test_perfect_disentanglement_takes_identity_from_one_and_all_else_from_the_other() -> None:
    outputs = [with_identity_of(a, b) for a, b in zip(PEOPLE, OTHERS, strict=True)]
    figures = cross_figures(PEOPLE, OTHERS, outputs)

    assert figures["sface_identity"] == pytest.approx(1) and figures["dlib_identity"] == pytest.approx(0)
    assert abs(figures["sface_attributes"]) < 0.1 and figures["dlib_gap"] > 0.5
    assert figures["sface_tpr_identity"] == figures["dlib_tpr_identity"] == 1
    assert figures["sface_tpr_attributes"] < 0.1 and figures["dlib_tpr_attributes"] < 0.1
    assert figures["nme"] == figures["pose_error_deg"] == figures["blendshape_mae"] == 0
    assert figures["landmarks_kept"] == figures["blendshapes_kept"] == 1
    assert figures["correlation"]["blink"] == pytest.approx(1)


def test_a_map_that_ignores_the_identity_fails_both_ways() -> None:
    figures = cross_figures(PEOPLE, OTHERS, PEOPLE)

    assert figures["sface_tpr_identity"] < 0.1 and figures["sface_tpr_attributes"] == 1
    assert figures["sface_gap"] < -0.8 and figures["dlib_gap"] < -0.5


def test_a_face_that_never_moves_keeps_nothing() -> None:
    still = [
        replace(seen, landmarks=PEOPLE[0].landmarks, blendshapes=PEOPLE[0].blendshapes) for seen in PEOPLE
    ]
    figures = cross_figures(PEOPLE, OTHERS, still)

    assert figures["landmarks_kept"] < 0 and figures["correlation"]["gaze_x"] is None


def test_reconstruction_of_itself_is_perfect() -> None:
    figures = same_figures(PEOPLE[:3], PEOPLE[:3])
    assert figures["psnr_db"] == 100 and figures["ms_ssim"] == pytest.approx(1)
    assert figures["sface_identity"] == pytest.approx(1)


def test_likeness_falls_with_noise_and_needs_room_for_five_scales() -> None:
    picture = np.kron(RANDOM.integers(0, 256, (24, 24, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noise = RANDOM.standard_normal(picture.shape)
    little, much = (np.clip(picture + level * noise, 0, 255).round().astype(np.uint8) for level in (5, 40))

    assert psnr_db(picture, little) == pytest.approx(34.4, abs=0.8)
    assert 1 > ms_ssim(picture, little) > ms_ssim(picture, much) > ms_ssim(picture, 255 - picture)
    assert ms_ssim(picture, little) == pytest.approx(ms_ssim(little, picture))
    with pytest.raises(ValueError, match="176 px"):
        ms_ssim(picture[:100], picture[:100])


def test_distance_to_the_latents_is_one_for_draws_and_grows_outside() -> None:
    mix = RANDOM.standard_normal((16, 16))
    reference, drawn = ((RANDOM.standard_normal((n, 16)) @ mix).astype(np.float32) for n in (4000, 500))
    figures = w_figures(drawn * 3, drawn, reference)

    assert figures["mahalanobis_drawn"] == pytest.approx(1, abs=0.1)
    assert figures["mahalanobis"] == pytest.approx(9, rel=0.1) and figures["whitened"] > 8


def test_likeness_of_people_is_compared_within_a_round_only() -> None:
    rounds = [np.eye(128, dtype=np.float32)[:5], np.eye(128, dtype=np.float32)[:5]]
    assert likeness_figures(rounds) == {"sface_mean": 0, "sface_closest": 0}


def test_apparent_groups_are_read_from_file_names() -> None:
    assert groups_of("26_1_2_20170104.jpg.chip.jpg") == ["age 26-45", "female", "asian"]
    assert groups_of("7_0_0_x.jpg") == ["age 0-12", "male", "white"]
    assert groups_of("holiday.jpg") == []

    means = group_means(
        [
            {"groups": ["female"], "sface": 0.1},
            {"groups": ["female"], "sface": 0.3},
            {"groups": ["male"], "sface": 0.8},
        ]
    )
    assert list(means) == ["all", "male", "female"]
    assert means["female"] == {"faces": 2, "sface": 0.2} and means["all"]["sface"] == 0.4


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    other = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, other)
    with pytest.raises(ModelsError, match=r"other\.safetensors.*does not fit this version"):
        load_attribute_mapper(other)
    with pytest.raises(ModelsError, match=r"missing\.safetensors"):
        load_attribute_mapper(tmp_path / "missing.safetensors")


def test_the_command_measures_the_shipped_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognisers = "dlib-resnet", "edgeface", "sface"
    for name in (*recognisers, "face-landmarker", "generator-synthesis", "generator-mapping"):
        try:
            ModelStore().path(name)
        except ModelsError as error:
            pytest.skip(f"needs model '{name}': {error}")
    pytest.importorskip("dlib", reason="dlib is optional")
    monkeypatch.setattr("vidanon.evaluate_mapper.PEOPLE", 3)
    monkeypatch.setattr("vidanon.evaluate_mapper.ATTRIBUTE_SOURCES", 1)
    monkeypatch.setattr("vidanon.evaluate_mapper.REFERENCE_DRAWS", 600)
    numbers = tmp_path / "numbers.json"
    result = CliRunner().invoke(
        main,
        ["evaluate", "--mapper", "--samples", "4", "--workers", "1", "--offline", "--json", str(numbers)],
    )

    assert result.exit_code == 0, result.output
    found = json.loads(numbers.read_text())
    cross = found["generated"]["cross"]
    assert found["generated"]["lost"] == 0 and cross["outputs"] == 4
    assert cross["sface_identity"] > cross["sface_attributes"]
    assert cross["edgeface_identity"] > cross["edgeface_attributes"]
    assert cross["dlib_identity"] < cross["dlib_attributes"]
    assert len(cross["blendshape_mae_each"]) == len(found["blendshape_names"]) == 52
    assert found["generated"]["same"]["sface_identity"] > 0.5
    assert found["nearer"]["cross"]["sface_identity"] > cross["sface_identity"]
    assert {bar["passed"] for bar in found["bars"]} <= {True, False}
    assert "SFace to the identity source" in result.output


def test_frames_and_pictures_are_taken_evenly(tmp_path: Path, plain_clip: Path) -> None:
    with pytest.raises(InputError, match="neither pictures nor videos"):
        list(images_in(tmp_path, 4))
    with pytest.raises(InputError, match="no such folder"):
        list(images_in(tmp_path / "nowhere", 4))
    shutil.copy(plain_clip, tmp_path / "b.mp4")
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    assert [name for name, _ in images_in(tmp_path, 6)] == ["a.png", "b.mp4", "b.mp4", "b.mp4"]


def test_the_command_wants_one_thing_to_measure() -> None:
    result = CliRunner().invoke(main, ["evaluate"])
    assert result.exit_code == 2 and "--clips DIR or --mapper" in result.output
