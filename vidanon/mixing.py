"""Identity of one face, attributes of another: the paper's disentanglement as an API for still pictures.

    mixer = Mixer(ModelStore())
    anna, ben = mixer.head(picture_of_anna), mixer.head(picture_of_ben)
    picture = mixer.picture(mixer.latent(anna.identity, mixer.attributes(ben)))

("Face Identity Disentanglement via Latent Space Mapping", Nitzan et al. 2020, sections 3 and 4.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.errors import InputError
from vidanon.geometry import apply, unit_crop_from_frame
from vidanon.types import Face, Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore


@dataclass(frozen=True, slots=True)
class Head:
    """What the networks take of one face.

    Attributes:
        crop: float32 RGB (3, 128, 128) in [-1, 1], FFHQ alignment.
        landmarks: float32 (478, 2), in the unit crop.
        blendshapes: float32 (52,), 0..1, MediaPipe's order.
        identity: float32 (128,), unit length, SFace. Of a real person this is biometric data: memory only.
    """

    crop: Float
    landmarks: Float
    blendshapes: Float
    identity: Float


def read_picture(path: Path) -> UInt8:
    """Read a picture file upright, uint8 RGB (height, width, 3).

    Raises:
        InputError: missing, or not a picture.
    """
    from vidanon.stages.stills import read_stills

    if path.is_dir():
        raise InputError(f"{path}: is a folder; name one picture")
    return next(read_stills(path)).image


class HeadFinder:
    """Finds the face of a picture and reads what the mapper takes of it.

    Args:
        models: where the models are.
        workers: threads that will call.

    Raises:
        ModelsError: a model is missing.
    """

    def __init__(self, models: ModelStore, workers: int = 1) -> None:
        from vidanon.identity.embed import SFace
        from vidanon.settings import DetectSettings
        from vidanon.stages.detect import FaceDetector
        from vidanon.stages.landmark import Landmarker

        self._detect = FaceDetector(models, DetectSettings(), workers)
        self._landmark = Landmarker(models, workers)
        self._sface = SFace(models, workers)

    def faces(self, image: UInt8) -> list[Face]:
        """Return the faces whose mesh is found, the largest first, without embeddings."""
        boxes = [face.box for face in self._detect(image)]
        boxes.sort(key=lambda box: float(np.prod(box[2:] - box[:2])), reverse=True)
        meshes = self._landmark(image, boxes)
        return [Face(box, 1.0, *mesh) for box, mesh in zip(boxes, meshes, strict=True) if mesh is not None]

    def head(self, image: UInt8, face: Face) -> Head:
        """Return what the mapper takes of a face of :meth:`faces`."""
        from vidanon.stages.synthesize import crop_face

        assert face.landmarks is not None and face.blendshapes is not None
        crop_from_picture = unit_crop_from_frame(face.landmarks)
        return Head(
            crop_face(image, crop_from_picture),
            apply(crop_from_picture, face.landmarks),
            face.blendshapes,
            self._sface(image, face.landmarks),
        )


class Mixer:
    """Puts the identity of one face and the attributes of another together.

    Args:
        models: where the models are.
        size: side of the pictures, pixels: 128, 256, 512 or 1024.
        device: ``cpu`` or ``cuda``.
        weights: of the attribute mapper; None: those of the package.
        workers: threads that will call.

    Attributes:
        finder: finds faces in pictures.

    Raises:
        ModelsError: a model is missing.
    """

    def __init__(
        self,
        models: ModelStore,
        size: int = 512,
        device: str = "cpu",
        weights: Path | None = None,
        workers: int = 1,
    ) -> None:
        from vidanon.networks.exit_heads import load_exit_generator
        from vidanon.networks.mapper import load_attribute_mapper
        from vidanon.networks.runtime import network_from_module

        self.finder = HeadFinder(models, workers)
        self._mapper = load_attribute_mapper(weights)
        example = (np.zeros((1, 512), np.float32),)
        self._generator = network_from_module(load_exit_generator(models, size), example, device, workers)

    def head(self, image: UInt8, name: str = "picture") -> Head:
        """Read the largest face of a picture, uint8 RGB (height, width, 3).

        Raises:
            InputError: no face is found; the message begins with ``name``.
        """
        faces = self.finder.faces(image)
        if not faces:
            raise InputError(f"{name}: no face found in it; give a picture that shows one clearly")
        return self.finder.head(image, faces[0])

    def attributes(self, head: Head) -> Float:
        """Return the attribute code of a head, float32 (n,).

        It holds the encoder's code, standardised blendshapes, head rotation and gaze. Codes may be
        interpolated linearly.
        """
        import torch

        mapper = self._mapper
        with torch.inference_mode():
            expression = (
                torch.from_numpy(head.blendshapes) - mapper.blendshape_mean
            ) / mapper.blendshape_scale
            code = mapper.attributes(torch.from_numpy(head.crop[None]))
            geometry = mapper.geometry(torch.from_numpy(head.landmarks[None]))
            return np.asarray(torch.cat([code, expression[None], geometry], 1)[0].numpy(), np.float32)

    def latent(self, identity: Float, attributes: Float) -> Float:
        """Map identity (128,) of any length and an attribute code to w of the generator, float32 (512,)."""
        import torch

        from vidanon.networks.attribute_encoder import ATTRIBUTE_SIZE

        unit = (identity / max(float(np.linalg.norm(identity)), 1e-9)).astype(np.float32)
        code, expression = np.split(attributes.astype(np.float32), [ATTRIBUTE_SIZE])
        with torch.inference_mode():
            w = self._mapper.mapper(*(torch.from_numpy(part[None]) for part in (unit, code, expression)))
        return np.asarray(w[0].numpy(), np.float32)

    def picture(self, w: Float) -> UInt8:
        """Generate the face of w (512,), uint8 RGB (size, size, 3)."""
        out = self._generator(w[None])[0][0].transpose(1, 2, 0)
        return np.asarray(np.clip(out * 127.5 + 127.5, 0, 255).round(), np.uint8)

    def table(self, identities: list[Head], attributes: list[Head]) -> list[list[UInt8]]:
        """Return one row of pictures per identity and one column per attribute source."""
        codes = [self.attributes(head) for head in attributes]
        return [[self.picture(self.latent(head.identity, code)) for code in codes] for head in identities]

    def interpolation(self, start: Head, end: Head, fixed: Head, what: str, steps: int) -> list[UInt8]:
        """Return ``steps`` pictures between two heads in one respect, the other held.

        Args:
            start: shown by the first picture.
            end: shown by the last picture.
            fixed: where the other respect comes from.
            what: ``identity`` or ``attributes``.
            steps: 2 or more.

        Raises:
            ValueError: ``what`` is neither of the two.
        """
        if what not in ("identity", "attributes"):
            raise ValueError(f"what = {what!r}: choose identity or attributes")
        shares = np.linspace(0, 1, steps, dtype=np.float32)
        if what == "identity":
            code = self.attributes(fixed)
            mixed = [(start.identity * (1 - t) + end.identity * t, code) for t in shares]
        else:
            first, last = self.attributes(start), self.attributes(end)
            mixed = [(fixed.identity, first * (1 - t) + last * t) for t in shares]
        return [self.picture(self.latent(*pair)) for pair in mixed]
