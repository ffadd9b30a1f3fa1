"""The corpus that the project makes itself: bundled portraits that speak synthetic sentences.

It needs no footage. Each speaker is a bundled portrait reshaped and recoloured into a person, with
a voice, a way of moving and a share of the sentences; the mouth is warped by the phonemes of the
speech at their own times, so picture and sound are in sync by construction. Everything follows from
the seed: the same clip is the same video whenever and in whatever order it is made.

The folder that it is made in holds ``SPEAKER/NUMBER.mp4`` and ``synthetic.json`` with the settings.
``clips`` describes what can be there, ``make`` makes what is wanted and missing; a folder made with
other settings is refused.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from atvg_jax.errors import InputError
from atvg_jax.features import video
from data_prep.corpora import mouth_warp, portraits, speech, visemes
from data_prep.corpora.clip import Clip
from data_prep.corpora.sentences import sentences

VERSION = 1
"""Goes up whenever the same seed would give other videos."""

CLIPS = 240
"""How many clips the whole corpus has: about 13 minutes."""

SETTINGS_FILE = "synthetic.json"

_SILENCE = 0.12, 0.35
"""Seconds, least and most, before and after a sentence."""


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A made person: name, split, bundled portrait, how far from it (0 to 1), voice, expression."""

    name: str
    split: str
    portrait: str
    strength: float
    voice: speech.Voice
    expressiveness: float = 1.0


SPEAKERS = (
    Speaker("anna", "train", "astronaut", 0.0, speech.Voice("en-us+f2", 165, 52)),
    Speaker("grace", "validation", "hopper", 0.8, speech.Voice("en+f4", 155, 42), 0.95),
    Speaker("bea", "train", "hopper", 0.0, speech.Voice("en-us+f5", 150, 40)),
    Speaker("theo", "test", "astronaut", 1.0, speech.Voice("en-us+m3", 160, 46), 1.05),
    Speaker("carl", "train", "astronaut", 0.8, speech.Voice("en-us+m1", 160, 45), 0.9),
    Speaker("dora", "train", "hopper", 0.8, speech.Voice("en+f1", 170, 55), 1.1),
    Speaker("emil", "train", "astronaut", 1.0, speech.Voice("en+m7", 150, 38), 0.85),
    Speaker("fay", "train", "astronaut", 0.6, speech.Voice("en-us+f3", 180, 58), 1.05),
    Speaker("gil", "train", "hopper", 0.8, speech.Voice("en-us+m4", 165, 50)),
    Speaker("ines", "train", "astronaut", 0.9, speech.Voice("es+f2", 165, 50), 1.1),
    Speaker("uma", "test", "hopper", 0.9, speech.Voice("en-gb-scotland+f3", 160, 50)),
    Speaker("jens", "train", "hopper", 0.7, speech.Voice("de+m3", 160, 44), 0.95),
    Speaker("hugo", "validation", "astronaut", 0.9, speech.Voice("en+m5", 170, 48)),
    Speaker("lou", "train", "astronaut", 0.7, speech.Voice("fr+f4", 160, 54)),
)
"""In the order that clips take turns; any first few hold people of every split."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a clip is made from. Small and picklable.

    Attributes:
        number: its place in the corpus, from 0.
        speaker: who talks.
        text: what is said.
        seed: of the corpus.
    """

    number: int
    speaker: Speaker
    text: str
    seed: int

    @property
    def clip_id(self) -> str:
        """Name in the corpus, and without ``.mp4`` the path in its folder."""
        return f"{self.speaker.name}/{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class Performance:
    """A plan carried out, but for the pictures.

    Attributes:
        identity: the face.
        waveform: (N,) float32 in [-1, 1], as long as the frames.
        sample_rate: of the waveform, in hertz.
        mouth: T mouth shapes: what the pictures are drawn from, and the truth to test against.
        head: T head positions.
    """

    identity: portraits.Identity
    waveform: np.ndarray
    sample_rate: int
    mouth: visemes.MouthTrack
    head: mouth_warp.HeadTrack


def plans(seed: int = 0) -> Iterator[Plan]:
    """The clips of the corpus in order, without end; speakers take turns.

    Each speaker goes through the sentences of the language in an order of their own.
    """
    orders = {}
    for index, speaker in enumerate(SPEAKERS):
        texts = sentences(speaker.voice.name)
        orders[speaker.name] = np.random.default_rng([seed, index, 1]).permutation(len(texts))
    for number in itertools.count():
        turn, index = divmod(number, len(SPEAKERS))
        speaker = SPEAKERS[index]
        texts, order = sentences(speaker.voice.name), orders[speaker.name]
        yield Plan(number, speaker, texts[order[turn % len(order)]], seed)


