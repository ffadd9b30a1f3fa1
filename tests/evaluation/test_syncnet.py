import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from atvg_jax.evaluation import judge
from atvg_jax.evaluation.backbones import syncnet
from tests.evaluation.test_backbones import random_weights


def published(torch):
    """The two branches as published, layer by layer, with PyTorch's own layers."""
    nn = torch.nn

    def unit(convolution, norm, *after):
        return [convolution, norm(convolution.out_channels), nn.ReLU(), *after]

    flat, deep = nn.BatchNorm2d, nn.BatchNorm3d
    sound = [
        *unit(nn.Conv2d(1, 64, 3, padding=1), flat, nn.MaxPool2d(1, 1)),
        *unit(nn.Conv2d(64, 192, 3, padding=1), flat, nn.MaxPool2d(3, (1, 2))),
        *unit(nn.Conv2d(192, 384, 3, padding=1), flat),
        *unit(nn.Conv2d(384, 256, 3, padding=1), flat),
        *unit(nn.Conv2d(256, 256, 3, padding=1), flat, nn.MaxPool2d(3, 2)),
        *unit(nn.Conv2d(256, 512, (5, 4)), flat),
    ]
    still, half, edge = (1, 3, 3), (1, 2, 2), (0, 1, 1)
    lips = [
        *unit(nn.Conv3d(3, 96, (5, 7, 7), half), deep, nn.MaxPool3d(still, half)),
        *unit(nn.Conv3d(96, 256, (1, 5, 5), half, edge), deep, nn.MaxPool3d(still, half, edge)),
        *unit(nn.Conv3d(256, 256, still, padding=edge), deep),
        *unit(nn.Conv3d(256, 256, still, padding=edge), deep),
        *unit(nn.Conv3d(256, 256, still, padding=edge), deep, nn.MaxPool3d(still, half)),
        *unit(nn.Conv3d(256, 512, (1, 6, 6)), deep),
    ]
    parts = {"netcnnaud": nn.Sequential(*sound), "netcnnlip": nn.Sequential(*lips)}
    for branch in ("aud", "lip"):
        parts[f"netfc{branch}"] = nn.Sequential(
            nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)
        )
    return nn.ModuleDict(parts).eval()


def test_both_branches(tmp_path):
    """Against PyTorch's layers, put together as the published list has them."""
    torch = pytest.importorskip("torch")
    weights = random_weights(syncnet.shapes())
    for name in weights:
        if weights[name].ndim == 1 and "running_var" not in name and name.endswith("weight"):
            weights[name] = 1 + np.abs(weights[name])  # of normalisation
    theirs = published(torch)
    state = theirs.state_dict()
    assert {n for n in state if not n.endswith("num_batches_tracked")} == set(weights)
    theirs.load_state_dict({n: torch.from_numpy(w) for n, w in weights.items()}, strict=False)
    save_file(weights, tmp_path / "syncnet.safetensors")
    ours = syncnet.SyncNet(tmp_path / "syncnet.safetensors")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
    mfcc = rng.normal(0, 10, (25, 13)).astype(np.float32)
    with torch.no_grad():
        blue_first = frames[..., ::-1].transpose(3, 0, 1, 2)[None].astype(np.float32)
        x = theirs["netcnnlip"](torch.from_numpy(blue_first))
        lips = theirs["netfclip"](x.flatten(1)).numpy()[0]
        windows = np.stack([mfcc[:20].T, mfcc[4:24].T])[:, None]
        x = theirs["netcnnaud"](torch.from_numpy(windows))
        sound = theirs["netfcaud"](x.flatten(1)).numpy()
    np.testing.assert_allclose(ours.lips(frames), lips, atol=1e-4 * np.abs(lips).max())
    assert ours.sound(mfcc).shape == (2, 1024)  # a third would take rows 8 to 28
    np.testing.assert_allclose(ours.sound(mfcc), sound, atol=1e-4 * np.abs(sound).max())
    with pytest.raises(ValueError, match="13"):
        ours.sound(mfcc[:, :12])


