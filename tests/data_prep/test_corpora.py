"""Corpora find the clips, the people and the splits that are there, and refuse what is not."""

import pickle
from collections import Counter
from typing import ClassVar

import pytest

from atvg_jax.errors import InputError
from data_prep import corpora
from data_prep.corpora import folder, grid, lrw
from data_prep.corpora.clip import Clip, Word
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


class TestWords:
    def test_those_said_in_a_part(self, tmp_path):
        words = (Word("bin", 0.5, 0.7), Word("blue", 0.7, 1.1), Word("now", 2.0, 2.4))
        clip = Clip("a", tmp_path, "a", "train", words=words)
        assert clip.words_within(0, 3) == words
        assert clip.words_within(0.8, 2.1) == (Word("blue", -0.1, 0.3),)
        late = Clip("a", tmp_path, "a", "train", audio_offset=0.5, words=words)
        assert late.words_within(0.0, 0.3) == (Word("bin", 0.0, 0.2),)


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

    def test_a_corpus_with_a_test_split_of_its_own(self):
        names = [f"person {i}" for i in range(300)]
        both, one = split_by_speaker(names), split_by_speaker(names, test=False)
        assert set(one.values()) == {"train", "validation"}
        assert {n for n in names if one[n] != both[n]} == {n for n in names if both[n] == "test"}

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

    def test_the_word_is_said_in_the_middle(self, tmp_path):
        self.tree(tmp_path)
        folder = tmp_path / "lipreading_mp4" / "ABOUT" / "train"
        for number, line in enumerate(("Duration: 0.40 seconds", "Duration: 3 seconds"), start=1):
            (folder / f"ABOUT_{number:05d}.txt").write_text(f"Disk reference: 1\n{line}\n")
        (folder / "ABOUT_00003.txt").write_bytes(b"\xff\x00")
        one, two, three, *_ = lrw.clips(tmp_path)
        assert one.words == (Word("ABOUT", 0.38, 0.78),)  # 29 frames are 1.16 s
        assert two.words == three.words == ()

    def test_real_tree(self, clips):
        found = list(corpora.clips("lrw", clips / "lrw"))
        assert Counter(clip.split for clip in found).total() == 38
        assert all(clip.words[0].end > clip.words[0].start for clip in found)


ALIGNMENT = """0 12750 sil
12750 18250 bin
18250 24000 blue
24000 28750 at
28750 35000 f
35000 36000 sp
36000 43750 two
43750 55500 now
55500 74500 sil
"""


