"""Normalisation and basis: golden numbers, SciPy, and what must be true of any face."""

import itertools

import numpy as np
import pytest
import scipy.spatial

from atvg_jax.errors import InputError
from atvg_jax.features import face_shape, faces, landmarks, video
from atvg_jax.features.landmarks import LandmarkBasis, LandmarkNormaliser

MOUTH = slice(48, 68)


def face_clip(frames=40, seed=0, gaps=None, identity=0.01, noise=0.0, scale=80.0, turn=0.0):
    """Pixels of an invented person who opens the mouth: mean face + identity + gap x direction."""
    rng = np.random.default_rng(seed)
    bundled = landmarks.bundled_face_shape()
    mean, direction = bundled.mean_shape, bundled.opening_direction
    person = mean + identity * rng.normal(size=(68, 2))
    if gaps is None:
        gaps = 0.03 + 0.03 * np.sin(np.arange(frames) * 0.7)
    shapes = person + np.asarray(gaps)[:, None, None] * direction
    shapes = shapes + noise * rng.normal(size=shapes.shape)
    shapes = shapes @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return scale * shapes + (60, 70)


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


def random_published(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(68, 2)) * 50 + 200
    mean = (image - image.mean(axis=0)) / np.linalg.norm(image - image.mean(axis=0))
    basis = np.linalg.qr(rng.normal(size=(136, 100)))[0].T
    return image, mean, basis


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


# --- basis ---