def test_input():
    """Enlarged to 224 pixels, blue first, in grey levels."""
    frame = np.zeros((128, 128, 3), np.uint8)
    frame[:] = (200, 100, 50)
    given = syncnet._input(frame)
    assert given.shape == (224, 224, 3)
    assert given.dtype == np.float32
    assert given[7, 9].tolist() == [50, 100, 200]


def test_distances():
    """By hand: sound embeddings 1, 2, 3, ... in one dimension, and lips three frames behind."""
    sound = np.zeros((40, 1024))
    sound[:, 0] = np.arange(1, 41)
    numbers = np.arange(16, 24)
    lips = sound[numbers - 3]
    found = syncnet.distances(lips, numbers, sound)
    # Sound that begins k frames after the lips is k + 3 away.
    expected = np.abs(np.arange(-15, 16) + 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Before the sound there are zeros: lip 3 is 3 from what is 15 frames before frame 2.
    early = syncnet.distances(sound[2:3], [2], sound)
    assert early[0] == pytest.approx(3, abs=1e-4)
    assert early[15] == pytest.approx(0, abs=1e-4)


class Counter:
    """A network whose embedding is the red of the first frame, and which counts its work."""

    def __init__(self):
        self.calls = 0

    def lips(self, frames):
        self.calls += 1
        return np.eye(1, 1024)[0] * float(frames[0][0, 0, 0])

    def sound(self, mfcc):
        return np.eye(1, 1024) * np.arange(len(mfcc) // 4 - 4)[:, None].astype(float)


def test_follower():
    network = Counter()
    pictures = np.zeros((30, 4, 4, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(30)
    follower = syncnet.Follower(network, network.sound(np.zeros((4 * 30, 13))))
    for number, picture in enumerate(pictures):
        follower.add(number, None if number in (0, 14) else picture)
    # Five frames in a row: from 1 to 9 and from 15 to 25.
    assert network.calls == 9 + 11
    scores = follower.scores()
    assert scores["lse_d"] == pytest.approx(0, abs=1e-4)
    # At k frames' offset the distance is |k|, but that of lip n is n beyond the sound's ends.
    numbers = np.array([*range(1, 10), *range(15, 26)])
    places = numbers[:, None] + np.arange(-15, 16)
    heard = np.where((places >= 0) & (places < 26), places, 0)
    expected = np.abs(heard - numbers[:, None]).mean(axis=0)
    assert scores["lse_c"] == pytest.approx(np.median(expected), abs=1e-3)
    # A still is looked at once; too little has no value.
    still = syncnet.Follower(network, network.sound(np.zeros((4 * 30, 13))))
    for number in range(12):
        still.add(number, pictures[3])
    assert network.calls == 20 + 1
    assert still.scores()["lse_d"] > 0
    short = syncnet.Follower(network, np.zeros((0, 1024)))
    short.add(0, pictures[0])
    assert np.isnan(short.scores()["lse_c"])


def test_judged(crops, monkeypatch):
    monkeypatch.setattr(judge, "_syncnet", lambda path: Counter())
    settings = judge.Settings(cpbd=False, landmarks=False, identity=False, lse=Path("any"))
    pictures = crops.pictures.copy()
    pictures[:, 0, 0, 0] = [200, *range(1, len(pictures))]  # the portrait is 200
    real = dataclasses.replace(crops, pictures=pictures)
    mfcc = np.zeros((4 * len(pictures), 13))
    scores = {one.system: one for one in judge.judge("clip", "", real, {}, settings, mfcc)}
    assert scores[judge.GROUND_TRUTH].values["lse_d"] == pytest.approx(0, abs=1e-4)
    still = scores[judge.STATIC_PORTRAIT].values
    # 200 from 15 sounds that are 1 to 15 where nothing is shifted, and fewer or smaller elsewhere.
    assert still["lse_d"] == pytest.approx(200 - 8, abs=1e-3)
    silent = judge.judge("clip", "", real, {}, settings)
    assert all("lse_d" not in one.values for one in silent)
