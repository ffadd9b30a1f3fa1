"""Corpora find the clips, the people and the splits that are there, and refuse what is not."""

import pickle
from collections import Counter

import pytest

from atvg_jax.errors import InputError
from data_prep import corpora
from data_prep.corpora import folder, lrw
from data_prep.corpora.clip import Clip
from data_prep.corpora.splits import split_by_speaker


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write_list(root, *lines):
    root.mkdir(parents=True, exist_ok=True)
    (root / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


class TestClip:
    def test_it_can_be_sent_to_another_process(self, tmp_path):
        clip = Clip("a/b.mp4", tmp_path / "b.mp4", "a", "train", audio_offset=0.12)
        assert pickle.loads(pickle.dumps(clip)) == clip

    @pytest.mark.parametrize(
        "wrong",
        [
            {"split": "dev"},
            {"clip_id": ""},
            {"clip_id": "a\nb"},
            {"speaker": ""},
            {"audio_offset": float("nan")},
            {"audio_offset": 120.0},  # milliseconds, surely
        ],
    )
    def test_what_cannot_be_is_refused(self, tmp_path, wrong):
        fields = {"clip_id": "a", "video": tmp_path, "speaker": "a", "split": "train"}
        with pytest.raises(InputError):
            Clip(**{**fields, **wrong})


class TestSplits:
    def test_about_a_tenth_each_is_held_out(self):
        counts = Counter(split_by_speaker(f"person {i}" for i in range(5000)).values())
        assert 3900 < counts["train"] < 4100
        assert 420 < counts["validation"] < 580
        assert 420 < counts["test"] < 580

    def test_nobody_moves_when_others_join(self):
        few = {f"person {i}" for i in range(200)}
        many = few | {f"newcomer {i}" for i in range(200)}
        before, after = split_by_speaker(few), split_by_speaker(many)
        assert all(after[name] == split for name, split in before.items())

    @pytest.mark.parametrize("count", range(1, 8))
    def test_few_people(self, count):
        for attempt in range(20):
            splits = split_by_speaker(f"{attempt} {i}" for i in range(count))
            counts = Counter(splits.values())
            assert counts.total() == count
            assert counts["train"] >= 1
            assert count < 3 or counts["validation"] >= 1 or counts["train"] == 1
            assert count < 5 or counts["test"] >= 1 or counts["train"] == 1


class TestFolder:
    def test_without_a_list_every_video_is_taken(self, tmp_path):
        touch(tmp_path, "b/1.mp4", "b/deep/2.MKV", "a.mov", "b/notes.txt", ".hidden/3.mp4")
        clips = list(folder.clips(tmp_path))
        assert [clip.clip_id for clip in clips] == ["a.mov", "b/1.mp4", "b/deep/2.MKV"]
        assert [clip.speaker for clip in clips] == ["a", "b", "b"]
        assert clips[1].split == clips[2].split
        assert clips[1].video == tmp_path / "b/1.mp4"

    def test_a_list_tells(self, tmp_path):
        touch(tmp_path, "x.mp4", "y.mp4", "unlisted.mp4")
        write_list(
            tmp_path,
            "Path, speaker,split,audio_offset,text,source",
            'x.mp4,ada,val,-0.08,"hello, world",somewhere',
            "y.mp4,ben,train,,,",
        )
        x, y = folder.clips(tmp_path)
        assert (x.clip_id, x.speaker, x.split, x.audio_offset, x.text) == (
            "x.mp4", "ada", "validation", -0.08, "hello, world",
        )  # fmt: skip
        assert (y.speaker, y.split, y.audio_offset, y.text) == ("ben", "train", 0.0, "")

    def test_the_nearest_list_that_tells_wins(self, tmp_path):
        touch(tmp_path, "in/x.mp4", "in/y.mp4", "other/z.mp4", "cut/from/x.mp4")
        write_list(
            tmp_path,
            "path,speaker,split,audio_offset",
            "in/x.mp4,far,train,0.5",
            "in/y.mp4,far,test,",
        )
        write_list(tmp_path / "in", "path,speaker,audio_offset", "x.mp4,near,", "y.mp4,,0.04")
        write_list(tmp_path / "other", "path", "z.mp4")
        x, y, z = folder.clips(tmp_path)
        assert (x.speaker, x.split, x.audio_offset) == ("near", "train", 0.5)
        assert (y.speaker, y.split, y.audio_offset) == ("far", "test", 0.04)
        assert (z.clip_id, z.speaker) == ("other/z.mp4", "other")

    def test_a_person_stays_in_one_split(self, tmp_path):
        names = [f"{i}.mp4" for i in range(8)]
        touch(tmp_path, *names)
        rows = [f"{name},ada,{'test' if name == '3.mp4' else ''}" for name in names]
        write_list(tmp_path, "path,speaker,split", *rows)
        assert {clip.split for clip in folder.clips(tmp_path)} == {"test"}

    @pytest.mark.parametrize(
        ("lines", "named"),
        [
            (["file,speaker", "x.mp4,a"], "no column path"),
            (["path", "absent.mp4"], "line 2: absent.mp4 is not there"),
            (["path", "../x.mp4"], "outside"),
            (["path", "sub/../../x.mp4"], "outside"),
            (["path", "/etc/passwd"], "outside"),
            (["path,split", "x.mp4,dev"], "split 'dev' is unknown"),
            (["path,audio_offset", "x.mp4,late"], "no number of seconds"),
            (["path,audio_offset", "x.mp4,nan"], "audio_offset"),
            (["path,audio_offset", "x.mp4,80"], "audio_offset"),
            (["path", "x.mp4", "x.mp4"], "twice"),
            (["path,speaker", ",a"], "path is empty"),
            ([""], "no column path"),
            (["path"], "name no video"),
        ],
    )
    def test_a_wrong_list_is_refused(self, tmp_path, lines, named):
        touch(tmp_path / "in", "x.mp4")
        touch(tmp_path, "x.mp4")
        write_list(tmp_path / "in", *lines)
        with pytest.raises(InputError, match=named) as caught:
            list(folder.clips(tmp_path / "in"))
        assert "\n" not in str(caught.value)

    def test_a_list_that_is_no_text_is_refused(self, tmp_path):
        (tmp_path / "clips.csv").write_bytes(b"path\n\xff\xfe\x00.mp4\n")
        with pytest.raises(InputError, match="UTF-8"):
            list(folder.clips(tmp_path))

    def test_strange_names_are_written_as_escapes(self, tmp_path):
        touch(tmp_path, "a\nb.mp4")
        (clip,) = folder.clips(tmp_path)
        assert clip.clip_id == r"a\nb.mp4"
        assert clip.video.exists()

    def test_a_folder_without_videos_is_refused(self, tmp_path):
        touch(tmp_path, "readme.txt")
        with pytest.raises(InputError, match="holds no videos"):
            list(folder.clips(tmp_path))
        with pytest.raises(InputError, match="not a folder"):
            list(folder.clips(tmp_path / "absent"))

    def test_real_tree(self, clips):
        found = list(corpora.clips("folder", clips))
        by_id = {clip.clip_id: clip for clip in found}
        assert len(found) == 192 + 56 + 240
        assert not any(clip.clip_id.startswith(("lrw/", "voxceleb2/")) for clip in found)
        late = by_id["folder/barack_obama_01.mp4"]
        assert (late.speaker, late.split, late.audio_offset) == ("barack_obama", "train", 0.24)
        people = {(clip.speaker, clip.split) for clip in found}
        assert len(people) == len({speaker for speaker, _ in people}) == 66


class TestLRW:
    def tree(self, root):
        for split, count in (("train", 3), ("val", 1), ("test", 2)):
            for number in range(1, count + 1):
                name = f"lipreading_mp4/ABOUT/{split}/ABOUT_{number:05d}"
                touch(root, f"{name}.mp4", f"{name}.txt")
        touch(root, "lipreading_mp4/ABOUT/train/other.mp4", "lipreading_mp4/readme.txt")

    @pytest.mark.parametrize("inside", ["", "lipreading_mp4"])
    def test_words_and_splits_are_the_corpus_s_own(self, tmp_path, inside):
        self.tree(tmp_path)
        clips = list(lrw.clips(tmp_path / inside))
        assert Counter(clip.split for clip in clips) == {"train": 3, "validation": 1, "test": 2}
        assert clips[0].clip_id == "ABOUT/train/ABOUT_00001.mp4"
        assert {clip.text for clip in clips} == {"ABOUT"}

    def test_another_corpus_is_refused_with_what_was_found(self, tmp_path):
        touch(tmp_path, "s1/a.mpg", "s2/b.mpg")
        with pytest.raises(InputError, match=r"looked for lipreading_mp4/WORD.* found s1, s2"):
            list(lrw.clips(tmp_path))
        with pytest.raises(InputError, match="no folders"):
            list(lrw.clips(tmp_path / "absent"))

    def test_real_tree(self, clips):
        found = list(corpora.clips("lrw", clips / "lrw"))
        assert Counter(clip.split for clip in found).total() == 38
