import warnings

import numpy as np
import pytest
import skimage.data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from atvg_jax import assets
from atvg_jax.evaluation import identity, metrics
from atvg_jax.features import faces, images


@pytest.fixture(scope="module")
def pair():
    """Two pieces of a photograph, and the same with noise: (2, 128, 128, 3) uint8 each."""
    picture = skimage.data.astronaut()
    real = np.stack([picture[:128, 150:278], picture[200:328, 100:228]])
    noise = np.random.default_rng(0).normal(0, 12, real.shape)
    return real, np.clip(real + noise, 0, 255).astype(np.uint8)


def test_psnr(pair):
    expected = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(*pair, strict=True)]
    np.testing.assert_allclose(metrics.psnr(*pair), expected, rtol=1e-12)
    # By hand: one step everywhere is 20 log10(255); black against white is 0 dB.
    black = np.zeros((12, 12, 3), np.uint8)
    assert metrics.psnr(black, black + np.uint8(1)) == pytest.approx(48.1308036, abs=1e-6)
    assert metrics.psnr(black, black + np.uint8(255)) == 0
    assert metrics.psnr(black, black) == np.inf


def test_mouth_psnr(pair):
    points = np.zeros((2, 68, 2))
    # Eyes 40 apart, so a margin of 10 around a mouth from (50, 80) to (70, 90).
    points[:, 36:42], points[:, 42:48] = (40, 50), (80, 50)
    points[:, 48:68] = (60, 85)
    points[:, 48], points[:, 54] = (50, 80), (70, 90)
    boxes = [image[:, 70:101, 40:81] for image in pair]
    expected = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(*boxes, strict=True)]
    np.testing.assert_allclose(metrics.mouth_psnr(*pair, points), expected, rtol=1e-12)
    # At the edge of the frame what lies in it counts, beyond it nothing does.
    points[0] += (100, 0)
    points[1] += (60, 30)
    edge = metrics.mouth_psnr(*pair, points)
    assert np.isnan(edge[0])
    inside = peak_signal_noise_ratio(pair[0][1, 100:, 100:], pair[1][1, 100:, 100:], data_range=255)
    assert edge[1] == pytest.approx(inside)
    with pytest.raises(ValueError, match="landmarks"):
        metrics.mouth_psnr(*pair, points[:1])


