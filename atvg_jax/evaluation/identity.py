"""Whether two faces are one person's, by dlib's face-recognition network.

The network is ``dlib_face_recognition_resnet_model_v1`` (a ResNet with 29 convolutions, D. King,
2017), from the package that the 68-point predictor comes from; nothing of it is unpickled. It was
trained so that two pictures of one person lie closer than 0.6 to each other.
"""

import importlib.metadata
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features import faces
from atvg_jax.features.landmarks import bundled_face_shape

NETWORK = "dlib_face_recognition_resnet_model_v1"
CHIP_SIZE = 150  # pixels that the network sees
DESCRIPTOR = 128

# dlib's chip, in its own terms: a quarter of the face's size is added on every side.
_CHIP_PADDING = 0.25

FloatArray = npt.NDArray[np.float64]


@cache
def _network() -> Any:
    try:
        import dlib

        package = importlib.metadata.distribution("face-recognition-models")
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        raise InputError(
            "identity similarity needs dlib and its model: pip install dlib-bin "
            "face-recognition-models",
            reason="missing_package",
        ) from error
    path = package.locate_file(f"face_recognition_models/models/{NETWORK}.dat")
    return dlib.face_recognition_model_v1(str(path))


def identity_descriptors(
    frames: npt.ArrayLike, landmarks: npt.ArrayLike | None = None
) -> FloatArray:
    """The network's description of each face.

    Args:
        frames: (..., H, W, 3) uint8.
        landmarks: (..., 68, 2) pixels of the frames. None: the frames are aligned crops, and the
            face is where alignment puts the mean face.

    Returns:
        (..., 128) float64.
    """
    import dlib

    pictures = np.asarray(frames)
    if pictures.ndim < 3 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"frames are (..., H, W, 3) uint8, not {pictures.shape} {pictures.dtype}")
    leading = pictures.shape[:-3]
    if landmarks is None:
        scale = np.array(pictures.shape[-2:-4:-1]) / faces.CROP_SIZE  # width, height
        points = np.broadcast_to(_mean_face() * scale, (*leading, 68, 2))
    else:
        points = np.asarray(landmarks, np.float64)
    if points.shape != (*leading, 68, 2):
        raise ValueError(f"landmarks of frames {pictures.shape} are not {points.shape}")
    found = []
    for picture, shape in zip(
        pictures.reshape(-1, *pictures.shape[-3:]), points.reshape(-1, 68, 2), strict=True
    ):
        left, top, right, bottom = (round(side) for side in faces.landmark_box(shape))
        parts = [dlib.point(round(x), round(y)) for x, y in shape]
        detection = dlib.full_object_detection(dlib.rectangle(left, top, right, bottom), parts)
        picture = np.ascontiguousarray(picture)
        chip = dlib.get_face_chip(picture, detection, CHIP_SIZE, _CHIP_PADDING)
        found.append(np.array(_network().compute_face_descriptor(chip)))
    return np.reshape(found, (*leading, DESCRIPTOR)).astype(np.float64)


@cache
def _mean_face() -> FloatArray:
    """(68, 2) pixels of the crop where alignment puts the mean face."""
    mean = np.asarray(bundled_face_shape().mean_shape, np.float64)
    return faces.apply(faces.crop_matrix(mean), mean)


def identity_similarity(
    real: npt.ArrayLike,
    generated: npt.ArrayLike,
    real_landmarks: npt.ArrayLike | None = None,
    generated_landmarks: npt.ArrayLike | None = None,
) -> FloatArray:
    """Cosine of the angle between the network's descriptions of two faces.

    Args:
        real: (..., H, W, 3) uint8.
        generated: (..., H, W, 3) uint8 with the same leading axes.
        real_landmarks: (..., 68, 2) pixels of ``real``; None: aligned crops.
        generated_landmarks: the same of ``generated``.

    Returns:
        (...) float64 in [-1, 1]; 1 is the same picture.
    """
    return cosine(
        identity_descriptors(real, real_landmarks),
        identity_descriptors(generated, generated_landmarks),
    )


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """(...) cosine of the angle between the (..., n) vectors of ``a`` and of ``b``."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"vectors of {x.shape} cannot be compared with {y.shape}")
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return (x * y).sum(axis=-1) / np.maximum(lengths, 1e-300)
