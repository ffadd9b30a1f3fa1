"""Speech with known timing, from the espeak-ng synthesizer.

espeak-ng is a library under the GNU General Public License, version 3. It is no part of this
project: it is loaded at run time from the package ``espeakng-loader``, by the ``synthetic`` corpus
alone, and nothing else needs it. The sound that it makes is not covered by its licence.
"""

import ctypes
import dataclasses
import functools
import importlib
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from atvg_jax.errors import InputError

# From espeak-ng's public header, speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 0x0001, 0x0002, 0x8000
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_CHARACTERS_UTF8, _END_PAUSE = 1, 0x1000
_EVENT_END, _EVENT_PHONEME = 0, 7

_PEAK = 0.7
"""Largest amplitude of a finished waveform; leaves room for resampling and lossy coding."""


class _Label(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Label),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclasses.dataclass(frozen=True)
class Voice:
    """Who speaks.

    Attributes:
        name: espeak-ng's name of a language, or ``language+variant``, such as ``en-us+f2``.
        words_per_minute: 80 to 450.
        pitch: 0 to 100; 50 is the variant's own.
        pitch_range: 0 (monotone) to 100.
    """

    name: str = "en-us"
    words_per_minute: int = 165
    pitch: int = 50
    pitch_range: int = 50


@dataclasses.dataclass(frozen=True)
class Phoneme:
    """A sound of speech: its IPA symbol (empty in a pause) and when it is heard, in seconds."""

    symbol: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Utterance:
    """Spoken text: waveform (N,) float32 in [-1, 1], its rate in hertz, and its phonemes."""

    waveform: np.ndarray
    sample_rate: int
    phonemes: tuple[Phoneme, ...]


@functools.cache
def _loader() -> ModuleType:
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise InputError(
            "the synthetic corpus needs espeak-ng: install the package espeakng-loader",
            reason="missing_package",
        ) from error


def _load_library() -> ctypes.CDLL:
    """A copy of espeak-ng of one's own, with fresh internal state.

    The library keeps its noise generator and the phase of the last wave in static variables that no
    call resets, so a second utterance would depend on the first. The system loader shares a library
    by file, hence a new file each time (0.7 MB, some milliseconds).
    """
    path = Path(_loader().get_library_path())
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        copy.write(path.read_bytes())
        copy.flush()
        return ctypes.CDLL(copy.name)


def _unload(library: ctypes.CDLL) -> None:
    """Gives the memory of a loaded copy back; there is no public call for it in ctypes."""
    process = ctypes.CDLL(None)
    process.dlclose.argtypes = [ctypes.c_void_p]
    process.dlclose(library._handle)


def speak(text: str, voice: Voice | None = None, seed: int = 0) -> Utterance:
    """Speaks a text. The same arguments give the same samples, bit for bit.

    Args:
        text: plain text in the voice's language.
        voice: who speaks; American English where not given.
        seed: of the noise in hissing sounds.

    Returns:
        The utterance at espeak-ng's own rate (22050 Hz).

    Raises:
        InputError: the package or the voice is not there, or nothing came out.
    """
    voice = voice or Voice()
    library = _load_library()
    try:
        return _speak(library, text, voice, seed)
    finally:
        library.espeak_Terminate()
        _unload(library)


def _speak(library: ctypes.CDLL, text: str, voice: Voice, seed: int) -> Utterance:
    chunks: list[np.ndarray] = []
    marks: list[tuple[int, str]] = []  # (sample, IPA symbol with stress marks)

    @_Callback
    def receive(samples, count, events):
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                # Eight bytes; a longer symbol is cut, maybe in the middle of a character.
                raw = ctypes.string_at(ctypes.addressof(event) + _Event.id.offset, 8)
                marks.append((event.sample, raw.split(b"\0")[0].decode("utf-8", "ignore")))
            index += 1
        return 0

    rate = library.espeak_Initialize(
        _OUTPUT_SYNCHRONOUS,
        0,
        str(Path(_loader().get_data_path()).parent).encode(),
        _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT,
    )
    if rate <= 0:
        raise InputError("espeak-ng did not start: its data files could not be read")
    library.espeak_SetSynthCallback(receive)
    if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise InputError(f"espeak-ng has no voice {voice.name!r}; name one such as en-us+f2")
    library.espeak_SetParameter(_RATE, voice.words_per_minute, 0)
    library.espeak_SetParameter(_PITCH, voice.pitch, 0)
    library.espeak_SetParameter(_PITCH_RANGE, voice.pitch_range, 0)
    # After initialisation, which seeds them from the clock: espeak-ng's own generator and C's.
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed + 1))
    ctypes.CDLL(None).srand(ctypes.c_uint(seed + 1))
    encoded = text.encode()
    library.espeak_Synth(
        encoded, len(encoded) + 1, 0, 0, 0, _CHARACTERS_UTF8 | _END_PAUSE, None, None
    )
    library.espeak_Synchronize()
    if not chunks:
        raise InputError(f"espeak-ng made no sound of {text!r}")
    waveform = np.concatenate(chunks).astype(np.float32)
    waveform *= _PEAK / max(1.0, float(np.abs(waveform).max()))
    ends = [sample for sample, _ in marks[1:]] + [len(waveform)]
    phonemes = tuple(
        Phoneme(symbol, start / rate, end / rate)
        for (start, symbol), end in zip(marks, ends, strict=True)
        if end > start
    )
    return Utterance(waveform, int(rate), phonemes)