@pytest.mark.parametrize(
    ("window", "settings"),
    [
        ("gaussian", {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
        ("uniform", {}),
    ],
)
def test_ssim(pair, window, settings):
    def expected(a, b):
        return structural_similarity(a, b, channel_axis=-1, data_range=255, **settings)

    ours = metrics.ssim(*pair, window=window)
    theirs = [expected(a, b) for a, b in zip(*pair, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    a, b = pair[0][0, :40, :57], pair[1][1, :40, :57]  # not square, hardly alike
    assert metrics.ssim(a, b, window) == pytest.approx(expected(a, b), abs=1e-6)
    assert metrics.ssim(a, a, window) == 1.0
    # Where single precision has the least to go by: flat, and far from the middle grey.
    for level in (0, 3, 128, 250):
        a = np.full((40, 40, 3), level, np.uint8)
        b = a + np.uint8(2)
        assert metrics.ssim(a, b, window) == pytest.approx(expected(a, b), abs=3e-5)


def test_legacy_psnr():
    # What is documented of the released code: noise against noise scores 27.9 dB, and 7.7 is right.
    grey = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 1), dtype=np.uint8)
    a, b = np.repeat(grey, 3, axis=-1)
    assert metrics.legacy_psnr(a, b) == pytest.approx(27.9, abs=0.05)
    assert metrics.psnr(a, b) == pytest.approx(7.7, abs=0.05)
    # By hand: 20 - 4 = 16, squared 256, which is 0 in 8 bits, and equal pictures score 100.
    flat = np.full((8, 8, 3), 20, np.uint8)
    assert metrics.legacy_psnr(flat, flat - np.uint8(16)) == 100
    assert metrics.legacy_psnr(flat, flat) == 100
    # 3 - 5 is 254, its square 64516 is 4 in 8 bits: 20 log10(255 / 2).
    assert metrics.legacy_psnr(flat - np.uint8(17), flat - np.uint8(15)) == pytest.approx(42.1102)


def test_landmark_distance():
    real = np.random.default_rng(0).uniform(20, 100, (3, 68, 2))
    moved = real + np.array([3, 4])
    np.testing.assert_allclose(metrics.landmark_distance(real, moved, "face"), 5)
    np.testing.assert_allclose(metrics.landmark_distance(real, moved, "mouth"), 0, atol=1e-12)
    # One mouth point 10 pixels off moves the mouth's mean by 0.5, so (9.5 + 19 x 0.5) / 20 = 0.95.
    moved = real.copy()
    moved[1, 50, 0] += 10
    np.testing.assert_allclose(metrics.landmark_distance(real, moved), [0, 0.95, 0], atol=1e-12)
    np.testing.assert_allclose(metrics.legacy_landmark_distance(real, moved), [0, 19, 0], atol=1e-9)
    np.testing.assert_allclose(
        metrics.landmark_distance(real, moved, "face"), [0, 10 / 68, 0], atol=1e-12
    )


def test_mouth_agreement():
    t = np.arange(60)
    target = 0.2 + 0.1 * np.sin(t * 0.7) + 0.03 * np.sin(t * 2.3)
    agreement = metrics.mouth_agreement(target[:-3], 0.5 * target[:-3] + 0.1)
    assert agreement.correlation == pytest.approx(1)
    assert agreement.spread_ratio == pytest.approx(0.5)
    assert agreement.lag == 0
    # The same mouth three frames late, and two early.
    assert metrics.mouth_agreement(target[3:], target[:-3]).lag == 3
    assert metrics.mouth_agreement(target[:-2], target[2:]).lag == -2
    assert metrics.mouth_agreement(target[:-2], target[2:]).by_lag[5 - 2] == pytest.approx(1)
    # Against NumPy, with something else added.
    other = target + np.random.default_rng(0).normal(0, 0.1, 60)
    expected = np.corrcoef(target, other)[0, 1]
    assert metrics.mouth_agreement(target, other).correlation == pytest.approx(expected)
    late = np.corrcoef(target[:-4], other[4:])[0, 1]
    assert metrics.mouth_agreement(target, other).by_lag[5 + 4] == pytest.approx(late)


def test_mouths_that_do_not_move():
    target = np.sin(np.arange(30))
    still = metrics.mouth_agreement(target, np.full(30, 0.1))
    assert still.correlation == 0
    assert still.spread_ratio == pytest.approx(0, abs=1e-12)
    assert np.isnan(still.lag)
    silent = metrics.mouth_agreement(np.full(30, 0.1), target)
    assert np.isnan(silent.correlation)
    assert np.isnan(silent.spread_ratio)
    short = metrics.mouth_agreement(target[:9], target[:9])
    assert np.isnan(short.correlation)
    # Eleven frames are enough at lag 0 and 1, not at 2.
    barely = metrics.mouth_agreement(target[:11], target[:11])
    assert np.isnan(barely.by_lag).tolist() == [True] * 4 + [False] * 3 + [True] * 4


def test_mouth_opening():
    # By hand: eyes 40 apart, lips 10.
    points = np.zeros((68, 2))
    points[42:48] = [40, 0]
    points[62], points[66] = [20, 50], [20, 60]
    assert metrics.mouth_opening(points) == pytest.approx(0.25)


def test_jitter():
    landmarks = np.zeros((68, 2))
    landmarks[36:42], landmarks[42:48] = [24, 30], [64, 30]  # 40 apart: a margin of 10
    landmarks[48:68] = [44, 80]
    landmarks[48], landmarks[54] = [34, 80], [54, 80]
    landmarks = np.tile(landmarks, (4, 1, 1))
    frames = np.full((4, 128, 128, 3), 100, np.uint8)
    np.testing.assert_allclose(metrics.jitter(frames, landmarks), 0)
    # The mouth, what is under it, and 10 pixels around are free to move.
    frames[1, 70:, 24:65] = 200
    np.testing.assert_allclose(metrics.jitter(frames, landmarks), 0)
    # Everything else counts: one step up, then down again.
    frames[2] += 1
    frames[2, 70:, 24:65] = 0
    np.testing.assert_allclose(metrics.jitter(frames, landmarks), [0, 1, 1])
    # A single pixel of the 128 x 128 - 58 x 41 outside, in one channel.
    frames[2] = frames[3]
    frames[3, 0, 0, 0] += 60
    expected = 60 / 3 / (128 * 128 - 58 * 41)
    np.testing.assert_allclose(metrics.jitter(frames, landmarks)[2], expected)


@pytest.fixture(scope="module")
def people():
    """Eileen Collins, herself mirrored, and Grace Hopper, aligned."""
    picture = skimage.data.astronaut()
    pictures = [
        picture,
        np.ascontiguousarray(picture[:, ::-1]),
        images.read_image(assets.portrait_path("hopper")),
    ]
    return [faces.align(picture) for picture in pictures]


def test_identity_similarity(people):
    collins, mirrored, hopper = people
    assert metrics.identity_similarity(collins.crop, collins.crop) == pytest.approx(1)

    def similarity(one, other, aligned):
        points = () if aligned else (one.landmarks, other.landmarks)
        return float(metrics.identity_similarity(one.crop, other.crop, *points))

    for aligned in (True, False):
        same = similarity(collins, mirrored, aligned)
        different = similarity(collins, hopper, aligned)
        assert same > 0.96 > 0.92 > different


def test_dlibs_own_threshold(people):
    """Two pictures of one person lie within 0.6 of each other, of two people they do not."""
    descriptors = identity.identity_descriptors(np.stack([face.crop for face in people]))
    distances = np.linalg.norm(descriptors - descriptors[0], axis=-1)
    assert distances[1] < 0.6 < distances[2]


def test_identity_descriptors_are_dlibs(people):
    """The same numbers as dlib's own way from a picture to a descriptor."""
    import dlib

    face = people[0]
    parts = [dlib.point(int(x), int(y)) for x, y in face.landmarks.round()]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 127, 127), parts)
    expected = np.array(identity._network().compute_face_descriptor(face.crop, shape))
    ours = identity.identity_descriptors(face.crop, face.landmarks)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.legacy_psnr])
