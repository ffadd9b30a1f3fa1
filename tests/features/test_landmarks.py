"""Normalisation: golden numbers, SciPy, and what must be true of any face."""

import itertools

import numpy as np
import pytest
import scipy.spatial

from atvg_jax.features import face_shape, faces, landmarks, video
from atvg_jax.features.landmarks import LandmarkNormaliser
from tests.features.made_landmarks import face_clip, random_published

MOUTH = slice(48, 68)


# --- units ---


def test_model_units_are_five_times_flattened():
    shapes = np.random.default_rng(0).normal(size=(3, 68, 2))
    flat = landmarks.to_model(shapes)
    assert flat.shape == (3, 136)
    assert flat.dtype == np.float32
    np.testing.assert_allclose(flat[1, :4], 5 * shapes[1, :2].ravel(), rtol=1e-6)
    np.testing.assert_allclose(landmarks.from_model(flat), shapes, rtol=1e-6)


def test_mouth_opening_by_hand():
    shape = np.zeros((68, 2))
    shape[36:42], shape[42:48] = (-30, 0), (30, 0)
    shape[62], shape[66] = (0, 50), (0, 65)
    assert landmarks.mouth_opening(shape) == pytest.approx(15 / 60)
    turned = shape @ np.array([[0.6, 0.8], [-0.8, 0.6]]) * 3 + 7
    assert landmarks.mouth_opening(turned) == pytest.approx(15 / 60)
    assert landmarks.mouth_opening(np.stack([shape] * 4)[None]).shape == (1, 4)


def test_flip_is_an_involution_that_mirrors():
    order = landmarks.FLIP_PERMUTATION
    np.testing.assert_array_equal(order[order], np.arange(68))
    assert sorted(order) == list(range(68))
    fixed = np.flatnonzero(order == np.arange(68))
    np.testing.assert_array_equal(fixed, [8, 27, 28, 29, 30, 33, 51, 57, 62, 66])
    # Jaw ends, brow ends, eye corners, mouth corners: by iBUG's picture.
    for left, right in [
        (0, 16),
        (17, 26),
        (36, 45),
        (39, 42),
        (41, 46),
        (48, 54),
        (59, 55),
        (67, 65),
    ]:
        assert order[left] == right
    shape = landmarks.bundled_face_shape().mean_shape
    np.testing.assert_allclose(face_shape.mirrored(shape), shape, atol=1e-6)


def test_flip_swaps_the_sides_of_a_real_face(reference):
    shape = np.load(reference / "basics" / "mean_shape_norm.npy").reshape(68, 2)
    np.testing.assert_allclose(face_shape.mirrored(shape), shape, atol=0.012)


# --- published normalisation ---


def test_published_normalisation_golden(reference):
    with np.load(reference / "landmark_normalisation.npz") as golden:
        normaliser = LandmarkNormaliser.published(
            golden["mean_shape_image"], golden["mean_shape"], golden["shape_basis"]
        )
        found = normaliser.normalise(golden["landmarks"])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, golden["normalised"], atol=1e-6)
        aligned = landmarks.procrustes(golden["landmarks"], golden["mean_shape_image"])
        np.testing.assert_allclose(aligned, golden["aligned"], atol=1e-12)


def test_procrustes_is_scipys():
    rng = np.random.default_rng(1)
    target, shapes = rng.normal(size=(68, 2)), rng.normal(size=(5, 68, 2)) * 30 + 100
    shapes[3] *= (-1, 1)  # SciPy's mirrors where that fits better
    found = landmarks.procrustes(shapes, target)
    for shape, ours in zip(shapes, found, strict=True):
        np.testing.assert_allclose(ours, scipy.spatial.procrustes(target, shape)[1], atol=1e-12)


