"""Whether a face in its whole portrait shows where it was put in.

``python -m benchmarks.full_size --portraits=FOLDER [--model=MODEL]`` speaks the bundled sound with
every picture of a folder, as ``synthesize --full_size`` does, and prints, over all frames:

- outside: the largest change of a pixel outside the face's square, in grey levels (0: bit for bit);
- seam: the largest change of a step between neighbouring pixels across the square's border, in
  grey levels, where a visible square would stand out;
- moved: the largest change inside, and the share of the picture's pixels that ever change.
"""

from pathlib import Path

import numpy as np

from atvg_jax import assets, compilation_cache
from atvg_jax.command_line import Parser, run
from atvg_jax.errors import InputError
from atvg_jax.features import faces, images, sound
from atvg_jax.inference.compose import WholePortrait
from atvg_jax.inference.talking_face import BUNDLED_MODEL, TalkingFace

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def inside(shape: tuple[int, int], matrix: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels whose centres lie in the face's square."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    points = faces.apply(matrix, np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(float))
    low, high = -0.5, faces.CROP_SIZE - 0.5
    return ((points > low) & (points < high)).all(axis=-1).reshape(shape)


def measure(face: TalkingFace, image: np.ndarray, waveform: np.ndarray, rate: int) -> dict:
    """The figures of one portrait."""
    aligned = face.align(image)
    whole = WholePortrait(image, aligned.matrix)
    square = inside(image.shape[:2], aligned.matrix)
    # Pairs of neighbours of which one is inside and one is not.
    across = square[1:] ^ square[:-1], square[:, 1:] ^ square[:, :-1]
    still = image.astype(np.int16)
    found = {"outside": 0, "seam": 0, "moved": 0, "touched": np.zeros(square.shape, bool)}
    for moment in face.moments(aligned, [waveform], rate, live=False):
        change = whole.frame(moment.attention, moment.motion).astype(np.int16) - still
        found["outside"] = max(found["outside"], int(np.abs(change[~square]).max(initial=0)))
        found["moved"] = max(found["moved"], int(np.abs(change[square]).max(initial=0)))
        found["touched"] |= change.any(axis=-1)
        for axis, pairs in enumerate(across):
            steps = np.abs(np.diff(change, axis=axis))[pairs]
            found["seam"] = max(found["seam"], int(steps.max(initial=0)))
    return {**found, "touched": float(found["touched"].mean())}


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m benchmarks.full_size",
        "Measures what a moving face changes in its whole portrait, and at its seam.",
        "python -m benchmarks.full_size --portraits=PORTRAITS",
    )
    parser.add_argument("--portraits", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="default: the bundled")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the bundled sound (2)")
    flags = parser.parse_args()
    compilation_cache.enable()
    paths = sorted(path for path in flags.portraits.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{flags.portraits}: has no pictures ({', '.join(sorted(SUFFIXES))})")
    face = TalkingFace.load(flags.model)
    waveform, rate = sound.read(assets.speech_path())
    waveform = waveform[: round(flags.seconds * rate)]
    for path in paths:
        try:
            image = images.read_image(path)
            found = measure(face, image, waveform, rate)
        except InputError as error:
            print(f"{path.name:32} {error}")
            continue
        height, width = image.shape[:2]
        print(
            f"{path.name:32} {width:5} x {height:<5} outside {found['outside']}  seam "
            f"{found['seam']}  moved {found['moved']:3}  pixels touched {found['touched']:.1%}"
        )


if __name__ == "__main__":
    run(main)
