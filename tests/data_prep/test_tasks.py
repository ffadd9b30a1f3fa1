"""Work as lines of text."""

from pathlib import Path

from data_prep.corpora.clip import Clip, Word
from data_prep.prepare import PrepareSettings
from data_prep.tasks import PrepareTask


def test_a_clip_is_the_same_after_its_way_to_a_worker():
    full = Clip(
        clip_id='a/"b" ü.mp4',
        video=Path("/videos/a/b ü.mp4"),
        speaker="a",
        split="test",
        audio=Path("/sound/a.wav"),
        audio_offset=-0.04,
        text="two\nlines",
        boxes=Path("/boxes/a.txt"),
        words=(Word("two", 0.1, 0.25), Word("lines", 0.25, 1 / 3)),
    )
    for clip in (full, Clip("a", Path("a"), "a", "train")):
        item = PrepareTask.item(clip, "0123")
        assert "\n" not in item
        assert PrepareTask.read(item) == (clip, "0123")


def test_large_files_have_more_time(tmp_path):
    task = PrepareTask(PrepareSettings(), tmp_path, 60.0)
    (tmp_path / "large").write_bytes(bytes(2_000_000))
    times = [
        task.seconds(task.item(Clip(name, tmp_path / name, "a", "train"), "0"))
        for name in ("missing", "large")
    ]
    assert times == [60.0, 460.0]
