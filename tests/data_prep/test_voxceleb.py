"""VoxCeleb: people, sets and sound files are found; what is missing is one clip's own fault."""

from collections import Counter

import pytest

from atvg_jax.errors import InputError
from data_prep import corpora
from data_prep.corpora import voxceleb2
from data_prep.prepare import PrepareSettings, Reject, prepare

from .conftest import talk


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def people(root, folder, numbers):
    for number in numbers:
        clip = f"id{number:05d}/abc-DEF_123/00001"
        touch(root, f"{folder}/mp4/{clip}.mp4", f"{folder}/aac/{clip}.m4a")


def splits(source):
    found = {(clip.speaker, clip.split) for clip in voxceleb2.clips(source)}
    assert len(found) == len({speaker for speaker, _ in found})  # one split a person
    return dict(found)


class TestVoxCeleb2:
    def test_sound_lies_beside(self, tmp_path):
        people(tmp_path, "dev", [1])
        (clip,) = voxceleb2.clips(tmp_path)
        assert clip.clip_id == "dev/mp4/id00001/abc-DEF_123/00001.mp4"
        assert clip.audio == tmp_path / "dev/aac/id00001/abc-DEF_123/00001.m4a"
        assert clip.speaker == "id00001"

    @pytest.mark.parametrize("sound", ["aac/X.wav", "wav/X.wav", "m4a/X.m4a", "aac/X.flac"])
    def test_converted_sound_is_as_good(self, tmp_path, sound):
        name = "id00001/abc-DEF_123/00001"
        touch(tmp_path, f"dev/mp4/{name}.mp4", f"dev/{sound.replace('X', name)}")
        (clip,) = voxceleb2.clips(tmp_path)
        assert clip.audio.is_file()

    def test_without_sound_files_it_is_in_the_videos(self, tmp_path):
        touch(tmp_path, "mp4/id00001/abc-DEF_123/00001.mp4")
        (clip,) = voxceleb2.clips(tmp_path)
        assert clip.audio is None

    def test_the_metadata_file_tells_the_set(self, tmp_path):
        people(tmp_path, "dev", range(200))
        people(tmp_path, "test", range(200, 220))
        # As it is distributed: padded with blanks and tabs.
        lines = [
            f"id{n:05d} \t,n{n:06d} \t,m ,{'test' if n >= 190 else 'dev'} " for n in range(210)
        ]
        text = "\n".join(["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set ", *lines])
        (tmp_path / "vox2_meta.csv").write_text(text)
        found = splits(tmp_path)
        counts = Counter(found.values())
        assert {name for name, split in found.items() if split == "test"} == {
            f"id{n:05d}"
            for n in range(190, 220)  # of whom nothing is told: by folder
        }
        assert 8 < counts["validation"] < 32
        # Nobody moves when the corpus is there in part.
        assert splits(tmp_path / "dev").items() <= found.items()

    def test_without_it_the_folders_tell(self, tmp_path):
        people(tmp_path, "dev", range(100))
        people(tmp_path, "test", range(100, 110))
        found = splits(tmp_path)
        assert {n for n, s in found.items() if s == "test"} == {
            f"id{n:05d}" for n in range(100, 110)
        }

    def test_with_neither_people_are_held_out_by_their_names(self, tmp_path):
        people(tmp_path, "dev", range(100))
        counts = Counter(splits(tmp_path).values())
        assert 70 < counts["train"] < 90
        assert counts["validation"] > 3
        assert counts["test"] > 3

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("person,set\nid00001,dev\n", "VoxCeleb2 ID"),
            ("VoxCeleb2 ID,Set\nid00001,train\n", "line 2"),
            ("", "no text"),
        ],
    )
    def test_wrong_metadata_is_refused(self, tmp_path, text, named):
        people(tmp_path, "dev", [1])
        (tmp_path / "vox2_meta.csv").write_text(text)
        with pytest.raises(InputError, match=named) as caught:
            list(voxceleb2.clips(tmp_path))
        assert "\n" not in str(caught.value)

    def test_a_clip_whose_sound_is_missing_is_set_aside(self, tmp_path):
        talk(tmp_path / "dev/mp4/id00001/abc-DEF_123/00001.mp4", frames=26)
        touch(tmp_path, "dev/aac/id00001/abc-DEF_123/00002.m4a")
        (clip,) = voxceleb2.clips(tmp_path)
        reject = prepare(clip, PrepareSettings())
        assert isinstance(reject, Reject)
        assert reject.reason == "no_audio"
        assert "00001.m4a is missing" in reject.message

    def test_real_tree(self, clips):
        found = list(corpora.clips("voxceleb2", clips / "voxceleb2"))
        assert len(found) == 14
        assert all(clip.audio.is_file() for clip in found)
        test = {clip.speaker for clip in found if clip.split == "test"}
        assert test == {"id10101", "id10102"}
