"""TFRecord shards -> batches of NumPy arrays, through Grain and without TensorFlow.

An epoch shows every clip in as many windows as fit into it (a clip of 75 frames gives four windows
of 16), each time at another place. Windows are shuffled over the whole data set; which window is in
which batch is a function of the seed and of the window's number since the start of training, and of
nothing else: processes take blocks of the same batch, so that no window is lost or doubled, and a
position is one number that may be resumed with other numbers of processes.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from atvg_jax.data import augment, schema
from atvg_jax.data.augment import Augmentation
from atvg_jax.data.records import ClipRecords
from atvg_jax.errors import InputError
from atvg_jax.features import images, landmarks
from atvg_jax.features.audio import ROWS_PER_FRAME, WINDOW_ROWS, windows_from_mfcc

Batch = dict[str, np.ndarray]

NETWORKS = ("at_net", "vg_net")
EXAMPLES = ("before", "any", "mean")
# LRW clips have 29 frames with the word in the middle; the published AT-net takes the example frame
# from frames 3..7, which leaves 3 frames before it and 5 after the 16 that follow. Longer clips
# keep these margins, shorter ones cannot.
_MARGIN_BEFORE = 3
_MARGIN_AFTER = 5
_ENDLESS = 2**52  # windows


@dataclasses.dataclass(frozen=True)
class Windows:
    """What is cut out of a clip.

    Attributes:
        network: "at_net" (MFCC windows and landmarks) or "vg_net" (pictures and landmarks, the
            example frame anywhere in the clip).
        frames: T, frames of one window.
        example: AT-net's example frame: "before", directly before the window, as published; or
            "any", anywhere in the clip, as VG-net's is. From the frame before, the network also
            learns how far the mouth is open when the window starts, which no portrait will tell it.
            Or "mean", landmarks that are the clip's mean, for what is to learn movement alone.

    Raises:
        InputError: there is no such network or example.
    """

    network: str
    frames: int = 16
    example: str = "before"

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise InputError(f"no network is called {self.network!r}; use one of {NETWORKS}")
        if self.example not in EXAMPLES:
            raise InputError(f"config.example={self.example!r}: choose {', '.join(EXAMPLES)}")

    @property
    def follows(self) -> bool:
        """Whether the window directly follows its example frame."""
        return self.network == "at_net" and self.example == "before"

    @property
    def averages(self) -> bool:
        """Whether the example is the clip's mean and no frame."""
        return self.network == "at_net" and self.example == "mean"

    @property
    def shortest(self) -> int:
        """Frames that a clip must have."""
        return self.frames + self.follows

    def count(self, clip_frames: np.ndarray) -> np.ndarray:
        """How many windows an epoch takes from clips of these lengths; 0 for too short ones."""
        return np.where(clip_frames < self.shortest, 0, np.maximum(1, clip_frames // self.frames))

    def place(
        self, clip_frames: int, part: int, parts: int, rng: np.random.Generator
    ) -> tuple[int, int | None]:
        """First frame of a random window, and the example frame; None: the clip's mean.

        The places where a window can start are cut into ``parts`` equal stretches and the window
        starts within the given one, so that an epoch's windows spread over the clip while any one
        of them may start anywhere.
        """
        if self.follows:
            low, high = _MARGIN_BEFORE + 1, clip_frames - self.frames - _MARGIN_AFTER
            if high < low:
                low, high = 1, clip_frames - self.frames
        else:
            low, high = 0, clip_frames - self.frames
        start = low + int((part + rng.random()) / parts * (high - low + 1))
        if self.averages:
            return start, None
        return start, start - 1 if self.follows else int(rng.integers(clip_frames))

    def place_evenly(self, clip_frames: int, part: int, parts: int) -> tuple[int, int | None]:
        """The same without chance, for evaluation: windows evenly spread.

        The example is the frame before the window, the clip's mean, or else its first frame.
        """
        low, high = self.shortest - self.frames, clip_frames - self.frames
        start = round(low + (high - low) * (part + 0.5) / parts)
        if self.averages:
            return start, None
        return start, start - 1 if self.follows else 0


def cut(
    example: dict[str, Any],
    windows: Windows,
    start: int,
    example_frame: int | None,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
) -> Batch:
    """One window of a clip as the networks take it.

    Args:
        example: a clip as ``schema.deserialize`` gives it.
        windows: what to cut.
        start: first of the T frames.
        example_frame: the frame whose landmarks (and picture) are the example; None, for AT-net
            alone: the mean of the clip's landmarks.
        augmentation: random changes; none by default.
        rng: where those come from.

    Returns:
        for AT-net ``mfcc`` (T, 28, 12), ``landmarks`` (T, 136) in model units, ``example_landmark``
        (136,); for VG-net ``example_image`` (128, 128, 3) uint8, ``frames`` (T, 128, 128, 3) uint8,
        ``landmarks`` and ``example_landmark``.
    """
    settings = augmentation or Augmentation()
    rng = rng or np.random.default_rng(0)  # draws that no setting uses
    taken = [example_frame or 0, *range(start, start + windows.frames)]
    shapes, later = example["landmarks"][taken], 0
    if example_frame is None:
        shapes[0] = example["landmarks"].mean(axis=0)
    end = start + windows.frames
    if windows.network == "at_net" and end < len(example["landmarks"]):
        later = augment.rows_later(settings, rng)
        if later:
            shapes[1:] = augment.interpolated(example["landmarks"][start : end + 1], later)
    points, flip = augment.augment_landmarks(shapes, settings, rng)
    points = landmarks.to_model(points).astype(np.float32, copy=False)
    window = {"landmarks": points[1:], "example_landmark": points[0]}
    if windows.network == "at_net":
        first = ROWS_PER_FRAME * start + later
        rows = example["mfcc"][first : first + ROWS_PER_FRAME * (windows.frames - 1) + WINDOW_ROWS]
        rows = augment.augment_mfcc(rows, settings, rng)
        window["mfcc"] = np.ascontiguousarray(windows_from_mfcc(rows), np.float32)
    else:
        frames = np.stack([images.decode_jpeg(example["frames"][frame]) for frame in taken])
        frames = augment.augment_frames(frames, flip, settings, rng)
        window["example_image"], window["frames"] = frames[0], frames[1:]
    return window


class ClipWindows:
    """The windows of one split of a data set.

    Args:
        data_dir: folder of the data set.
        split: ``train``, ``validation`` or ``test``.
        windows: what to cut.
        balance: 0 to 1. An epoch shows a speaker with n windows ``n ** (1 - balance)`` times a
            common factor: 0 as much of everyone as there is, 1 as much of one as of another. The
            length of an epoch stays about the same.

    Attributes:
        clips: clips long enough for a window.
        skipped: clips that are too short.

    Raises:
        InputError: the split is missing, unreadable, or has no clip that is long enough; or
            ``balance`` is out of range.
    """

    def __init__(self, data_dir: str, split: str, windows: Windows, balance: float = 0.0):
        self.windows = windows
        self.records = ClipRecords(schema.data_files(data_dir, split))
        counts = windows.count(self.records.frames)
        self.clips = int(np.count_nonzero(counts))
        self.skipped = len(counts) - self.clips
        if self.clips == 0:
            raise InputError(
                f"{data_dir}: none of the {len(counts)} clips of split {split!r} has the "
                f"{windows.shortest} frames that a window needs; give longer clips or set "
                "config.frames lower"
            )
        if not 0 <= balance <= 1:
            raise InputError(f"config.balance={balance} must be from 0 to 1")
        if balance:
            counts = _balanced(counts, self._speakers(counts), balance)
        # (N, 3): clip, part, parts of every window of an epoch.
        clip = np.repeat(np.arange(len(counts)), counts)
        part = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._table = np.stack([clip, part, counts[clip]], axis=1)

    def __len__(self) -> int:
        """Windows of one epoch."""
        return len(self._table)

    def _example(self, clip: int) -> dict[str, Any]:
        """A clip, with its pictures only where windows show them."""
        return self.records.example(clip, pictures=self.windows.network == "vg_net")

    def _speakers(self, counts: np.ndarray) -> np.ndarray:
        """The number of each clip's speaker; clips without a window need none."""
        names: dict[bytes, int] = {}
        return np.asarray(
            [
                names.setdefault(self.records.example(clip, False)["speaker"], len(names))
                if count
                else 0
                for clip, count in enumerate(counts)
            ]
        )

    def random(self, number: int, augmentation: Augmentation, rng: np.random.Generator) -> Batch:
        """Window ``number`` of an epoch, at a random place of its part of the clip."""
        clip, part, parts = (int(value) for value in self._table[number])
        place = self.windows.place(int(self.records.frames[clip]), part, parts, rng)
        return cut(self._example(clip), self.windows, *place, augmentation, rng)

    def fixed(self, number: int) -> Batch:
        """Window ``number`` at its fixed place, unchanged, for evaluation."""
        clip, part, parts = (int(value) for value in self._table[number])
        place = self.windows.place_evenly(int(self.records.frames[clip]), part, parts)
        return cut(self._example(clip), self.windows, *place)

    def sample_landmarks(self, frames: int) -> np.ndarray:
        """(N, 136) landmarks in model units, N about ``frames``, of clips spread over the split."""
        long_enough = np.flatnonzero(self.records.frames >= self.windows.shortest)
        number = min(len(long_enough), max(1, frames // self.windows.frames))
        taken = long_enough[np.linspace(0, len(long_enough) - 1, number).round().astype(int)]
        each = -(-frames // number)
        clips = [self.records.example(int(clip), False)["landmarks"] for clip in taken]
        spread = [np.linspace(0, len(clip) - 1, min(each, len(clip))) for clip in clips]
        rows = [clip[at.round().astype(int)] for clip, at in zip(clips, spread, strict=True)]
        return landmarks.to_model(np.concatenate(rows)).astype(np.float32, copy=False)

    def clip_of(self, number: int) -> int:
        """Which clip window ``number`` is cut from."""
        return int(self._table[number, 0])


def _balanced(counts: np.ndarray, speakers: np.ndarray, balance: float) -> np.ndarray:
    """Windows of each clip with the shares of speakers evened out, at least 1 a clip."""
    spoken = np.bincount(speakers, weights=counts).astype(np.float64)
    share = np.maximum(spoken, 1) ** -balance  # of a speaker's windows
    wanted = counts * share[speakers]
    wanted *= counts.sum() / wanted.sum()
    return np.where(counts > 0, np.maximum(1, np.round(wanted)), 0).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a process reads.

    Attributes:
        threads: threads that read and decode, each a batch at a time.
        read_ahead: batches kept ready.
        process: number of this process among ``processes``.
        processes: how many processes share every batch.
    """

    threads: int = 2
    read_ahead: int = 4
    process: int = 0
    processes: int = 1


class TrainBatches(Iterator[Batch]):
    """Endless batches of random windows, with a position that can be saved and set.

    Args:
        source: the split's windows.
        batch_size: global B; this process gets its block of B / processes.
        seed: of order, places and augmentation.
        augmentation: random changes.
        reading: threads and processes.
    """

    def __init__(
        self,
        source: ClipWindows,
        batch_size: int,
        seed: int,
        augmentation: Augmentation | None = None,
        reading: Reading | None = None,
    ):
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self._reading = reading or Reading()
        if batch_size % self._reading.processes:
            raise InputError(
                f"config.batch_size={batch_size} cannot be shared evenly by "
                f"{self._reading.processes} processes"
            )
        augmentation = augmentation or Augmentation()
        self._windows = (
            grain.MapDataset.range(len(source))
            .seed(seed)
            .shuffle()
            # Reshuffles every epoch. Not for ever: Grain counts batches in floats, which round the
            # largest integer up, out of range.
            .repeat(_ENDLESS // len(source))
            .random_map(_RandomWindow(source, augmentation))
        )
        self._seen = 0
        self._iterator: Any = None

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = iter(self._from(self._seen))
        batch = next(self._iterator)
        self._seen += self.batch_size
        return batch

    def _from(self, seen: int) -> grain.IterDataset:
        reading = self._reading
        return (
            self._windows.slice(slice(seen, None))
            .batch(self.batch_size // reading.processes)
            .slice(slice(reading.process, None, reading.processes))
            .to_iter_dataset(
                grain.ReadOptions(
                    num_threads=min(reading.threads, reading.read_ahead),
                    prefetch_buffer_size=reading.read_ahead,
                )
            )
        )

    def get_state(self) -> dict[str, int]:
        """The position, the same in all processes: windows seen, of how many, in which order."""
        return {"windows_seen": self._seen, "windows": len(self.source), "seed": self.seed}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a saved position, also one of a run with other batches or processes."""
        self._seen = int(state["windows_seen"])
        self._iterator = None

    def element(self) -> Batch:
        """Window 0 of the split, for its shapes; does not move the position."""
        return self.source.fixed(0)


@dataclasses.dataclass(frozen=True)
class _RandomWindow(grain.transforms.RandomMap):
    source: ClipWindows
    augmentation: Augmentation

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        return self.source.random(int(element), self.augmentation, rng)


def held_out_batches(
    source: ClipWindows, batch_size: int, limit: int = 0, reading: Reading | None = None
) -> Iterator[tuple[Batch, int]]:
    """The windows of a held-out split at fixed places, in order, in batches of equal size.

    Args:
        source: the split's windows.
        batch_size: global B; this process gets its block of B / processes.
        limit: at most so many windows, evenly spread over the split; 0 for all.
        reading: threads and processes.

    Yields:
        the batch and how many of this process's windows count: the last batch is filled up by
        repeating its last window, so that nothing is compiled twice and nothing counts twice.
    """
    reading = reading or Reading()
    numbers = np.arange(len(source))
    if limit and limit < len(numbers):
        numbers = numbers[np.linspace(0, len(numbers) - 1, limit).round().astype(int)]
    batches = -(-len(numbers) // batch_size)
    filled = np.pad(numbers, (0, batches * batch_size - len(numbers)), mode="edge")
    local = batch_size // reading.processes
    dataset = (
        grain.MapDataset.source(filled)
        .map(lambda number: source.fixed(int(number)))
        .batch(local)
        .slice(slice(reading.process, None, reading.processes))
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=min(reading.threads, reading.read_ahead),
                prefetch_buffer_size=reading.read_ahead,
            )
        )
    )
    for position, batch in enumerate(dataset):
        first = position * batch_size + reading.process * local
        yield batch, max(0, min(local, len(numbers) - first))
