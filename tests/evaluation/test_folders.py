import shutil

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.evaluation import folders, judge
from atvg_jax.evaluation.footage import AlignedVideo
from atvg_jax.evaluation.protocol import Problem
from atvg_jax.features import faces, video

from .conftest import speaking

PIXELS = judge.Settings(cpbd=False, identity=False, landmarks=False)
FRAMES = 16


@pytest.fixture(scope="module")
def shot(portrait):
    """A talking head of 256 x 256 that drifts to the right."""
    landmarks = faces.align(portrait)
    points = faces.apply(faces.invert(landmarks.matrix), landmarks.landmarks)
    frames = list(speaking(portrait, points, FRAMES))
    return [np.roll(frame, t, axis=1) for t, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def videos(shot, tmp_path_factory):
    """real/ and made/: whole, at another rate, short, broken, faceless, missing, unasked for."""
    folder = tmp_path_factory.mktemp("videos")
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    real, made = folder / "real", folder / "made"
    whole = real / "sub" / "whole.mp4"
    video.write_video(whole, shot, sound)
    for name in ("short", "broken", "faceless", "missing"):
        shutil.copy(whole, real / f"{name}.mp4")
    video.write_video(made / "sub" / "whole.avi.mp4", shot)
    (made / "sub" / "whole.avi.mp4").rename(made / "sub" / "whole.mkv")
    video.write_video(made / "short.mp4", shot[: FRAMES - 4])
    data = whole.read_bytes()
    (made / "broken.mp4").write_bytes(data[: len(data) // 2])
    video.write_video(made / "faceless.mp4", [np.full((64, 64, 3), 90, np.uint8)] * FRAMES)
    video.write_video(made / "more.mp4", shot[:2])
    (made / "notes.txt").write_text("not a video")
    return folder


def pair(videos, name, ending=".mp4", real_ending=".mp4", video=None):
    return folders.Pair(
        name,
        videos / "real" / (name + real_ending),
        videos / "made" / (name + ending),
        "made",
        PIXELS,
        video,
    )


def test_matching(videos):
    todo, problems = folders.pairs(
        videos / "real", videos / "made", PIXELS, videos / "shown", most_videos=1
    )
    assert [one.clip_id for one in todo] == ["broken", "faceless", "short", "sub/whole"]
    assert todo[0].system == "made"
    assert [one.video is not None for one in todo] == [True, False, False, False]
    assert [(one.clip_id, one.reason) for one in problems] == [
        ("missing", "missing"),
        ("more", "unmatched"),
    ]


def test_equal_videos(videos, tmp_path):
    shown = tmp_path / "shown.mp4"
    scores = folders.judge_pair(pair(videos, "sub/whole", ".mkv", video=shown))
    own = {one.system: one for one in scores["frames"]}
    # The very same frames, apart from the file around them.
    assert own["made"].values == own[judge.GROUND_TRUTH].values
    assert own["made"].frames == FRAMES - 1
    info = video.probe(shown)
    assert (info.width, info.height, info.has_audio) == (2 * 192, 212, True)
    assert sum(1 for _ in video.iter_frames(shown)) == FRAMES


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("short", "short", "12 frames at 25 frames/s where"),
        ("broken", "unreadable", "broken.mp4"),
        ("faceless", "no_face", "faceless.mp4: no face was found"),
    ],
)
def test_what_cannot_be_scored(videos, name, reason, words):
    problem = folders.judge_pair(pair(videos, name))
    assert isinstance(problem, Problem)
    assert (problem.clip_id, problem.reason) == (name, reason)
    assert words in problem.message


def test_alignment_follows_the_head(videos, shot):
    """The face stays where a still's alignment puts it, while the head drifts by 15 pixels."""
    clip = AlignedVideo(videos / "real" / "sub" / "whole.mp4")
    assert clip.has_face.all()
    frames = np.stack(list(clip.frames()))
    assert frames.shape == (FRAMES, 128, 128, 3)
    assert np.ptp(clip.landmarks[:, 27:36].mean(axis=1), axis=0).max() < 2.5
    still = faces.align(shot[0])
    assert np.linalg.norm(clip.landmarks[0] - still.landmarks, axis=-1).mean() < 2


def test_frames_per_second(videos, shot, tmp_path):
    """A system's 50 frames/s become 25: every second frame."""
    doubled = [frame for frame in shot for _ in range(2)]
    video.write_video(tmp_path / "fast.mp4", doubled, frame_rate=50)
    fast = folders.Pair(
        "fast", videos / "real" / "sub" / "whole.mp4", tmp_path / "fast.mp4", "fast", PIXELS, None
    )
    own = {one.system: one for one in folders.judge_pair(fast)["frames"]}
    assert own["fast"].frames == FRAMES - 1
    assert own["fast"].values["psnr"] > own[judge.STATIC_PORTRAIT].values["psnr"] + 3


def test_folders_that_cannot_be_matched(videos, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        folders.videos(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no videos"):
        folders.videos(tmp_path)
    (tmp_path / "else.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="has the name of one"):
        folders.pairs(videos / "real", tmp_path, PIXELS, None, 0)
    (tmp_path / "else.avi").write_bytes(b"")
    with pytest.raises(InputError, match="have one name"):
        folders.videos(tmp_path)
