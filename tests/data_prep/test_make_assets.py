"""The bundled pictures and sound are what the command that claims to make them makes."""

import json

import numpy as np
import pytest

from atvg_jax import assets
from atvg_jax.features import images, video
from data_prep import make_assets

pytest.importorskip("matplotlib")
pytest.importorskip("skimage")


def test_bundled_assets_can_be_made_again(tmp_path):
    make_assets.make(tmp_path)
    made = json.loads((tmp_path / "portraits.json").read_text())
    kept = json.loads(assets.portrait_facts_path().read_text())
    assert made.keys() == kept.keys() == set(assets.PORTRAITS)
    for name in assets.PORTRAITS:
        again = images.read_image(tmp_path / f"{name}.jpg").astype(int)
        bundled = images.read_image(assets.portrait_path(name)).astype(int)
        assert np.abs(again - bundled).mean() < 1
        for part in ("landmarks", "lip_seam"):
            np.testing.assert_allclose(made[name][part], kept[name][part], atol=1.5)
    speech = [
        video.read_waveform(path) for path in (tmp_path / "speech.flac", assets.speech_path())
    ]
    np.testing.assert_allclose(*speech, atol=1e-3)
