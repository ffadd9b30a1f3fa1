"""VoxCeleb: people, sets and sound files are found; what is missing is one clip's own fault."""

from collections import Counter

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.features import images, video
from data_prep import corpora, face_boxes
from data_prep.corpora import voxceleb1, voxceleb2
from data_prep.prepare import PrepareSettings, Reject, mfcc_rows, prepare

from .conftest import head, sound, talk


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
            ("person,set\nid00001,dev\n", "VoxCeleb ID"),
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


VIDEO = "abc-DEF_123"
HEADER = (
    "Identity  : \tid10001\nReference : \tabc-DEF_123\nOffset    : \t-1\n\nFRAME \tX \tY \tW \tH \n"
)


def boxes_text(first, boxes):
    """As the corpus has it: boxes (left, top, width, height) of frames from ``first`` on."""
    lines = (
        " \t".join([f"{number:06d}", *(f"{side:g}" for side in box), ""])
        for number, box in enumerate(boxes, start=first)
    )
    return HEADER + "\n".join(lines) + "\n"


def vox1(root, clips=(("id10001", VIDEO),), videos=(f"video/{VIDEO}.mp4",), sounds=True):
    for person, name in clips:
        touch(root, f"txt/{person}/{name}/00001.txt")
        if sounds:
            touch(root, f"wav/{person}/{name}/00001.wav")
    touch(root, *videos)


class TestVoxCeleb1:
    @pytest.mark.parametrize(
        "name",
        [f"{VIDEO}.mp4", f"A talk, part 2 [{VIDEO}].webm", f"A talk-{VIDEO}.mkv"],
    )
    def test_videos_are_found_by_their_names(self, tmp_path, name):
        vox1(tmp_path, videos=[f"mine/deep/{name}", "mine/00001.mp4", f"mine/x{VIDEO}.mp4"])
        (clip,) = voxceleb1.clips(tmp_path)
        assert clip.clip_id == f"txt/id10001/{VIDEO}/00001.txt"
        assert clip.video == tmp_path / "mine/deep" / name
        assert clip.boxes == tmp_path / f"txt/id10001/{VIDEO}/00001.txt"
        assert clip.audio == tmp_path / f"wav/id10001/{VIDEO}/00001.wav"

    def test_videos_that_are_not_there_are_left_out_and_counted(self, tmp_path, capsys):
        vox1(tmp_path, [("id10001", VIDEO), ("id10002", "xxxxxxxxxxx")], sounds=False)
        (clip,) = voxceleb1.clips(tmp_path)
        assert clip.speaker == "id10001"
        assert clip.audio is None
        assert "1 of the corpus's 2 videos" in capsys.readouterr().err

    def test_without_any_it_says_what_to_do(self, tmp_path):
        vox1(tmp_path, videos=[])
        with pytest.raises(InputError, match=f"none of the 1 videos.*{VIDEO}.mp4"):
            list(voxceleb1.clips(tmp_path))

    def test_the_table_tells_the_set(self, tmp_path):
        clips = [(f"id{n}", f"{n:011d}") for n in range(10, 30)]
        vox1(tmp_path, clips, [f"{name}.mp4" for _, name in clips])
        rows = [f"id{n}\tName\tf\tUK\t{'test' if n > 25 else 'dev'}" for n in range(10, 30)]
        head = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
        (tmp_path / "vox1_meta.csv").write_text("\n".join([head, *rows]))
        found = {clip.speaker: clip.split for clip in voxceleb1.clips(tmp_path)}
        assert {name for name, split in found.items() if split == "test"} == {
            "id26", "id27", "id28", "id29",
        }  # fmt: skip

    def test_another_corpus(self, tmp_path):
        people(tmp_path, "dev", [1])
        with pytest.raises(InputError, match=r"looked for txt/.*found dev/; it .*=voxceleb2"):
            list(voxceleb1.clips(tmp_path))