def some_landmarks(n=400, seed=0):
    """Landmarks with four directions of known variance."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(136, 4)))[0]
    weights = rng.normal(size=(n, 4)) * (0.4, 0.2, 0.1, 0.05)
    flat = (weights @ directions.T) / 5 + landmarks.bundled_face_shape().mean_shape.ravel()
    return flat.reshape(n, 68, 2), directions


def test_fit_is_principal_components():
    shapes, directions = some_landmarks()
    basis = LandmarkBasis.fit(shapes, count=4)
    x = shapes.reshape(-1, 136) * 5
    np.testing.assert_allclose(basis.mean, x.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(basis.components.T @ basis.components, np.eye(4), atol=1e-5)
    _, singular, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    for i in range(4):
        assert abs(basis.components[:, i] @ vt[i]) == pytest.approx(1, abs=1e-4)
    share = singular**2 / (singular**2).sum()
    np.testing.assert_allclose(basis.explained_variance, share[:4], atol=1e-4)
    np.testing.assert_array_equal(basis.boost, 1)
    assert np.abs(directions.T @ basis.components).max(axis=0).min() > 0.9


def test_clip_by_clip_is_the_same_as_all_at_once():
    shapes, _ = some_landmarks()
    whole = LandmarkBasis.fit(shapes)
    parts = LandmarkBasis.fit(iter([shapes[:100], shapes[100:130], shapes[130:]]))
    np.testing.assert_allclose(parts.components[:, :4], whole.components[:, :4], atol=1e-4)
    x = landmarks.to_model(shapes).astype(np.float64).reshape(-1, 136)
    sums = LandmarkBasis.from_moments(len(x), x.sum(axis=0), x.T @ x)
    np.testing.assert_allclose(sums.components[:, :4], whole.components[:, :4], atol=1e-4)


def test_encode_and_decode():
    shapes, _ = some_landmarks()
    basis = LandmarkBasis.fit(shapes)
    h = basis.encode(shapes)
    assert h.shape == (400, 6)
    assert h.dtype == np.float32
    np.testing.assert_allclose(basis.encode(landmarks.to_model(shapes)), h, atol=1e-5)
    np.testing.assert_allclose(basis.decode(h), landmarks.to_model(shapes), atol=1e-4)
    assert basis.decode(h.reshape(4, 100, 6)).shape == (4, 100, 136)
    np.testing.assert_allclose(basis.encode(basis.decode(h)), h, atol=1e-5)
    np.testing.assert_allclose(basis.decode(np.zeros(6)), basis.mean)


def test_save_and_load(tmp_path):
    shapes, _ = some_landmarks()
    published = LandmarkNormaliser.published(*random_published())
    for normaliser in (None, published):
        basis = LandmarkBasis.fit(shapes, normaliser=normaliser)
        basis.save(tmp_path / "new" / "basis.npz")
        back = LandmarkBasis.load(tmp_path / "new" / "basis.npz")
        for name in ("mean", "components", "boost", "explained_variance"):
            np.testing.assert_array_equal(getattr(back, name), getattr(basis, name))
        np.testing.assert_array_equal(
            back.normaliser.normalise(face_clip()), basis.normaliser.normalise(face_clip())
        )
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["basis.npz"]


def write_published(folder, seed=0):
    image, mean, basis = random_published(seed)
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(136, 136)))[0]
    arrays = {
        "U_lrw1": vectors,
        "mean_lrw1": mean.ravel() * 5,
        "mean_shape_img": image,
        "mean_shape_norm": mean.reshape(1, 136),
        "S": basis,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return arrays


def check_published(basis, arrays):
    np.testing.assert_allclose(basis.components, arrays["U_lrw1"][:, :6], atol=1e-6)
    np.testing.assert_allclose(basis.boost, [1, 2.2, 2.4, 2.6, 2.8, 3.0])
    h = np.array([1.0, 0, 0, -2, 0, 0], np.float32)
    expected = arrays["U_lrw1"][:, 0] - 2 * arrays["U_lrw1"][:, 3] + arrays["mean_lrw1"].ravel()
    np.testing.assert_allclose(basis.decode(h), expected, atol=1e-5)
    assert basis.normaliser.kind == "published"


def test_published_folder(tmp_path):
    arrays = write_published(tmp_path)
    check_published(LandmarkBasis.load(tmp_path), arrays)
    (tmp_path / "S.npy").unlink()
    with pytest.raises(InputError, match=r"S\.npy is missing"):
        LandmarkBasis.load(tmp_path)


def test_published_files_of_the_release(reference):
    folder = reference / "basics"
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("U_lrw1", "mean_lrw1")}
    basis = LandmarkBasis.load(folder)
    check_published(basis, arrays)
    with np.load(reference / "landmark_normalisation.npz") as golden:
        found = basis.normaliser.normalise(golden["landmarks"])
        np.testing.assert_allclose(found, golden["normalised"], atol=1e-6)


def test_nothing_is_unpickled(tmp_path):
    write_published(tmp_path)
    np.save(tmp_path / "U_lrw1.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError) as caught:
        LandmarkBasis.load(tmp_path)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("content", [None, b"", b"no basis", b"PK\x03\x04 half a zip file"])
def test_files_that_are_no_basis(tmp_path, content):
    path = tmp_path / "basis.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="basis") as caught:
        LandmarkBasis.load(path)
    assert "\n" not in str(caught.value)


def test_basis_whose_normaliser_is_incomplete(tmp_path):
    LandmarkBasis.fit(some_landmarks()[0]).save(tmp_path / "basis.npz")
    with np.load(tmp_path / "basis.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "normaliser/pose_cues"}
    np.savez(tmp_path / "basis.npz", **arrays)
    with pytest.raises(InputError, match="pose_cues"):
        LandmarkBasis.load(tmp_path / "basis.npz")


def test_npz_with_something_else_in_it(tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    with pytest.raises(InputError, match="not a landmark basis"):
        LandmarkBasis.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "call",
    [
        lambda: landmarks.to_model(np.zeros((3, 67, 2))),
        lambda: landmarks.from_model(np.zeros((3, 135))),
        lambda: landmarks.mouth_opening(np.zeros(136)),
        lambda: LandmarkNormaliser.default().normalise(np.zeros((68, 2))),
        lambda: LandmarkNormaliser.default().normalise(np.zeros((0, 68, 2))),
        lambda: LandmarkNormaliser.default().normalise(np.full((1, 68, 2), np.nan)),
        lambda: LandmarkNormaliser.default().normalise(np.ones((1, 68, 2))),
        lambda: LandmarkBasis.fit(np.zeros((1, 68, 2))),
        lambda: LandmarkBasis.fit(some_landmarks()[0], count=0),
        lambda: LandmarkBasis.fit(some_landmarks()[0]).encode(np.zeros((2, 100))),
        lambda: LandmarkBasis.fit(some_landmarks()[0]).decode(np.zeros((2, 5))),
    ],
)
def test_wrong_shapes_are_named(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()