def test_published_definition_written_out():
    image, mean, basis = random_published()
    shapes = np.random.default_rng(2).normal(size=(4, 68, 2)) * 20 + image
    mouth = np.zeros(136)
    mouth[96:] = -0.06 * basis[1, 96:]
    standard = scipy.spatial.procrustes(image, shapes[0])[0].ravel()
    parameters = [
        basis @ (scipy.spatial.procrustes(image, shape)[1].ravel() - standard) for shape in shapes
    ]
    found = LandmarkNormaliser.published(image, mean, basis).normalise(shapes)
    for t, p in enumerate(parameters):
        expected = (p - parameters[-1] - basis @ mouth) @ basis + mean.ravel()
        np.testing.assert_allclose(found[t].ravel(), expected, atol=1e-6)


def test_published_portraits_all_come_out_the_same():
    normaliser = LandmarkNormaliser.published(*random_published())
    rng = np.random.default_rng(3)
    one, other = (normaliser.normalise(rng.normal(size=(1, 68, 2))) for _ in range(2))
    np.testing.assert_allclose(one, other, atol=1e-6)


# --- own normalisation ---


def test_bundled_shape_is_a_standard_symmetric_closed_face():
    bundled = landmarks.bundled_face_shape()
    mean, direction = bundled.mean_shape, bundled.opening_direction
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)
    assert face_shape.inner_lip_gap(mean) == pytest.approx(0, abs=1e-6)
    assert face_shape.inner_lip_gap(direction) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(face_shape.mirrored(direction), direction, atol=1e-6)
    assert direction[8, 1] > 0.3  # the chin goes down with the lower lip
    assert np.abs(direction[36:48]).max() < 0.1  # the eyes stay
    # No turn of the head opens or closes the mouth.
    effects = bundled.pose_effects.reshape(-1, 68, 2)
    np.testing.assert_allclose(face_shape.inner_lip_gap(effects), 0, atol=1e-6)


@pytest.mark.parametrize("turn", [0.0, 0.4, -0.3])
@pytest.mark.parametrize("scale", [40.0, 700.0])
def test_identity_place_size_and_roll_go_and_the_opening_stays(turn, scale):
    gaps = 0.04 * np.abs(np.sin(np.arange(30)))
    normaliser = LandmarkNormaliser.default()
    out = [
        normaliser.normalise(face_clip(gaps=gaps, seed=seed, turn=turn, scale=scale))
        for seed in (1, 2)
    ]
    assert out[0].shape == (30, 68, 2)
    assert out[0].dtype == np.float32
    # People who differ by 1 % of the face come out alike, to how their differences scale it.
    assert np.abs(out[0] - out[1]).max() < 0.006
    found = face_shape.inner_lip_gap(out[0].astype(np.float64))
    assert np.corrcoef(found, gaps)[0, 1] > 0.999
    np.testing.assert_allclose(found - found.min(), gaps - gaps.min(), atol=0.006)


def test_one_picture_keeps_its_own_opening():
    normaliser = LandmarkNormaliser.default()
    mean = landmarks.bundled_face_shape().mean_shape
    closed = normaliser.normalise(face_clip(gaps=[0.0], identity=0.0))
    np.testing.assert_allclose(closed[0], mean, atol=1e-6)
    wide = normaliser.normalise(face_clip(gaps=[0.08], identity=0.0))
    assert face_shape.inner_lip_gap(wide[0]) == pytest.approx(0.08, abs=0.004)
    # A picture and the clip that it is from agree.
    clip = face_clip(seed=5, identity=0.0)
    together = normaliser.normalise(clip)
    alone = np.concatenate([normaliser.normalise(frame[None]) for frame in clip])
    np.testing.assert_allclose(together[:, MOUTH], alone[:, MOUTH], atol=0.004)


def test_shifting_or_scaling_pixels_changes_nothing():
    clip = face_clip(noise=0.005)
    normaliser = LandmarkNormaliser.default()
    moved = normaliser.normalise(3.7 * clip - (500, 20))
    np.testing.assert_allclose(moved, normaliser.normalise(clip), atol=1e-5)