class TestBoxes:
    def read(self, tmp_path, text):
        (tmp_path / "x.txt").write_text(text)
        return face_boxes.read(tmp_path / "x.txt")

    def test_pixels_are_of_a_picture_360_high(self, tmp_path):
        boxes = self.read(tmp_path, boxes_text(2316, [(223, 80, 130, 120), (218, 75, 130, 120)]))
        assert boxes.start == 2316
        assert boxes.at(0, 360, 640) == (223, 80, 353, 200)
        assert boxes.at(1, 1080, 1920) == (654, 225, 1044, 585)
        assert boxes.at(2, 360, 640) is None

    def test_parts_are_of_either_side(self, tmp_path):
        boxes = self.read(tmp_path, boxes_text(349, [(0.25, 0.1, 0.5, 0.8)]))
        assert boxes.at(0, 100, 200) == pytest.approx((50, 10, 150, 90))

    def test_a_face_moves_evenly_between_its_boxes(self, tmp_path):
        lines = boxes_text(10, [(100, 50, 60, 60)]) + "000014 \t120 \t50 \t60 \t60 \n"
        assert self.read(tmp_path, lines).at(1, 360, 640) == (105, 50, 165, 110)

    @pytest.mark.parametrize(
        "text",
        [
            "", "nothing", HEADER, HEADER + "000001 1 2 3", HEADER + "000001 1 2 0 5",
            HEADER + "000001 1 2 x 5", HEADER + "000001 1 2 3 nan",
            HEADER + "000002 1 2 3 4\n000001 1 2 3 4", HEADER + "000001 1 2 3 4\n009001 1 2 3 4",
        ],
    )  # fmt: skip
    def test_what_is_no_such_file(self, tmp_path, text):
        with pytest.raises(InputError, match="FRAME X Y W H") as caught:
            self.read(tmp_path, text)
        assert caught.value.reason == "unreadable"
        assert "\n" not in str(caught.value)


def two_people(count):
    """Frames of two heads side by side, the left one's picture dyed red, the right one's blue."""
    for left, right in zip(head(count, size=160), head(count, size=160, mirror=True), strict=True):
        red, blue = np.array([1, 0.5, 0.5]), np.array([0.5, 0.5, 1])
        yield np.concatenate([left * red, right * blue], axis=1).astype(np.uint8)


FIRST = 55


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """VoxCeleb1 of one video with two people, who each have a clip."""
    root = tmp_path_factory.mktemp("vox1")
    (root / "video").mkdir()
    video.write_video(root / f"video/{VIDEO}.mp4", two_people(90), sound(3.6), 16000)
    scale = 360 / 160
    for person, left in (("left", 0), ("right", 160)):
        folder = root / "txt" / person / VIDEO
        folder.mkdir(parents=True)
        box = tuple(round(side * scale) for side in (left + 35, 35, 90, 90))
        (folder / "00001.txt").write_text(boxes_text(FIRST, [box] * 30))
    return root


class TestPreparation:
    """Of a video of two people, the one with the box is taken, from the frame on that it tells."""

    @pytest.mark.parametrize(("person", "channel"), [("left", 0), ("right", 2)])
    def test_the_right_face_at_the_right_time(self, tree, person, channel):
        (clip,) = (clip for clip in voxceleb1.clips(tree) if clip.speaker == person)
        (example,) = prepare(clip, PrepareSettings()).examples
        assert len(example.frames) == 30
        assert example.clip_id == clip.clip_id
        colours = images.decode_jpeg(example.frames[15]).reshape(-1, 3).mean(axis=0)
        assert colours[channel] > 1.3 * colours[2 - channel]
        # The sound of the video from the clip's first frame on.
        heard = video.read_waveform(clip.video)[FIRST * 640 :]
        np.testing.assert_allclose(example.mfcc, mfcc_rows(heard, 0, 30), atol=1e-4)

    def test_boxes_of_frames_that_the_video_does_not_have(self, tree, tmp_path):
        (clip, _) = voxceleb1.clips(tree)
        (tmp_path / "x.txt").write_text(boxes_text(200, [(80, 80, 200, 200)] * 30))
        (tmp_path / "x.wav").write_bytes(b"")
        late = clip.__class__("x", clip.video, "x", "train", boxes=tmp_path / "x.txt")
        reject = prepare(late, PrepareSettings())
        assert isinstance(reject, Reject)
        assert reject.reason in ("no_audio", "too_short")

    def test_boxes_where_nobody_is(self, tree, tmp_path):
        (clip, _) = voxceleb1.clips(tree)
        (tmp_path / "x.txt").write_text(boxes_text(FIRST, [(0, 300, 50, 50)] * 30))
        nobody = clip.__class__("x", clip.video, "x", "train", boxes=tmp_path / "x.txt")
        assert prepare(nobody, PrepareSettings()).reason == "no_face"
