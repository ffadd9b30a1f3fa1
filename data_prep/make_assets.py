"""Command line: makes the pictures and the sound bundled in ``atvg_jax/assets`` again.

Nobody needs it to use the project. It is the record of how the assets came to be: from two
photographs in the public domain that scikit-image and matplotlib carry, and from espeak-ng.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

from atvg_jax.command_line import Parser, run
from atvg_jax.errors import InputError
from atvg_jax.features import faces

SIZE = 512
"""Pixels a side of a portrait."""

# scikit-image's astronaut.png: left, top and side of the square that becomes the portrait.
_ASTRONAUT = 111, 18, 218
# The inner edges of her smile, read off the enlarged photograph: column, upper lip, lower lip.
_SMILE = np.array(
    [
        [190, 139.6, 139.6], [203, 139.6, 139.9], [207, 140.5, 144.2], [212, 141.8, 147.9],
        [217, 143.0, 149.8], [222, 143.6, 150.4], [227, 143.7, 150.3], [232, 143.4, 149.6],
        [237, 142.2, 147.0], [242, 140.5, 142.8], [244.5, 140.3, 140.7], [258, 140.3, 140.3],
    ]
)  # fmt: skip
_MOUTH_MIDDLE = 223.7, 145.0

# matplotlib's grace_hopper.jpg: the same, and the line between her closed lips in the portrait.
_HOPPER = 45, 8, 451
_HOPPER_SEAM: list[list[float]] = [
    [207, 310], [215, 308.5], [225, 307.5], [235, 307], [243, 307.8], [250, 309],
    [257, 308], [265, 306.5], [275, 305], [285, 304.3], [295, 305.5], [300, 308],
]  # fmt: skip

_TEXT = (
    "Hello! I am a single photograph, and this voice moves my mouth. "
    "Maybe you would like to see five more."
)


def _packaged(package: str, path: str) -> np.ndarray:
    """A picture (H, W, 3) uint8 that an installed package carries."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"the portraits are made from a picture in {package}: install it")
    with Image.open(Path(spec.origin).parent / path) as picture:
        return np.asarray(picture.convert("RGB"))


def _smile(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the lips are when the smile is relaxed.

    Args:
        x, y: positions in the closed-mouth picture, in the photograph's pixels.

    Returns:
        The column and row to take pixels from before the lips are closed, and the rows of the
        upper and lower lip's inner edge in that column.
    """
    middle_x, middle_y = _MOUTH_MIDDLE
    dx, dy = x - middle_x, y - middle_y
    around = np.exp(-(((dx / 30) ** 2 + (dy / 22) ** 2) ** 1.5))
    column = x + 0.13 * dx * around  # narrower
    corners = np.exp(-(((np.abs(dx) - 17) / 11) ** 2) - ((y - 140) / 9) ** 2)
    row = y - 2.16 * (dx / 20) ** 2 * corners  # corners let down
    inside = np.clip(column, _SMILE[0, 0], _SMILE[-1, 0])
    upper, lower = (PchipInterpolator(_SMILE[:, 0], _SMILE[:, k])(inside) for k in (1, 2))
    return column, row, upper, lower


def astronaut() -> tuple[np.ndarray, list[list[float]]]:
    """The astronaut with her mouth closed: picture (512, 512, 3) uint8 and line of the lips."""
    photograph = _packaged("skimage", "data/astronaut.png").astype(np.float32)
    left, top, side = _ASTRONAUT
    grid = (np.arange(SIZE) + 0.5) * side / SIZE - 0.5
    x, y = np.meshgrid(grid + left, grid + top)
    column, row, upper, lower = _smile(x, y)
    seam = upper + 0.42 * (lower - upper)
    # Both lips are drawn to the line between them, and the teeth are gone.
    source = np.where(
        row < seam,
        row - (seam - upper) * np.exp(-np.maximum(seam - row, 0) / 6.0),
        row + (lower - seam) * np.exp(-np.maximum(row - seam, 0) / 9.0),
    )
    picture = np.stack(
        [
            map_coordinates(photograph[..., k], [source, column], order=3, mode="nearest")
            for k in range(3)
        ],
        axis=-1,
    )
    line = np.clip((column - 202.5) / 3, 0, 1) * np.clip((245 - column) / 3, 0, 1)
    away = row - seam
    dark = line * (0.5 * np.exp(-((away / 0.75) ** 2)) + 0.16 * np.exp(-((away / 2.2) ** 2)))
    picture *= 1 - dark[..., None] * np.array([0.75, 1.0, 1.0])
    rows = np.abs(away).argmin(axis=0)
    lips = np.flatnonzero(
        (column[rows, np.arange(SIZE)] >= 203.5) & (column[rows, np.arange(SIZE)] <= 244)
    )
    chosen = lips[np.linspace(0, len(lips) - 1, 13).round().astype(int)]
    points = [[float(at), float(rows[at])] for at in chosen]
    return np.clip(picture, 0, 255).round().astype(np.uint8), points


def hopper() -> tuple[np.ndarray, list[list[float]]]:
    """Rear Admiral Hopper, as photographed, and the line of her lips."""
    left, top, side = _HOPPER
    photograph = Image.fromarray(_packaged("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"))
    box = (left, top, left + side, top + side)
    picture = photograph.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box)
    return np.asarray(picture), _HOPPER_SEAM


def speech_waveform() -> np.ndarray:
    """The bundled speech (N,) float32 at 16 kHz."""
    import soxr

    from data_prep.corpora import speech

    spoken = speech.speak(_TEXT, speech.Voice("en-us+f3", 160, 50, 55))
    loud = np.flatnonzero(np.abs(spoken.waveform) > 1e-3)
    rate = spoken.sample_rate
    silence = int(0.2 * rate), int(0.3 * rate)
    return soxr.resample(np.pad(spoken.waveform[: loud[-1]], silence), rate, 16000)


def make(out: Path) -> None:
    """Writes portraits, their facts and the speech into a folder."""
    import soundfile

    out.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, draw, glasses, scale in (
        ("astronaut", astronaut, False, 1.0),
        ("hopper", hopper, True, 0.92),
    ):
        picture, seam = draw()
        Image.fromarray(picture).save(out / f"{name}.jpg", quality=92, subsampling=0)
        points = faces.predict_landmarks(picture, faces.detect(picture)[0].box)
        facts[name] = {
            "lip_seam": seam,
            "glasses": glasses,
            "frame_scale": scale,
            "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in points],
        }
    (out / "portraits.json").write_text(json.dumps(facts) + "\n")
    soundfile.write(out / "speech.flac", speech_waveform(), 16000, subtype="PCM_16")


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m data_prep.make_assets",
        "Makes the bundled portraits and speech again (needs scikit-image and matplotlib).",
        "python -m data_prep.make_assets --out=atvg_jax/assets",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write them to")
    flags = parser.parse_args()
    make(flags.out)
    print(f"wrote two portraits and a speech file to {flags.out}")


if __name__ == "__main__":
    run(main)
