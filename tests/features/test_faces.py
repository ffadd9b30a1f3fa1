"""Detection, alignment and tracking on a photograph, and the geometry by hand."""

import numpy as np
import pytest
import skimage.data
import skimage.transform
from PIL import Image

from atvg_jax.errors import InputError
from atvg_jax.features import faces, images, landmarks, video

INNER_CORNERS = (39, 42)
TRACKED = slice(17, 68)  # the jaw line is the predictor's least certain part


@pytest.fixture(scope="module")
def portrait():
    return skimage.data.astronaut()  # (512, 512, 3), part of the package


@pytest.fixture(scope="module")
def portrait_points(portrait):
    return faces.stable_landmarks(portrait, faces.detect(portrait)[0].box)[0]


def eye_distance(points):
    points = np.asarray(points)
    return np.linalg.norm(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))


def similarity(scale, degrees, x, y):
    angle = np.radians(degrees)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[a, -b, x], [b, a, y]])


# --- geometry ---


def test_fit_similarity_finds_what_was_done():
    points = np.random.default_rng(0).normal(size=(18, 2)) * 40
    matrix = similarity(0.37, 25, -12, 80)
    np.testing.assert_allclose(faces.fit_similarity(points, faces.apply(matrix, points)), matrix)


def test_fit_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    found = faces.fit_similarity(source, target)
    expected = skimage.transform.SimilarityTransform.from_estimate(source, target).params[:2]
    # Umeyama's scale differs where a mirrored fit would be better; the angle and the error tell.
    error = np.square(faces.apply(found, source) - target).sum()
    assert error <= np.square(faces.apply(expected, source) - target).sum() + 1e-9
    for nudge in 0.01 * rng.normal(size=(20, 4)):
        a, b, x, y = nudge + found[[0, 1, 0, 1], [0, 0, 2, 2]]
        other = np.array([[a, -b, x], [b, a, y]])
        assert np.square(faces.apply(other, source) - target).sum() > error


def test_invert_is_the_way_back():
    matrix = similarity(0.2, -40, 7, 9)
    points = np.random.default_rng(0).normal(size=(5, 3, 2)) * 100
    there = faces.apply(matrix, points)
    np.testing.assert_allclose(faces.apply(faces.invert(matrix), there), points)


def test_crop_matrix_puts_the_template_one_pixel_in(reference):
    template = np.load(reference / "basics" / "base_68.npy").astype(float)
    np.testing.assert_allclose(
        faces.apply(faces.crop_matrix(template), template), template - 1, atol=1e-9
    )
    closed = np.load(reference / "basics" / "base_68_close.npy")
    np.testing.assert_array_equal(closed[27:45], template[27:45].astype(int))


def test_crop_matrix_undoes_where_a_face_stands(portrait_points):
    upright = faces.apply(faces.crop_matrix(portrait_points), portrait_points)
    for matrix in (similarity(3, 0, 50, -20), similarity(0.5, 30, 0, 0), similarity(1, -80, 9, 9)):
        moved = faces.apply(matrix, portrait_points)
        found = faces.apply(faces.crop_matrix(moved), moved)
        np.testing.assert_allclose(found, upright, atol=1e-3)


def test_crop_matrix_ignores_jaw_and_mouth(portrait_points):
    open_mouth = portrait_points.copy()
    open_mouth[:17] += (0, 9)
    open_mouth[48:] *= 1.1
    np.testing.assert_array_equal(faces.crop_matrix(open_mouth), faces.crop_matrix(portrait_points))