def test_frames_are_checked(metric):
    frame = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        metric(frame, frame.astype(np.float32))
    with pytest.raises(ValueError, match="cannot be compared"):
        metric(frame, frame[:19])
    with pytest.raises(ValueError, match="uint8"):
        metric(frame[..., 0], frame[..., 0])


def test_shapes_are_kept(pair):
    frames = np.stack([pair[0], pair[1], pair[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (metrics.psnr, metrics.ssim, metrics.legacy_psnr):
            assert metric(frames, frames[::-1]).shape == (3, 2)
        assert metrics.cpbd(frames).shape == (3, 2)


def test_other_arguments_are_checked():
    frames, points = np.zeros((2, 20, 20, 3), np.uint8), np.zeros((2, 68, 2))
    with pytest.raises(ValueError, match="window"):
        metrics.ssim(frames, frames, "square")
    with pytest.raises(ValueError, match="smaller than the window"):
        metrics.ssim(frames[:, :10], frames[:, :10])
    with pytest.raises(ValueError, match="mouth or face"):
        metrics.landmark_distance(points, points, "nose")
    with pytest.raises(ValueError, match="68, 2"):
        metrics.landmark_distance(points[:, :20], points[:, :20])
    with pytest.raises(ValueError, match="one length"):
        metrics.mouth_agreement(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="landmarks of 2 frames"):
        metrics.jitter(frames, points[:1])
