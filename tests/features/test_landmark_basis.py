"""The landmark basis: principal components, its files, and what is refused."""

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.features import landmarks
from atvg_jax.features.landmarks import LandmarkBasis, LandmarkNormaliser
from tests.features.made_landmarks import face_clip, random_published


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