def perform(plan: Plan) -> Performance:
    """Speaks a plan's text and works out how face and head move with it."""
    index = SPEAKERS.index(plan.speaker)
    # The person from the speaker alone, the rest from the clip.
    identity = portraits.random_identity(
        plan.speaker.portrait, np.random.default_rng([plan.seed, index, 2]), plan.speaker.strength
    )
    rng = np.random.default_rng([plan.seed, plan.number, 3])
    voice = dataclasses.replace(
        plan.speaker.voice,
        words_per_minute=round(plan.speaker.voice.words_per_minute * rng.uniform(0.92, 1.08)),
        pitch=int(np.clip(plan.speaker.voice.pitch + rng.integers(-4, 5), 0, 99)),
    )
    spoken = speech.speak(plan.text, voice, seed=plan.number)
    utterance = _with_silence(spoken, *rng.uniform(*_SILENCE, 2))
    frames = math.ceil(len(utterance.waveform) / utterance.sample_rate * visemes.FRAME_RATE)
    waveform = np.zeros(
        round(frames / visemes.FRAME_RATE * utterance.sample_rate), utterance.waveform.dtype
    )
    waveform[: len(utterance.waveform)] = utterance.waveform[: len(waveform)]
    return Performance(
        identity,
        waveform * np.float32(rng.uniform(0.5, 1.0)),
        utterance.sample_rate,
        visemes.mouth_track(utterance, frames, plan.speaker.expressiveness),
        mouth_warp.random_head_track(frames, rng),
    )


def _with_silence(utterance: speech.Utterance, before: float, after: float) -> speech.Utterance:
    """Puts silence (seconds) around an utterance, in place of what espeak-ng ends it with."""
    rate = utterance.sample_rate
    loud = np.flatnonzero(np.abs(utterance.waveform) > 1e-3)
    waveform = utterance.waveform[: loud[-1] + 1] if len(loud) else utterance.waveform
    lead = round(before * rate)
    waveform = np.pad(waveform, (lead, round(after * rate)))
    phonemes = tuple(
        speech.Phoneme(sound.symbol, sound.start + lead / rate, sound.end + lead / rate)
        for sound in utterance.phonemes
    )
    return speech.Utterance(waveform, rate, phonemes)


def render(plan: Plan, path: Path) -> None:
    """Makes a clip's video, unless it is there."""
    if path.exists():
        return
    performance = perform(plan)
    frames = mouth_warp.render(performance.identity, performance.mouth, performance.head)
    video.write_video(
        path,
        frames,
        performance.waveform,
        performance.sample_rate,
        comment="synthetic speech and a warped portrait, made by atvg_jax",
    )


def clips(source: Path, seed: int = 0, count: int = CLIPS) -> Iterator[Clip]:
    """The clips of the corpus in a folder, made or not: ``make`` makes those that are wanted.

    Args:
        source: the folder; need not be there.
        seed: of everything random.
        count: how many clips.

    Raises:
        InputError: the folder holds a corpus of another seed or version.
    """
    source = Path(source)
    _check_settings(source, {"version": VERSION, "seed": seed})
    for plan in itertools.islice(plans(seed), count):
        yield Clip(
            clip_id=plan.clip_id,
            video=_path(source, plan),
            speaker=plan.speaker.name,
            split=plan.speaker.split,
            text=plan.text,
        )


def make(wanted: Iterable[Clip], source: Path, workers: int = 1, seed: int = 0) -> None:
    """Makes the videos of clips that are not there yet, each whole or not at all.

    Args:
        wanted: some of what ``clips`` yields for this folder.
        source: the folder; made where absent.
        workers: processes.
        seed: of everything random.

    Raises:
        InputError: espeak-ng is missing, or the folder holds a corpus of other settings.
    """
    source = Path(source)
    settings = {"version": VERSION, "seed": seed}
    _check_settings(source, settings)
    missing = {clip.clip_id for clip in wanted if not clip.video.exists()}
    if not missing:
        return
    _write_settings(source, settings)
    todo: list[Plan] = []
    for plan in plans(seed):
        if plan.clip_id in missing:
            todo.append(plan)
            if len(todo) == len(missing):
                break
    # Fresh processes, not forks of one that may hold threads of other libraries.
    with (
        tqdm(total=len(todo), desc="making clips", unit="clip") as progress,
        concurrent.futures.ProcessPoolExecutor(
            max(1, min(workers, len(todo))), mp_context=multiprocessing.get_context("spawn")
        ) as pool,
    ):
        making = [pool.submit(render, plan, _path(source, plan)) for plan in todo]
        try:
            for one in concurrent.futures.as_completed(making):
                one.result()
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _path(source: Path, plan: Plan) -> Path:
    return source / f"{plan.clip_id}.mp4"


def _read_settings(source: Path) -> dict[str, int] | None:
    """What a folder's corpus was made with; None: no corpus; {}: damaged."""
    try:
        found = json.loads((source / SETTINGS_FILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _check_settings(source: Path, settings: dict[str, int]) -> None:
    found = _read_settings(source)
    if found not in (None, settings):
        raise InputError(
            f"{source} holds a synthetic corpus of other settings ({found}, not {settings}): "
            "name another folder or remove it"
        )


def _write_settings(source: Path, settings: dict[str, int]) -> None:
    source.mkdir(parents=True, exist_ok=True)
    part = source / f".{SETTINGS_FILE}.{os.getpid()}.part"
    part.write_text(json.dumps(settings) + "\n")
    os.replace(part, source / SETTINGS_FILE)
