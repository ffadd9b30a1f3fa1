"""A talking face made of one photograph, in crops and in videos."""

import jax
import numpy as np
import pytest
from PIL import Image

from atvg_jax import assets, compilation_cache
from atvg_jax.evaluation.footage import Crops
from atvg_jax.features import faces, images


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """The persistent compilation cache in a folder of the tests' own."""
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("compiled"))
        patch.setenv(compilation_cache.ENVIRONMENT_VARIABLE, folder)
        yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(256, 256, 3) uint8: the head of the bundled portrait."""
    picture = Image.fromarray(images.read_image(assets.portrait_path("hopper")))
    return np.asarray(picture.resize((256, 256), Image.Resampling.LANCZOS))


def speaking(picture: np.ndarray, landmarks: np.ndarray, count: int, rate: float = 0.9):
    """Frames in which what is below the lips' seam goes down and up again, smoothly."""
    height, width, _ = picture.shape
    x0, x1 = landmarks[[48, 54], 0]
    seam, chin = landmarks[[62, 66], 1].mean(), landmarks[8, 1]
    y, x = np.mgrid[:height, :width].astype(float)
    reach = np.clip(1 - np.abs(x - (x0 + x1) / 2) / (0.7 * (x1 - x0)), 0, 1)
    reach = reach * np.clip((chin - y) / (chin - seam), 0, 1) * (y > seam)
    for t in range(count):
        drop = 0.06 * height * (0.5 - 0.5 * np.cos(rate * t)) * reach
        rows = np.clip(np.rint(y - drop), 0, height - 1).astype(int)
        frame = picture[rows, x.astype(int)]
        frame[(drop > y - seam) & (y > seam)] = (60, 20, 20)
        yield frame


@pytest.fixture(scope="session")
def crops(portrait) -> Crops:
    """20 aligned frames."""
    face = faces.align(portrait)
    pictures = np.stack(list(speaking(face.crop, face.landmarks, 20)))
    landmarks = np.tile(face.landmarks.astype(np.float64), (20, 1, 1))
    pose = np.zeros((20, 3))
    pose[:, 0] = np.arange(20)
    return Crops(pictures, landmarks, pose)