def test_mirrored_clips_give_mirrored_results():
    clip = face_clip(noise=0.01)
    normaliser = LandmarkNormaliser.default()
    expected = face_shape.mirrored(normaliser.normalise(clip))
    np.testing.assert_allclose(normaliser.normalise(face_shape.mirrored(clip)), expected, atol=1e-5)


def test_fit_face_shape_finds_what_the_clips_were_made_of():
    bundled = landmarks.bundled_face_shape()
    clips = [face_clip(seed=s, frames=60, noise=0.002, turn=0.1 * (s % 5 - 2)) for s in range(24)]
    fitted = face_shape.fit_face_shape(clips)
    assert np.abs(fitted.mean_shape - bundled.mean_shape).max() < 0.012
    assert np.abs(fitted.opening_direction - bundled.opening_direction).max() < 0.08
    assert fitted.pose_cues.shape == (136, 8)
    np.testing.assert_allclose(fitted.mean_shape, face_shape.mirrored(fitted.mean_shape), atol=1e-9)


def test_a_turning_head_is_told_from_a_moving_mouth():
    # Turning moves the whole face sideways by depth; the fit sees turns and openings mixed.
    rng = np.random.default_rng(0)
    depth = np.zeros((68, 2))
    depth[27:36, 0], depth[48:68, 0], depth[[0, 16], 0] = 0.05, 0.03, -0.05

    def turning(seed):
        angle = np.sin(np.arange(80) / (5 + seed)) * rng.uniform(0.5, 1)
        return face_clip(80, seed, gaps=0.03 + 0.03 * np.sin(np.arange(80))), angle

    def turned(clip, angle):
        return clip + 80 * angle[:, None, None] * depth

    fitted = face_shape.fit_face_shape([turned(*turning(s)) for s in range(12)])
    normaliser = LandmarkNormaliser("default", fitted._asdict())
    clip, angle = turning(40)
    straight, away = normaliser.normalise(clip), normaliser.normalise(turned(clip, angle))
    raw = np.abs(80 * angle[:, None, None] * depth / 80)[:, MOUTH].mean()
    assert np.abs(away - straight)[:, MOUTH].mean() < 0.35 * raw


def test_fit_face_shape_refuses_what_it_cannot_learn_from():
    with pytest.raises(ValueError, match="at least one clip"):
        face_shape.fit_face_shape([])
    with pytest.raises(ValueError, match="no mouth moves"):
        face_shape.fit_face_shape([np.repeat(face_clip(1), 5, axis=0)])


def test_real_people_keep_their_openings_and_lose_their_faces(clips):
    # People whom the bundled shape has not seen.
    neutral = []
    for name in ("hdtf_rd_radio22_01.mp4", "vico_d336vte2a17j_01.mp4", "lrs2_woman2_01.mp4"):
        tracker, shapes = faces.FaceTracker(), []
        for frame in itertools.islice(video.iter_frames(clips / "folder" / name), 50):
            points = tracker.track(frame)
            if points is not None:
                shapes.append(points)
        shapes = np.array(shapes)
        found = LandmarkNormaliser.default().normalise(shapes)
        raw, ours = landmarks.mouth_opening(shapes), landmarks.mouth_opening(found)
        assert np.corrcoef(raw, ours)[0, 1] > 0.99
        alone = [LandmarkNormaliser.default().normalise(shape[None]) for shape in shapes[::10]]
        np.testing.assert_allclose(
            landmarks.mouth_opening(alone)[:, 0], raw[::10], rtol=0.25, atol=0.02
        )
        aligned = face_shape.align_to(shapes, landmarks.bundled_face_shape().mean_shape)
        neutral.append((aligned.mean(axis=0), found.mean(axis=0)))
    before, after = np.std(neutral, axis=0).mean(axis=(1, 2))
    assert after < 0.25 * before
