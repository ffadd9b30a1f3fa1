"""Stretches of one steady face, and a crop that neither shakes nor breathes."""

import numpy as np
import pytest

from atvg_jax.features import faces
from data_prep import tracking
from data_prep.corpora import mouth_warp, portraits, visemes

from .conftest import head


def follow(frames, shortest=5, longest=1000, first=0):
    found = list(tracking.stretches(frames, shortest, longest, first))
    whole = [stretch for stretch in found if not isinstance(stretch, int)]
    return [(s.start, len(s.regions)) for s in whole], sum(n for n in found if isinstance(n, int))


def grey(count, size=192):
    return [np.full((size, size, 3), 120, np.uint8)] * count


class TestStretches:
    def test_one_face(self):
        assert follow(head(12)) == ([(0, 12)], 0)

    def test_a_cut_to_another_shot_ends_the_stretch(self):
        frames = [*head(8), *head(9, zoom=0.7, mirror=True)]
        assert follow(frames) == ([(0, 8), (8, 9)], 0)

    def test_the_face_leaves_and_comes_back(self):
        frames = [*head(6), *grey(4), *head(7)]
        assert follow(frames) == ([(0, 6), (10, 7)], 0)

    def test_what_is_too_short_is_counted(self):
        frames = [*head(3), *grey(2), *head(8)]
        assert follow(frames) == ([(5, 8)], 3)

    def test_no_face(self):
        assert follow(grey(4)) == ([], 0)

    def test_frames_before_the_first_are_passed_over(self):
        assert follow(head(12), first=4) == ([(4, 8)], 0)

    @pytest.mark.parametrize(
        ("count", "pieces"),
        [
            (8, [(0, 8)]),
            (11, [(0, 5), (5, 6)]),
            (12, [(0, 8), (8, 4)]),
            (19, [(0, 8), (8, 5), (13, 6)]),
        ],
    )
    def test_long_stretches_are_cut_into_pieces_that_are_long_enough(self, count, pieces):
        assert follow(head(count), shortest=4, longest=8) == (pieces, 0)


class TestRegion:
    def test_the_crop_from_what_was_kept_is_the_crop_of_the_frame(self):
        (frame,) = head(1, size=160, zoom=0.8)
        points = faces.FaceTracker().track(frame)
        matrix = faces.crop_matrix(points)
        (stretch,) = tracking.stretches([frame], 1, 9)
        (kept,) = tracking.crops(stretch.regions, matrix[None])
        kept = kept.astype(int)
        whole = faces.warp(frame, matrix).astype(int)
        assert stretch.regions[0].picture.shape[0] < 160
        assert np.abs(kept - whole).max() <= 1

    def test_a_large_face_is_kept_reduced_and_in_its_place(self):
        (frame,) = head(1, size=900, zoom=1.0)
        points = faces.FaceTracker().track(frame)
        matrix = faces.crop_matrix(points)
        (stretch,) = tracking.stretches([frame], 1, 9)
        (kept,) = tracking.crops(stretch.regions, matrix[None])
        kept = kept.astype(float)
        whole = faces.warp(frame, matrix).astype(float)
        assert max(stretch.regions[0].picture.shape) < 512
        assert np.abs(kept - whole).mean() < 1.0
        # A crop that lies half a pixel elsewhere differs by several times as much.
        moved = matrix.copy()
        moved[:, 2] += 0.5
        assert np.abs(faces.warp(frame, moved) - whole).mean() > 3 * np.abs(kept - whole).mean()


class TestSmoothing:
    def shape(self):
        """A frontal face: the points that dlib finds on the photograph."""
        (frame,) = head(1)
        return np.asarray(faces.FaceTracker().track(frame), dtype=np.float64)

    def crops(self, matrices, points):
        return np.stack([faces.apply(m, p) for m, p in zip(matrices, points, strict=True)])

    def test_a_still_face_gives_its_own_crop(self):
        points = np.repeat(self.shape()[None], 20, axis=0)
        matrices = faces.smooth_alignment(points)
        expected = np.repeat(faces.crop_matrix(points[0])[None], 20, axis=0)
        np.testing.assert_allclose(matrices, expected, atol=1e-6)

    def test_noise_of_the_predictor_hardly_moves_the_crop(self):
        still = np.repeat(self.shape()[None], 100, axis=0)
        noisy = still + np.random.default_rng(0).normal(0, 1.0, still.shape)
        single = np.stack([faces.crop_matrix(points) for points in noisy])
        smooth = faces.smooth_alignment(noisy)

        def shake(matrices):
            """Pixels that a still face moves by between neighbouring frames of the crop."""
            return np.abs(np.diff(self.crops(matrices, still), axis=0)).mean()

        assert shake(smooth) < 0.2 * shake(single)

    def test_a_blink_does_not_zoom(self):
        still = np.repeat(self.shape()[None], 60, axis=0)
        blinking = still.copy()
        closed = np.interp(np.arange(60), [27, 29, 31, 33], [0, 1, 1, 0])[:, None]
        for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
            gap = still[:, lower] - still[:, upper]
            blinking[:, upper] += gap * closed
        single = np.stack([faces.crop_matrix(points) for points in blinking])
        smooth = faces.smooth_alignment(blinking)

        def zoom(matrices):
            size = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
            return size.max() / size.min() - 1

        assert zoom(single) > 0.002
        assert zoom(smooth) < 0.3 * zoom(single)

    @pytest.mark.parametrize("portrait", ["astronaut", "hopper"])
    def test_blinks_and_speech_of_a_still_head_do_not_zoom_the_crop(self, portrait):
        """Drawn and followed: the crop of a frame changes by a thousandth in size at most."""
        count = 45
        time = np.arange(count) / 25
        rest = np.zeros(count)
        blink = np.clip(1.25 - np.abs(time[:, None] - (0.5, 1.3)).min(axis=1) / 0.09, 0, 1)
        head = mouth_warp.HeadTrack(rest, rest, rest, rest + 1, rest, rest, blink)
        opening = 0.4 - 0.4 * np.cos(2 * np.pi * 3 * time)
        mouth = visemes.MouthTrack(opening, 0.5 * opening - 0.2, rest, rest, rest)
        identity = portraits.random_identity(portrait, np.random.default_rng(0), 0.0)
        (stretch,) = tracking.stretches(mouth_warp.render(identity, mouth, head), 10, 1000)

        def steps(matrices):
            """Changes of the crop's size from frame to frame, as parts of it."""
            return np.abs(np.diff(np.log(np.hypot(matrices[:, 0, 0], matrices[:, 1, 0]))))

        assert steps(faces.crop_matrix(stretch.landmarks)).max() > 0.008
        assert steps(faces.smooth_alignment(stretch.landmarks)).max() < 0.001

    def test_a_moving_head_stays_in_the_crop(self):
        frames = np.arange(80)[:, None, None]
        sway = 40 * np.sin(2 * np.pi * frames / 25)  # pixels: to and fro within a second
        points = self.shape()[None] + sway * [1.0, 0.3]
        seen = self.crops(faces.smooth_alignment(points), points)
        rest = self.crops([faces.crop_matrix(self.shape())], [self.shape()])
        assert np.abs(seen - rest).max() < 12
