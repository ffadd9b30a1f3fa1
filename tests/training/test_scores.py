"""Scores of held-out frames against the libraries that define them."""

import jax
import numpy as np
import pytest

from atvg_jax import assets
from atvg_jax.evaluation import metrics
from atvg_jax.features import faces, images
from atvg_jax.training import mouths, scores


def frames(seed):
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.standard_normal((2, 3, 20, 24, 3)), axis=2)
    return np.clip(smooth / 6 + 0.1 * seed, -1, 1).astype(np.float32)


def test_ssim_and_psnr_are_the_usual_ones():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = frames(0), frames(1)
    b = (0.7 * a + 0.3 * b).astype(np.float32)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        np.mean(
            [
                structural_similarity(x, y, channel_axis=-1, data_range=2.0, **settings)
                for x, y in zip(*clips, strict=True)
            ]
        )
        for clips in zip(a.astype(np.float64), b.astype(np.float64), strict=True)
    ]
    assert max(expected) < 0.95
    np.testing.assert_allclose(jax.jit(scores.ssim)(a, b), expected, atol=1e-4)
    np.testing.assert_allclose(scores.ssim(a, a), 1, atol=1e-6)
    by_frame = 10 * np.log10(4 / np.square(a - b).mean(axis=(2, 3, 4)))
    np.testing.assert_allclose(scores.psnr(a, b), by_frame.mean(axis=1), rtol=1e-5)


def test_mouths_are_measured_as_the_evaluation_does():
    crop = faces.align(images.read_image(assets.portrait_path())).crop
    stretched = np.concatenate([crop[:92], np.repeat(crop[92:110], 2, axis=0)])[:128]
    real = np.stack([crop, crop, stretched])[None]
    made = np.stack([crop, stretched, stretched])[None]
    batch = {"frames": real, "example_image": crop[None]}
    found = mouths.mouth_distances(batch, made / np.float32(127.5) - 1)
    points = [faces.predict_landmarks(picture, mouths._crop_box()) for picture in (crop, stretched)]
    expected = float(metrics.landmark_distance(*points, "mouth"))
    assert expected > 0.5
    # One of three frames differs from the real one, and one from the portrait.
    for name in ("landmark_distance", "static_landmark_distance"):
        assert found[name].shape == (1,)
        assert found[name][0] == pytest.approx(expected / 3, rel=1e-3)


def test_the_mouth_is_looked_for_where_the_alignment_puts_it():
    crop = faces.align(images.read_image(assets.portrait_path())).crop
    left, top, right, bottom = np.subtract(mouths._crop_box(), faces.detect(crop)[0].box)
    assert max(abs(left), abs(top), abs(right), abs(bottom)) < 0.2 * 128


def test_without_the_predictor_there_is_no_landmark_distance(monkeypatch):
    monkeypatch.setattr(mouths, "_predictor_is_there", lambda: False)
    assert mouths.mouth_distances({}, np.zeros((1, 2, 128, 128, 3))) == {}
