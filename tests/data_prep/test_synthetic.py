"""The made corpus: speech with known timing, faces that dlib finds, mouths that follow it."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest

from atvg_jax import assets
from atvg_jax.errors import InputError
from atvg_jax.features import faces, images, landmarks, video
from data_prep import corpora
from data_prep.corpora import mouth_warp, portraits, speech, synthetic, visemes
from data_prep.corpora.clip import SPLITS

STILL = np.array([0, 0, 0, 1, 0, 0, 0], np.float32)
MOUTHS = [
    (1.1, 0.3, 0, 0, 0),  # wide open
    (0.2, -0.9, 1, 0, 0),  # u
    (0.3, 0.8, 0, 0, 0),  # i
    (0, 0, 0, 1, 0),  # p
    (0.05, 0.1, 0, 0, 1),  # f
]


def plan_of(speaker: str) -> synthetic.Plan:
    return next(plan for plan in synthetic.plans() if plan.speaker.name == speaker)


# --- speech ---


def test_the_same_words_sound_the_same_whatever_was_said_before():
    voice = speech.Voice("en-us+f2")
    first = speech.speak("Six chefs shook fish.", voice, seed=3)
    speech.speak("Something else in between.", speech.Voice("en+m3"), seed=9)
    again = speech.speak("Six chefs shook fish.", voice, seed=3)
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.phonemes == again.phonemes


def test_phonemes_are_those_of_the_words_in_order():
    spoken = speech.speak("My mother bought apples.")
    seconds = len(spoken.waveform) / spoken.sample_rate
    starts = [sound.start for sound in spoken.phonemes]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert all(a.end == b.start for a, b in itertools.pairwise(spoken.phonemes))
    assert spoken.phonemes[-1].end == pytest.approx(seconds)
    consonants = [c for sound in spoken.phonemes for c in sound.symbol if c in "mbpt"]
    assert consonants == list("mmbtp")
    assert spoken.waveform.dtype == np.float32
    assert 0.3 < np.abs(spoken.waveform).max() <= 1


def test_pauses_are_silent_and_vowels_are_not():
    spoken = speech.speak("Aha. Oho.")
    pauses = [s for s in spoken.phonemes if not s.symbol and s.end - s.start > 0.1]
    vowels = [s for s in spoken.phonemes if set(s.symbol) & set("ɑɐoə")]
    assert pauses
    assert len(vowels) >= 4

    def level(sound: speech.Phoneme) -> float:
        middle = (sound.start + sound.end) / 2
        at = slice(*(round((middle + side * 0.02) * spoken.sample_rate) for side in (-1, 1)))
        return float(np.sqrt(np.mean(spoken.waveform[at] ** 2)))

    assert max(map(level, pauses)) < 0.02 < 0.05 < min(map(level, vowels))


def test_unknown_voice_is_named():
    with pytest.raises(InputError, match="nobody"):
        speech.speak("Hello.", speech.Voice("nobody"))


def test_missing_library_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    speech._loader.cache_clear()
    with pytest.raises(InputError, match="espeakng-loader"):
        speech.speak("Hello.")
    monkeypatch.undo()
    speech._loader.cache_clear()


# --- mouth shapes ---


def utterance(*sounds: tuple[str, float]) -> speech.Utterance:
    """Sounds with their durations in seconds; all equally loud, pauses silent."""
    rate, phonemes, chunks, time = 16000, [], [], 0.0
    for symbol, seconds in sounds:
        phonemes.append(speech.Phoneme(symbol, time, time + seconds))
        chunks.append(np.full(round(seconds * rate), 0.3 if symbol else 0.0, np.float32))
        time += seconds
    return speech.Utterance(np.concatenate(chunks), rate, tuple(phonemes))


def test_opening_peaks_in_the_middle_of_the_vowel():
    track = visemes.mouth_track(utterance(("", 1.0), ("ɑː", 0.2), ("", 1.0)), 55)
    times = (np.arange(55) + 0.5) / 25
    centre = np.sum(track.opening * times) / track.opening.sum()
    assert centre == pytest.approx(1.1, abs=0.01)
    assert track.opening.max() > 0.6
    assert track.opening[[0, 10, 45, 54]].max() < 0.01


@pytest.mark.parametrize("symbol", ["p", "b", "m"])
@pytest.mark.parametrize("seconds", [0.05, 0.09])
def test_lips_close_however_short_the_closure(symbol, seconds):
    track = visemes.mouth_track(
        utterance(("a", 0.2 - seconds / 2 + 0.02), (symbol, seconds), ("a", 0.2)), 10
    )
    closed = int(track.press.argmax())
    assert abs((closed + 0.5) / 25 - 0.22) < 0.02
    assert track.press[closed] > 0.95
    assert track.opening[closed] < 0.05
    assert track.opening[[closed - 3, closed + 3]].min() > 0.5


def test_vowels_differ_as_phonetics_says():
    track = {symbol: visemes.mouth_track(utterance((symbol, 0.4)), 10) for symbol in "aeiou"}
    openings = {symbol: float(shape.opening[5]) for symbol, shape in track.items()}
    assert openings["a"] > openings["e"] > openings["i"]
    assert openings["a"] > openings["o"] > openings["u"]
    assert track["i"].width[5] > 0.5 > -0.5 > track["u"].width[5]
    assert track["u"].rounding[5] > 0.9 > 0.1 > track["i"].rounding[5]


def test_lower_lip_meets_the_teeth():
    track = visemes.mouth_track(utterance(("a", 0.2), ("f", 0.1), ("a", 0.2)), 12)
    assert track.bite[6] > 0.9
    assert track.opening[6] < 0.2


def test_every_shape_stays_in_range():
    for plan in itertools.islice(synthetic.plans(), 6):
        mouth = synthetic.perform(plan).mouth
        for name in ("opening", "rounding", "press", "bite"):
            values = getattr(mouth, name)
            assert values.min() >= 0, name
            assert values.max() <= 1.25, name
        assert np.abs(mouth.width).max() <= 1


# --- faces ---


@pytest.mark.parametrize("name", assets.PORTRAITS)
def test_bundled_portrait_has_one_face_with_a_closed_mouth(name):
    picture = images.read_image(assets.portrait_path(name))
    assert picture.shape == (512, 512, 3)
    found = faces.detect(picture)
    assert len(found) == 1
    points = faces.predict_landmarks(picture, found[0].box)
    assert landmarks.mouth_opening(points) < 0.05
    known = portraits.bundled(name)
    assert np.abs(points - known.landmarks).mean() < 4
    # The lip line lies between the lips and from corner to corner.
    assert points[51, 1] < np.interp(points[51, 0], *known.seam.T) < points[57, 1]
    assert abs(known.seam[0, 0] - points[48, 0]) < 15
    assert abs(known.seam[-1, 0] - points[54, 0]) < 15


def test_unknown_portrait_is_named():
    with pytest.raises(InputError, match="mona_lisa"):
        assets.portrait_path("mona_lisa")


def test_bundled_speech_is_some_seconds_of_speech():
    waveform = video.read_waveform(assets.speech_path())
    assert 3 < len(waveform) / 16000 < 10
    assert np.abs(waveform).max() > 0.2


def test_an_unchanged_identity_is_the_portrait():
    known = portraits.bundled("hopper")
    same = portraits.person(portraits.random_identity("hopper", np.random.default_rng(1), 0.0))
    np.testing.assert_array_equal(same.image, known.image)
    np.testing.assert_array_equal(same.landmarks, known.landmarks)


def test_mirroring_twice_changes_nothing():
    known = portraits.bundled("astronaut")
    twice = portraits.mirror(portraits.mirror(known))
    np.testing.assert_array_equal(twice.image, known.image)
    np.testing.assert_allclose(twice.landmarks, known.landmarks)
    np.testing.assert_allclose(twice.seam, known.seam)


@pytest.mark.parametrize(("name", "seed"), [("astronaut", 4), ("hopper", 5)])
def test_reshaped_landmarks_are_where_the_detector_sees_them(name, seed):
    identity = portraits.random_identity(name, np.random.default_rng(seed))
    made = portraits.person(identity)
    found = faces.detect(made.image)
    points = faces.predict_landmarks(made.image, found[0].box)
    off = np.linalg.norm(points - made.landmarks, axis=-1) / made.eye_distance
    assert off.mean() < 0.1  # the error of the detector included


def test_speakers_are_different_people():
    people = [
        portraits.person(synthetic.perform(plan_of(s.name)).identity).image.astype(int)
        for s in synthetic.SPEAKERS[:5]
    ]
    for one, other in itertools.combinations(people, 2):
        assert np.abs(one - other).mean() > 5


# --- movement ---


@pytest.fixture(scope="module")
def talker() -> mouth_warp.TalkingPortrait:
    return mouth_warp.TalkingPortrait(portraits.Identity("astronaut"))


def test_a_mouth_at_rest_is_the_portrait(talker):
    rest = talker.mouth(0, 0, 0, 0, 0)
    h, w = rest.shape[:2]
    still = talker.still[talker.top : talker.top + h, talker.left : talker.left + w]
    assert np.abs(rest - still).max() <= 1


@pytest.mark.parametrize("name", assets.PORTRAITS)
@pytest.mark.parametrize("mouth", MOUTHS)
def test_nothing_moves_at_the_border_of_what_is_warped(name, mouth):
    portrait = mouth_warp.TalkingPortrait(portraits.Identity(name))
    low = portrait.mouth(*mouth)
    h, w = low.shape[:2]
    still = portrait.still[portrait.top : portrait.top + h, portrait.left : portrait.left + w]
    change = np.abs(low - still)
    for edge in (change[0], change[-1], change[:, 0], change[:, -1]):
        assert edge.max() <= 2
    assert change.max() > 20


def measured_opening(talker: mouth_warp.TalkingPortrait, mouth: tuple) -> float:
    frame = talker.frame(np.array(mouth, np.float32), STILL)
    return float(landmarks.mouth_opening(faces.FaceTracker().track(frame)))


def test_detector_measures_the_opening_that_was_drawn(talker):
    drawn = np.linspace(0, 1, 6)
    seen = np.array([measured_opening(talker, (value, 0, 0, 0, 0)) for value in drawn])
    assert (np.diff(seen) > 0).all()
    assert np.corrcoef(drawn, seen)[0, 1] > 0.98
    assert seen[-1] == pytest.approx(mouth_warp.MAX_OPENING, rel=0.25)


def test_rounding_narrows_and_spreading_widens(talker):
    def width(mouth: tuple) -> float:
        points = faces.FaceTracker().track(talker.frame(np.array(mouth, np.float32), STILL))
        return float(np.linalg.norm(points[54] - points[48]))

    assert width((0.25, -0.9, 1, 0, 0)) < 0.95 * width((0.25, 0, 0, 0, 0))
    assert width((0.25, 1.0, 0, 0, 0)) > 1.03 * width((0.25, 0, 0, 0, 0))


def test_head_moves_as_told(talker):
    shut = np.zeros(5, np.float32)
    points = faces.FaceTracker().track(talker.frame(shut, STILL))
    head = STILL + np.array([6, -4, 5, 0.03, 0, 0, 0], np.float32)
    moved = faces.FaceTracker().track(talker.frame(shut, head))
    a, b = points[27:48].astype(float), moved[27:48].astype(float)
    shift = b.mean(axis=0) - a.mean(axis=0)
    assert shift[1] == pytest.approx(-4, abs=2.5)
    assert shift[0] == pytest.approx(6, abs=2.5)
    p, q = ((v - v.mean(axis=0)) @ np.array([1, 1j]) for v in (a, b))
    ratio = np.vdot(p, q) / np.vdot(p, p)
    assert np.rad2deg(np.angle(ratio)) == pytest.approx(5, abs=1)
    assert abs(ratio) == pytest.approx(1.03, abs=0.02)


def test_eyes_shut_in_a_blink(talker):
    def eyes(amount: float) -> float:
        frame = talker.frame(np.zeros(5, np.float32), STILL + amount * np.eye(7)[6])
        points = faces.FaceTracker().track(frame)
        return float(points[[40, 41, 46, 47], 1].sum() - points[[37, 38, 43, 44], 1].sum())

    assert eyes(1.0) < 0.75 * eyes(0.0)


def correlation(driven: np.ndarray, seen: np.ndarray, lag: int) -> float:
    """Between what was drawn and what is seen ``lag`` frames later."""
    n = len(driven) - abs(lag)
    return float(np.corrcoef(driven[max(0, -lag) :][:n], seen[max(0, lag) :][:n])[0, 1])


@pytest.mark.parametrize("speaker", ["anna", "bea", "emil", "jens"])
def test_the_mouth_that_is_seen_follows_the_speech(speaker):
    performance = synthetic.perform(plan_of(speaker))
    tracker = faces.FaceTracker()
    rendered = mouth_warp.render(performance.identity, performance.mouth, performance.head)
    points = [tracker.track(frame) for frame in itertools.islice(rendered, 60)]
    assert all(found is not None for found in points)
    seen = landmarks.mouth_opening(np.stack(points))
    driven = performance.mouth.opening[:60]
    scores = {lag: correlation(driven, seen, lag) for lag in range(-4, 5)}
    assert scores[0] > 0.9
    assert max(scores, key=scores.__getitem__) == 0


@pytest.mark.parametrize("speaker", [s.name for s in synthetic.SPEAKERS])
def test_the_detector_finds_every_speaker(speaker):
    performance = synthetic.perform(plan_of(speaker))
    one = dataclasses.replace(
        performance.mouth,
        **{
            f.name: getattr(performance.mouth, f.name)[:1]
            for f in dataclasses.fields(performance.mouth)
        },
    )
    head = mouth_warp.HeadTrack(
        *(getattr(performance.head, f.name)[:1] for f in dataclasses.fields(performance.head))
    )
    (frame,) = mouth_warp.render(performance.identity, one, head)
    assert frame.shape == (256, 256, 3)
    assert frame.dtype == np.uint8
    left, top, right, bottom = faces.detect(frame)[0].box
    assert left < 128 < right
    assert top < 140 < bottom


# --- the corpus ---


def test_clips_are_described_without_being_made(tmp_path):
    clips = list(synthetic.clips(tmp_path / "none"))
    assert len(clips) == synthetic.CLIPS
    assert len({clip.clip_id for clip in clips}) == len(clips)
    assert {clip.split for clip in clips} == set(SPLITS)
    assert {clip.split for clip in clips[:4]} == set(SPLITS)
    assert all(clip.text for clip in clips)
    by_speaker = {clip.speaker: clip.split for clip in clips}
    assert all(by_speaker[clip.speaker] == clip.split for clip in clips)
    assert not (tmp_path / "none").exists()


def test_texts_of_a_speaker_repeat_only_when_all_were_said(tmp_path):
    said: dict[str, list[str]] = {}
    for clip in synthetic.clips(tmp_path):
        said.setdefault(clip.speaker, []).append(clip.text)
    for speaker in synthetic.SPEAKERS:
        known = synthetic.sentences(speaker.voice.name)
        first = said[speaker.name][: len(known)]
        assert len(set(first)) == len(first)


def test_another_seed_is_another_corpus():
    texts = [[p.text for p in itertools.islice(synthetic.plans(seed), 30)] for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_a_clip_is_the_same_whenever_it_is_made():
    one, two = synthetic.perform(plan_of("emil")), synthetic.perform(plan_of("emil"))
    np.testing.assert_array_equal(one.waveform, two.waveform)
    np.testing.assert_array_equal(one.mouth.opening, two.mouth.opening)
    frames = [next(iter(mouth_warp.render(p.identity, p.mouth, p.head))) for p in (one, two)]
    np.testing.assert_array_equal(*frames)


def test_only_what_is_wanted_and_missing_is_made(tmp_path):
    source = tmp_path / "videos"
    first, second, *_ = corpora.clips("synthetic", source)
    corpora.make("synthetic", [first], source, 1)
    assert first.video.is_file()
    assert not second.video.exists()
    before = first.video.stat()
    corpora.make("synthetic", [first], source, 1)
    assert first.video.stat().st_mtime_ns == before.st_mtime_ns
    assert first.video.stat().st_ino == before.st_ino
    assert sorted(path.name for path in source.rglob("*") if path.is_file()) == [
        "00000.mp4",
        "synthetic.json",
    ]

    # In the file, picture and sound are those of the plan, together.
    performance = synthetic.perform(next(synthetic.plans()))
    info = video.probe(first.video)
    assert (info.width, info.height) == (256, 256)
    shown = list(video.iter_frames(first.video))
    assert len(shown) == len(performance.mouth)
    drawn = mouth_warp.render(performance.identity, performance.mouth, performance.head)
    for picture, frame in zip(shown[:3], drawn, strict=False):
        assert np.abs(picture.astype(int) - frame).mean() < 4
    heard = video.read_waveform(first.video, performance.sample_rate)
    spoken = np.zeros(len(heard), np.float32)
    n = min(len(heard), len(performance.waveform))
    spoken[:n] = performance.waveform[:n]
    shifts = np.fft.irfft(np.fft.rfft(heard) * np.conj(np.fft.rfft(spoken)))
    late = int(shifts.argmax())
    late = late - len(shifts) if late > len(shifts) // 2 else late
    assert abs(late) / performance.sample_rate < 0.005


def test_a_folder_of_other_settings_is_refused(tmp_path):
    (tmp_path / "synthetic.json").write_text('{"version": 0, "seed": 0}\n')
    with pytest.raises(InputError, match="another folder"):
        list(synthetic.clips(tmp_path))
    (tmp_path / "synthetic.json").write_text("not json")
    with pytest.raises(InputError, match="another folder"):
        list(synthetic.clips(tmp_path))