class TestGrid:
    @pytest.mark.parametrize(
        ("video", "align"),
        [
            ("s1/bbaf2n.mpg", "align/s1/bbaf2n.align"),
            ("s1/video/bbaf2n.mpg", "s1/align/bbaf2n.align"),
            ("s1/video/mpg_6000/bbaf2n.mpg", "alignments/s1/bbaf2n.align"),
            ("video/s1/bbaf2n.mp4", "align/bbaf2n.align"),
        ],
    )
    def test_layouts(self, tmp_path, video, align):
        touch(tmp_path, video, align)
        (tmp_path / align).write_text(ALIGNMENT)
        (clip,) = grid.clips(tmp_path)
        assert (clip.clip_id, clip.speaker, clip.text) == (video, "s1", "bin blue at f two now")
        assert clip.words[0] == Word("bin", 0.51, 0.73)
        assert clip.words[-1] == Word("now", 1.75, 2.22)

    def test_a_speaker_s_own_folder(self, tmp_path):
        touch(tmp_path, "s3/bbaf2n.mpg", "s3/align/bbaf2n.align")
        (clip,) = grid.clips(tmp_path / "s3")
        assert (clip.clip_id, clip.speaker) == ("bbaf2n.mpg", "s3")

    def test_without_alignment_the_name_tells(self, tmp_path):
        touch(tmp_path, "s1/lwwz9s.mpg", "s1/sgbi1p.mpg", "s1/other.mpg", "s1/prizzz.mpg")
        (tmp_path / "s1" / "sgbi1p.align").write_text("0 1 2 3 damaged")
        found = {clip.clip_id: clip for clip in grid.clips(tmp_path)}
        assert found["s1/lwwz9s.mpg"].text == "lay white with z nine soon"
        assert found["s1/sgbi1p.mpg"].text == "set green by i one please"
        assert found["s1/other.mpg"].text == found["s1/prizzz.mpg"].text == ""
        assert {clip.words for clip in found.values()} == {()}

    def test_another_speaker_s_times_are_not_used(self, tmp_path):
        """The same sentence is said by several people, each in their own time."""
        touch(tmp_path, "s1/bbaf2n.mpg", "s2/bbaf2n.mpg", "align/bbaf2n.align")
        (tmp_path / "align" / "bbaf2n.align").write_text(ALIGNMENT)
        assert [clip.words for clip in grid.clips(tmp_path)] == [(), ()]

    def test_of_two_sizes_the_larger_is_taken(self, tmp_path):
        touch(tmp_path, "s1/video/mpg_vcd/bbaf2n.mpg", "s1/video/mpg_6000/bbaf2n.mpg")
        (tmp_path / "s1/video/mpg_6000/bbaf2n.mpg").write_bytes(b"larger")
        (clip,) = grid.clips(tmp_path)
        assert clip.clip_id == "s1/video/mpg_6000/bbaf2n.mpg"

    def test_speakers_are_held_out(self, tmp_path):
        touch(tmp_path, *(f"s{n}/{name}.mpg" for n in range(1, 35) for name in ("a", "b")))
        splits = {(clip.speaker, clip.split) for clip in grid.clips(tmp_path)}
        assert len(splits) == 34
        assert {split for _, split in splits} == {"train", "validation", "test"}

    def test_real_tree(self, clips):
        found = list(corpora.clips("grid", clips / "grid"))
        told = [clip for clip in found if clip.words]
        assert (len(found), len(told)) == (192, 174)
        for clip in told:
            # The name spells the sentence, so it tells whether the right file was read.
            assert clip.text == grid.sentence(clip.video.stem)
            assert clip.words[-1].end < 3.0


class TestWrongCorpus:
    """Whoever gives the wrong folder, or the wrong name, is told what is there."""

    TREES: ClassVar = {
        "lrw": "lipreading_mp4/ABOUT/train/ABOUT_00001.mp4",
        "grid": "s1/bbaf2n.mpg",
        "voxceleb2": "dev/mp4/id00012/abc/00001.mp4",
        "voxceleb1": "txt/id10001/abc/00001.txt",
        "folder": "holiday/beach.mov",
    }

    @pytest.mark.parametrize("given", ["lrw", "grid", "voxceleb1", "voxceleb2"])
    def test_it_names_what_was_found_and_what_it_looks_like(self, tmp_path, given):
        for other, path in self.TREES.items():
            if other == given:
                continue
            touch(tmp_path / other, path)
            with pytest.raises(InputError) as caught:
                list(corpora.clips(given, tmp_path / other))
            message = str(caught.value)
            assert "\n" not in message
            assert "looked for" in message
            assert f"found {path.split('/')[0]}/" in message
            assert message.endswith(f"it looks like --corpus={other}")

    def test_the_right_folder_inside_is_named(self, tmp_path):
        touch(tmp_path, "data/LRW/lipreading_mp4/ABOUT/train/ABOUT_00001.mp4", "data/readme.txt")
        with pytest.raises(InputError, match=r"data/LRW looks like --corpus=lrw"):
            list(corpora.clips("lrw", tmp_path / "data"))

    @pytest.mark.parametrize("corpus", ["lrw", "grid", "voxceleb1", "voxceleb2"])
    def test_nothing_there(self, tmp_path, corpus):
        with pytest.raises(InputError, match="is not a folder"):
            list(corpora.clips(corpus, tmp_path / "absent"))
        with pytest.raises(InputError, match="found nothing in it"):
            list(corpora.clips(corpus, tmp_path))

    def test_links_are_followed_but_not_in_circles(self, tmp_path):
        touch(tmp_path / "elsewhere", "s1/a.mpg")
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "grid").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "s1" / "round").symlink_to(tmp_path / "in")
        assert [clip.clip_id for clip in grid.clips(tmp_path / "in")] == ["grid/s1/a.mpg"]
