import dataclasses
from pathlib import Path

import numpy as np
import pytest

from atvg_jax.evaluation import judge, metrics
from atvg_jax.evaluation.footage import Crops

QUICK = judge.Settings(cpbd=False, identity=False)
PIXELS = judge.Settings(cpbd=False, identity=False, landmarks=False)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that clips are longer than what is judged at once."""
    monkeypatch.setattr(judge, "CHUNK", 8)


@pytest.fixture(scope="module")
def noisy(crops):
    noise = np.random.default_rng(0).normal(0, 10, crops.pictures.shape)
    pictures = np.clip(crops.pictures + noise, 0, 255).astype(np.uint8)
    return dataclasses.replace(crops, pictures=pictures)


@dataclasses.dataclass(frozen=True)
class Patchy(Crops):
    """Crops of which some frames show no face."""

    missing: tuple[int, ...] = ()

    @property
    def has_face(self):
        return ~np.isin(np.arange(len(self.pictures)), self.missing)


def first(crops, count, kind=Crops, **fields):
    return kind(crops.pictures[:count], crops.landmarks[:count], crops.pose[:count], **fields)


def by_name(scores):
    return {one.system: one for one in scores}


def test_systems_and_references(crops, noisy):
    scores = by_name(judge.judge("clip", "someone", crops, {"noisy": noisy}, QUICK))
    assert list(scores) == [judge.GROUND_TRUTH, judge.STATIC_PORTRAIT, "noisy"]
    assert all((one.clip_id, one.speaker, one.frames) == ("clip", "someone", 19)
               for one in scores.values())  # fmt: skip
    truth, still, system = (one.values for one in scores.values())
    # Frame 0 is the portrait; the mean is over single frames, across the chunks.
    real, made = crops.pictures[1:], noisy.pictures[1:]
    assert system["psnr"] == pytest.approx(metrics.psnr(real, made).mean())
    mouths = metrics.mouth_psnr(real, made, crops.landmarks[1:])
    assert system["psnr_mouth"] == pytest.approx(mouths.mean())
    assert system["ssim_gaussian"] == pytest.approx(metrics.ssim(real, made).mean())
    assert system["ssim_uniform"] == pytest.approx(metrics.ssim(real, made, "uniform").mean())
    assert system["legacy_psnr"] == pytest.approx(metrics.legacy_psnr(real, made).mean())
    assert system["jitter"] == pytest.approx(metrics.jitter(made, crops.landmarks[1:]).mean())
    portrait = np.broadcast_to(crops.pictures[:1], real.shape)
    assert still["ssim_gaussian"] == pytest.approx(metrics.ssim(real, portrait).mean())
    # Equal frames: the error of rounding to 8 bits, 1/12, is 58.92 dB.
    assert truth["psnr"] == pytest.approx(10 * np.log10(255**2 * 12))
    assert truth["ssim_gaussian"] == truth["mouth_correlation"] == 1
    assert truth["landmark_distance_mouth"] == truth["landmark_distance_face"] == 0
    assert truth["mouth_spread_ratio"] == 1
    assert truth["mouth_lag"] == 0
    assert still["mouth_correlation"] == still["mouth_spread_ratio"] == still["jitter"] == 0
    assert still["landmark_distance_mouth"] > system["landmark_distance_mouth"] > 0
    assert system["legacy_landmark_distance"] == pytest.approx(
        20 * system["landmark_distance_mouth"]
    )
    assert system["mouth_correlation"] > 0.8
    assert "cpbd" not in system
    assert "identity_similarity" not in system


def test_equal_to_the_truth(crops):
    real = first(crops, 12)
    scores = by_name(judge.judge("clip", "", real, {"same": real}, QUICK))
    assert scores["same"].values == scores[judge.GROUND_TRUTH].values


def test_late_mouth(crops):
    pictures = np.concatenate([crops.pictures[:2], crops.pictures[:-2]])
    late = dataclasses.replace(crops, pictures=pictures)
    scores = by_name(judge.judge("clip", "", crops, {"late": late}, QUICK))["late"]
    assert scores.values["mouth_lag"] == 2
    assert scores.by_lag[5 + 2] > 0.97 > scores.values["mouth_correlation"]


def test_single_frames(crops, noisy):
    own = by_name(judge.judge("clip", "", crops, {"noisy": noisy}, PIXELS))["noisy"].by_frame
    np.testing.assert_array_equal(own["frame"], np.arange(1, 20))
    np.testing.assert_allclose(own["psnr"], metrics.psnr(crops.pictures, noisy.pictures)[1:])
    np.testing.assert_allclose(own["head_turned"], np.arange(1, 20))
    np.testing.assert_allclose(own["landmarks_moved"], 0)


def test_shorter_clips_and_frames_without_a_face(crops, noisy):
    real = first(crops, 19, Patchy, missing=(0, 1, 12))
    system = first(noisy, 17, Patchy, missing=(5,))
    own = by_name(judge.judge("clip", "", real, {"system": system}, PIXELS))
    # The first frame with a face is the portrait.
    frames = [t for t in range(3, 17) if t not in (5, 12)]
    assert own["system"].by_frame["frame"].tolist() == frames
    expected = metrics.psnr(crops.pictures[frames], noisy.pictures[frames])
    np.testing.assert_allclose(own["system"].by_frame["psnr"], expected)
    # No change is measured across a gap.
    change = metrics.jitter(noisy.pictures, crops.landmarks)  # [t - 1] is from t - 1 to t
    told = [t for t in frames if t - 1 in frames]
    assert own["system"].values["jitter"] == pytest.approx(change[np.array(told) - 1].mean())
    still = np.broadcast_to(crops.pictures[2], crops.pictures.shape)
    expected = metrics.psnr(crops.pictures[3:19], still[3:19])[[t != 12 for t in range(3, 19)]]
    assert own[judge.STATIC_PORTRAIT].values["psnr"] == pytest.approx(expected.mean())


def test_too_little_to_judge(crops):
    with pytest.raises(ValueError, match="9 frames"):
        judge.judge("clip", "", crops, {"system": first(crops, 10)}, PIXELS)


def test_identity_and_sharpness(crops, noisy):
    settings = judge.Settings(landmarks=False)
    real, system = first(crops, 12), first(noisy, 12)
    own = by_name(judge.judge("clip", "", real, {"noisy": system}, settings))
    points = crops.landmarks[0]
    # The middle of the 11 frames that are scored.
    expected = metrics.identity_similarity(crops.pictures[0], noisy.pictures[6], points, points)
    assert own["noisy"].values["identity_similarity"] == pytest.approx(expected)
    assert own[judge.STATIC_PORTRAIT].values["identity_similarity"] == 1
    for name, pictures in ((judge.GROUND_TRUTH, crops.pictures), ("noisy", noisy.pictures)):
        expected = metrics.cpbd(pictures[1:12]).mean()
        assert own[name].values["cpbd"] == pytest.approx(expected)
    still = own[judge.STATIC_PORTRAIT].values["cpbd"]
    assert still == pytest.approx(float(metrics.cpbd(crops.pictures[0])))


def test_lpips_and_features(crops, noisy, monkeypatch):
    """With networks that see one pixel: what they are given, and what becomes of what they say."""

    def distance(real, made):
        return np.abs(real[:, 60, 60, 0].astype(float) - made[:, 60, 60, 0])

    monkeypatch.setattr(judge, "_lpips", lambda path: distance)
    monkeypatch.setattr(judge, "_inception", lambda path: lambda frames: frames[:, 60, 60, :2])
    settings = dataclasses.replace(PIXELS, lpips=Path("any"), fid=Path("any"))
    real, system = first(crops, 12), first(noisy, 12)
    own = by_name(judge.judge("clip", "", real, {"noisy": system}, settings))
    expected = distance(crops.pictures[1:12], noisy.pictures[1:12]).mean()
    assert own["noisy"].values["lpips"] == pytest.approx(expected)
    assert own[judge.GROUND_TRUTH].values["lpips"] == 0
    # Every fifth frame but the portrait.
    np.testing.assert_array_equal(own["noisy"].features, noisy.pictures[[5, 10], 60, 60, :2])