def ramp(height, width):
    """x in red, y in green: every pixel says where it was."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 100)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    "matrix",
    [
        similarity(1, 0, 0, 0),
        similarity(1.01, 0, -30.5, -20.5),
        similarity(1.9, 0, -100, -80),
        similarity(0.9, 20, 10, -20),
        similarity(0.6, 0, 0, 0),
    ],
)
def test_warp_puts_every_pixel_where_the_matrix_says(matrix):
    crop = faces.warp(ramp(240, 250), matrix)
    assert crop.shape == (128, 128, 3)
    y, x = np.mgrid[:128, :128]
    source = faces.apply(faces.invert(matrix), np.stack([x, y], axis=-1))
    inside = ((source > 4) & (source < (245, 235))).all(axis=-1)
    assert inside.sum() > 2000
    error = crop[..., :2].astype(float) - source
    assert np.abs(error[inside]).max() < 0.8  # rounding to uint8 is 0.5 of it
    assert np.abs(error[inside].mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("factor", [2, 3, 4.6, 8])
def test_warp_smooths_what_it_shrinks_and_does_not_shift(factor):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (int(130 * factor), int(130 * factor), 3), dtype=np.uint8)
    assert faces.warp(noise, similarity(1 / factor, 0, 0, 0)).std() < 1.35 * noise.std() / factor
    big = Image.fromarray(ramp(130, 130)).resize((noise.shape[1],) * 2, Image.Resampling.BILINEAR)
    exact = noise.shape[1] / 130
    centred = similarity(1 / exact, 0, 0.5 / exact - 0.5, 0.5 / exact - 0.5)
    crop = faces.warp(np.asarray(big), centred).astype(float)
    y, x = np.mgrid[:128, :128]
    error = (crop[..., :2] - np.stack([x, y], axis=-1))[8:-8, 8:-8]
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.2


def test_warp_is_black_outside():
    white = np.full((50, 50, 3), 255, np.uint8)
    crop = faces.warp(white, similarity(1, 0, 40, 40))
    assert (crop[:38] == 0).all()
    assert (crop[42:88, 42:88] == 255).all()
    assert (faces.warp(white, similarity(1, 0, 5000, 0)) == 0).all()
    assert faces.warp(white, similarity(1, 0, 0, 0), size=64).shape == (64, 64, 3)


# --- detection ---


def test_detects_the_one_face(portrait):
    found = faces.detect(portrait)
    assert len(found) == 1
    left, top, right, bottom = found[0].box
    assert left < 225 < right
    assert top < 120 < bottom
    assert 80 < right - left < 180
    assert found[0].score > 1


@pytest.mark.parametrize("size", [200, 256, 1200, 2400])
def test_detects_at_any_size(portrait, size):
    resized = np.asarray(Image.fromarray(portrait).resize((size, size), Image.Resampling.LANCZOS))
    found = faces.detect(resized)
    assert len(found) == 1
    left, top, right, bottom = np.array(found[0].box) * 512 / size
    assert left < 225 < right
    assert top < 120 < bottom


def test_best_of_two_comes_first(portrait):
    small = np.asarray(Image.fromarray(portrait).resize((300, 300)))
    both = np.zeros((512, 860, 3), np.uint8)
    both[:, :512], both[100:400, 540:840] = portrait, small
    found = faces.detect(both, at_least=2)
    assert len(found) == 2
    assert found[0].box[0] < 512 < found[1].box[0]
    second = faces.align(both, face=1)
    assert second.box == found[1].box
    with pytest.raises(InputError, match="2 faces"):
        faces.align(both, face=2)


@pytest.mark.parametrize("name", ["coffee", "rocket", "cat", "noise", "grey"])
def test_no_face_where_there_is_none(name):
    picture = {
        "coffee": skimage.data.coffee,
        "rocket": skimage.data.rocket,
        "cat": skimage.data.chelsea,
        "noise": lambda: np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8),
        "grey": lambda: np.full((200, 200, 3), 128, np.uint8),
    }[name]()
    assert faces.detect(picture) == []
    with pytest.raises(InputError) as caught:
        faces.align(picture)
    assert caught.value.reason == "no_face"


def test_tiny_pictures_have_no_face():
    assert faces.detect(np.zeros((1, 1, 3), np.uint8)) == []
    assert faces.detect(np.zeros((3, 500, 3), np.uint8)) == []


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_landmarks_follow_the_picture(portrait, portrait_points, scale):
    size = round(512 * scale)
    resized = np.asarray(Image.fromarray(portrait).resize((size, size), Image.Resampling.BILINEAR))
    box = np.array(faces.landmark_box(portrait_points)) * scale
    found = (faces.predict_landmarks(resized, tuple(box)) + 0.5) / scale - 0.5
    error = np.linalg.norm(found - portrait_points, axis=1)[TRACKED].mean()
    assert error < 0.03 * eye_distance(portrait_points)
    assert found.dtype == np.float32


def test_landmark_box_is_like_the_detectors(portrait, portrait_points):
    box, detected = faces.landmark_box(portrait_points), faces.detect(portrait)[0].box
    assert np.abs(np.subtract(box, detected)).max() < 0.2 * (detected[2] - detected[0])


def test_boxes_that_are_none(portrait):
    for box in [(10, 10, 10, 50), (50, 50, 10, 10), (900, 900, 1000, 1000)]:
        with pytest.raises(ValueError, match="box"):
            faces.predict_landmarks(portrait, box)


# --- alignment ---


def test_align_and_back(portrait, portrait_points):
    aligned = faces.align(portrait)
    assert aligned.crop.shape == (128, 128, 3)
    assert aligned.crop.dtype == np.uint8
    assert aligned.landmarks.shape == (68, 2)
    moved = faces.apply(aligned.matrix, portrait_points)
    assert np.linalg.norm(moved - aligned.landmarks, axis=1)[TRACKED].mean() < 1.5
    # Eyes where the frontal template has them, level and symmetric about its nose.
    assert aligned.landmarks[36:42].mean(axis=0) == pytest.approx((38, 38), abs=3)
    assert aligned.landmarks[42:48].mean(axis=0) == pytest.approx((86, 38), abs=5)
    back = faces.apply(faces.invert(aligned.matrix), aligned.landmarks)
    assert np.linalg.norm(back - portrait_points, axis=1)[TRACKED].mean() < 1.5 * 0.9


@pytest.mark.parametrize("degrees", [-20, 15])
def test_alignment_takes_out_scale_and_roll(portrait, degrees):
    turned = Image.fromarray(portrait).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    turned = turned.resize(
        (turned.width * 3 // 2, turned.height * 3 // 2), Image.Resampling.BICUBIC
    )
    there, here = faces.align(np.asarray(turned)), faces.align(portrait)
    difference = np.abs(there.crop.astype(float) - here.crop)[16:112, 16:112].mean()
    assert difference < 12
    assert np.linalg.norm(there.landmarks - here.landmarks, axis=1)[TRACKED].mean() < 2.0


def test_given_landmarks_are_believed(portrait, portrait_points):
    blank = np.full((512, 512, 3), 90, np.uint8)  # no detector finds a face here
    aligned = faces.align(blank, landmarks=portrait_points)
    np.testing.assert_allclose(aligned.matrix, faces.crop_matrix(portrait_points))
    np.testing.assert_allclose(
        aligned.landmarks, faces.apply(aligned.matrix, portrait_points), atol=1e-3
    )
    with pytest.raises(ValueError, match="68"):
        faces.align(portrait, landmarks=portrait_points[:20])
    with pytest.raises(ValueError, match="finite"):
        faces.align(portrait, landmarks=portrait_points * np.nan)


@pytest.mark.parametrize("name", ["ABOUT_00001_00001", "Eddie_Kaye_Thomas_00227"])
def test_crops_agree_with_the_authors(reference, name):
    # image_sample_region.jpg of the same folder shows another person than image_sample.jpg.
    ours = faces.align(images.read_image(reference / "alignment" / f"{name}.jpg"))
    theirs = images.read_image(reference / "alignment" / f"{name}_region.jpg")
    points, _ = faces.stable_landmarks(theirs, faces.landmark_box(ours.landmarks))
    # Jaw and brows reach out of the crop: only who looks at the whole picture sees all of them.
    difference = (points - ours.landmarks)[27:]
    assert np.linalg.norm(difference, axis=1).mean() < 1.0
    assert np.abs(difference.mean(axis=0)).max() < 0.6
    assert np.abs(theirs.astype(float) - ours.crop).mean() < 6


def test_portraits(clips):
    found = {}
    for path in sorted((clips / "portraits").iterdir()):
        found[path.name] = len(faces.detect(images.read_image(path)))
    assert found.pop("not_a_face_dog.jpg") == 0
    missed = {name for name, count in found.items() if count == 0}
    assert missed <= {"cartoon_02.jpg", "cartoon_03.png"}  # these need landmarks given
    assert all(count <= 1 for count in found.values())


# --- pose ---


def head(yaw=0.0, pitch=0.0, roll=0.0):
    """68 points whose rigid ones are a generic head seen from far away."""
    from atvg_jax.features import alignment

    y, p, r = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    seen = alignment._HEAD @ (tilt @ turn @ nod).T
    points = np.zeros((68, 2))
    points[list(alignment._HEAD_POINTS)] = 0.3 * seen[:, :2] + 200
    return points


@pytest.mark.parametrize("yaw", [-40, 0, 25])
@pytest.mark.parametrize("pitch", [-20, 0, 15])
@pytest.mark.parametrize("roll", [-30, 0, 10])
def test_pose_of_a_turned_head(yaw, pitch, roll):
    np.testing.assert_allclose(
        faces.head_pose(head(yaw, pitch, roll)), (yaw, pitch, roll), atol=0.1
    )


def test_the_mean_face_looks_straight_ahead():
    mean = landmarks.bundled_face_shape().mean_shape
    np.testing.assert_allclose(faces.head_pose(mean), 0, atol=1.5)


def test_pose_of_a_photograph(portrait, portrait_points):
    yaw, pitch, roll = faces.head_pose(portrait_points)
    assert abs(yaw) < 30
    assert abs(pitch) < 30
    assert abs(roll) < 15
    mirrored = landmarks.FLIP_PERMUTATION
    flipped = portrait_points[mirrored] * (-1, 1)
    np.testing.assert_allclose(faces.head_pose(flipped), (-yaw, pitch, -roll), atol=1e-3)
    assert faces.head_pose(np.stack([portrait_points] * 3)[None]).shape == (1, 3, 3)
    with pytest.raises(ValueError, match="68"):
        faces.head_pose(np.zeros((4, 2)))


# --- tracking ---


def moving(portrait, shifts, zoom=1.0):
    for x, y in shifts:
        matrix = similarity(zoom, 0, x, y)
        inverse = faces.invert(matrix)
        picture = Image.fromarray(portrait)
        yield (
            np.asarray(
                picture.transform((400, 400), Image.Transform.AFFINE, tuple(inverse.ravel()))
            ),
            matrix,
        )


def test_tracker_follows_a_moving_face(portrait, portrait_points, monkeypatch):
    searches = []
    search = faces.FaceTracker._search
    monkeypatch.setattr(
        faces.FaceTracker,
        "_search",
        lambda self, picture: searches.append(1) or search(self, picture),
    )
    path = [(-40 + 5 * t, 20 * np.sin(t / 3)) for t in range(24)]
    tracker = faces.FaceTracker()
    for frame, matrix in moving(portrait, path):
        found = tracker.track(frame)
        expected = faces.apply(matrix, portrait_points)
        assert found is not None
        assert found.dtype == np.float32
        error = np.linalg.norm(found - expected, axis=1)[TRACKED].mean()
        assert error < 0.06 * eye_distance(expected)
    assert len(searches) == 1  # all else came from the face of the frame before


def test_tracker_notices_a_cut_and_finds_the_face_again(portrait, portrait_points):
    tracker = faces.FaceTracker()
    face, empty = portrait, np.full_like(portrait, 60)
    away = np.roll(portrait, 200, axis=1)
    results = [tracker.track(frame) for frame in [face] * 3 + [empty] * 12 + [away] * 12]
    assert all(r is not None for r in results[:3])
    assert all(r is None for r in results[11:15])  # at the latest eight frames after the cut
    assert all(r is not None for r in results[-3:])
    assert np.linalg.norm(results[-1] - portrait_points - (200, 0), axis=1)[TRACKED].mean() < 3


@pytest.mark.parametrize(("x", "y", "scale"), [(0.0, 0.35, 0.6), (0.25, 0.25, 1.0), (0.3, 0, 1.4)])
def test_tracker_does_not_stay_on_a_misfit(portrait, portrait_points, x, y, scale):
    """Begun beside the face, it is on it at the latest after the search that is due by then."""
    left, top, right, bottom = faces.detect(portrait)[0].box
    size = right - left
    middle = np.array([(left + right) / 2 + x * size, (top + bottom) / 2 + y * size])
    low, high = middle - scale * size / 2, middle + scale * size / 2
    tracker = faces.FaceTracker((*low, *high))
    found = [tracker.track(portrait) for _ in range(38)]
    errors = [np.linalg.norm(points - portrait_points, axis=1)[TRACKED].mean() for points in found]
    assert errors[0] > 0.3 * eye_distance(portrait_points)
    assert errors[-1] < 0.05 * eye_distance(portrait_points)


def test_tracker_names_the_other_faces(portrait):
    both = np.concatenate([portrait[:300, 60:360], portrait[:300, 60:360][:, ::-1]], axis=1)
    tracker = faces.FaceTracker()
    first = tracker.track(both)
    (rival,) = tracker.rivals()
    second = rival.track(both)
    assert abs(first[:, 0].mean() + second[:, 0].mean() - 599) < 6  # mirror images


def test_tracker_on_real_footage(clips):
    tracker = faces.FaceTracker()
    clip = next((clips / "grid").glob("*/*.mpg"))
    found = [tracker.track(frame) for frame in video.iter_frames(clip)]
    assert sum(f is None for f in found) == 0
    points = np.array(found)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1).mean(axis=1)
    assert steps.max() < 0.25 * eye_distance(points[0])
