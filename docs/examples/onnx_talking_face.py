"""A portrait that speaks, with NumPy, onnxruntime and PyAV alone.

    python onnx_talking_face.py --model=DIR --image=FILE --landmarks=FILE --audio=FILE --out=MP4

DIR is what ``python -m atvg_jax.export --format=onnx`` wrote; nothing else of that project is
needed but ``jpeg_planes.py``, which lies beside this file. The landmarks are 68 points x, y in
pixels of the picture, in the order of iBUG (dlib's predictor and most others give it), as .npy of
shape (68, 2) or .csv with a point a line.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import av
import jpeg_planes
import numpy as np
import onnxruntime

SIZE, RATE, FPS = 128, 16000, 25
STEP_FRAMES = 16

# Where points 27..44 (nose and eyes) lie in the crop.
TEMPLATE = np.array([
    [64, 36], [64, 46], [64, 56], [65, 67], [53, 74], [59, 76], [65, 77], [70, 75], [76, 74],
    [27, 38], [34, 34], [42, 34], [49, 39], [42, 41], [33, 41], [78, 39], [85, 33], [93, 33],
])  # fmt: skip
# Points that speech, blinks and brows leave in place; the inner lips, above and below.
STABLE = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45]
UPPER, LOWER = [61, 62, 63], [67, 66, 65]


def similarity(source, target):
    """Rotation, scale and shift as complex a, b: a * source + b lies closest to target."""
    s, t = source @ [1, 1j], target @ [1, 1j]
    a = np.sum(np.conj(s - s.mean()) * (t - t.mean())) / np.sum(np.abs(s - s.mean()) ** 2)
    return a, t.mean() - a * s.mean()


def crop_face(image, points):
    """The aligned (128, 128, 3) crop of a picture, and its landmarks in crop pixels."""
    a, b = similarity(TEMPLATE, points[27:45])  # crop pixel -> picture pixel
    factor = max(1, int(abs(a)))
    # The picture is reduced by a whole factor first, so that no pixel is skipped; only the part
    # that the crop shows, for the reduction starts where that part does.
    moved = (points @ [1, 1j] - b) / a
    half = (SIZE - 1) / 2
    centre = a * (half + 1j * half) + b
    reach = (half + 1) * (abs(a.real) + abs(a.imag)) + factor + 2
    left, top = max(0, int(centre.real - reach)), max(0, int(centre.imag - reach))
    part = image[top : int(centre.imag + reach) + 1, left : int(centre.real + reach) + 1]
    rows, columns = part.shape[0] // factor, part.shape[1] // factor
    part = part[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    part = np.round(part.mean(axis=(1, 3)))
    # Crop pixel -> pixel of that part, in 1/1024 and then in 1/32 of one, as OpenCV rounds.
    b = (b - (left + 1j * top) - (1 + 1j) * (factor - 1) / 2) / factor
    across, down = a / factor * np.arange(SIZE), 1j * a / factor * np.arange(SIZE)[:, None] + b
    x, y = (
        np.floor((np.round(u * 1024) + np.round(v * 1024) + 16) / 32) / 32
        for u, v in ((across.real, down.real), (across.imag, down.imag))
    )
    # Between four pixels; black outside.
    padded = np.pad(part, ((1, 2), (1, 2), (0, 0)))
    x, y = np.clip(x, -1, columns) + 1, np.clip(y, -1, rows) + 1
    i, j = x.astype(int), y.astype(int)
    u, v = (x - i)[..., None], (y - j)[..., None]
    above = padded[j, i] * (1 - u) + padded[j, i + 1] * u
    below = padded[j + 1, i] * (1 - u) + padded[j + 1, i + 1] * u
    crop = np.floor(above * (1 - v) + below * v + 0.5)
    return crop, np.stack([moved.real, moved.imag], axis=1)


def normalise(points, basis):
    """(68, 2) crop pixels -> (68, 2) without identity and pose."""
    if str(basis["normaliser"]) == "published":
        image_mean = basis["normaliser/mean_shape_image"].astype(float)
        goal, shape = (p - p.mean(axis=0) for p in (image_mean, np.asarray(points, float)))
        goal, shape = goal / np.linalg.norm(goal), shape / np.linalg.norm(shape)
        u, scale, vt = np.linalg.svd(shape.T @ goal)
        aligned = (shape @ u @ vt * scale.sum()).ravel()
        s = basis["normaliser/shape_basis"]
        resting = -0.06 * s[1] * (np.arange(136) >= 2 * 48)  # what every clip is offset by
        # A single portrait is its own reference frame: its own shape cancels out.
        flat = (s @ aligned - s @ aligned - s @ resting) @ s
        return flat.reshape(68, 2) + basis["normaliser/mean_shape"].reshape(68, 2)
    mean, opening = basis["normaliser/mean_shape"], basis["normaliser/opening_direction"]
    a, b = similarity(points[STABLE], mean[STABLE])
    height = (a * (points @ [1, 1j]) + b).imag
    # A single portrait keeps nothing of its own but how far its mouth is open.
    return mean + (height[LOWER].mean() - height[UPPER].mean()) * opening


def windows(sound):
    """(N,) samples at 16 kHz -> (T, 28, 12): the MFCC that each frame of 1/25 s sees."""
    frames = max(1, -(-len(sound) * FPS // RATE))
    rows = 4 * frames + 24
    room = (rows - 1) * 160 + 400
    padded = np.pad(sound.astype(float), (1920, room))[:room]  # 120 ms of silence before
    padded[1:] -= 0.97 * padded[:-1].copy()
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    power = np.abs(np.fft.rfft(pieces, 512)) ** 2 / 512
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    corners = np.floor(513 * 700 * (10 ** (mel / 2595) - 1) / RATE)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(257)
    filters = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    energies = power @ np.maximum(filters, 0).T
    logs = np.log(np.where(energies == 0, np.finfo(float).eps, energies))
    n = np.arange(1, 13)[:, None]
    cosines = np.sqrt(2 / 26) * np.cos(np.pi * n * (2 * np.arange(26) + 1) / 52)
    mfcc = logs @ (cosines * (1 + 11 * np.sin(np.pi * n / 22))).T
    seen = np.lib.stride_tricks.sliding_window_view(mfcc, 28, axis=0)[::4]
    return seen[:frames].transpose(0, 2, 1).astype(np.float32)


def talk(folder, crop, shape, heard):
    """Frames (T, 128, 128, 3) uint8, a few at a time."""
    session = {
        name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("portrait", "step")
    }

    def run(name, inputs):
        names = [output.name for output in session[name].get_outputs()]
        return dict(zip(names, session[name].run(names, inputs), strict=True))

    image = (crop / 127.5 - 1).astype(np.float32)[None]
    given = run("portrait", {"image": image, "landmarks": shape.astype(np.float32)[None]})
    given["image"] = image
    state = {
        tensor.name: np.zeros([1, *tensor.shape[1:]], np.float32)
        for tensor in session["step"].get_inputs()
        if tensor.name.endswith("_state")
    }
    for start in range(0, len(heard), STEP_FRAMES):
        piece = heard[None, start : start + STEP_FRAMES]
        made = run("step", {**given, **state, "mfcc": piece})
        state = {name: made[f"next_{name}"] for name in state}
        yield from np.round(np.clip((made["frames"][0] + 1) * 127.5, 0, 255)).astype(np.uint8)


def wider(plane):
    """A plane of colour with twice the columns: three parts of the nearest and one of the next."""
    sides = np.pad(plane, ((0, 0), (1, 1)), mode="edge")
    both = np.stack([3 * plane + sides[:, :-2], 3 * plane + sides[:, 2:]], axis=2)
    return both.reshape(len(plane), -1)


def read_picture(path):
    """(H, W, 3) uint8, turned as its EXIF data say; of a JPEG as libjpeg has it, to the bit."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    data = path.read_bytes()
    planes = jpeg_planes.read(data) if data.startswith(b"\xff\xd8") else None
    if planes is None:
        pixels = frame.to_ndarray(format="rgb24")
    elif len(planes) == 1:
        pixels = np.repeat(planes[0][..., None], 3, axis=2).astype(np.uint8)
    else:
        y, *colours = planes
        rows, columns = np.indices(y.shape)
        for i, plane in enumerate(colours):
            tall, wide = plane.shape[0] < y.shape[0], plane.shape[1] < y.shape[1]
            plane = wider(plane.T).T if tall else plane
            plane = (wider(plane) if wide else plane)[: y.shape[0], : y.shape[1]]
            if tall and wide:
                plane = (plane + 8 - columns % 2) // 16
            elif tall or wide:
                plane = (plane + 1 + (rows if tall else columns) % 2) // 4
            colours[i] = plane - 128
        blue, red = colours
        # JFIF's 1.402, 0.714136, 0.344136 and 1.772 in 1/65536.
        red, green, blue = 91881 * red, -46802 * red - 22554 * blue, 116130 * blue
        colour = (np.stack([red, green, blue], axis=2) + 32768) // 65536
        pixels = np.clip(y[..., None] + colour, 0, 255).astype(np.uint8)
    return np.rot90(pixels, round(frame.rotation / 90))


def read_sound(path, rate):
    """(N,) float32, one channel."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    with av.open(str(path)) as container:
        frames = [*container.decode(audio=0), None]
        pieces = [out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)]
    return np.concatenate(pieces)


def write_video(path, frames, sound, rate=48000):
    """H.264 and AAC, as long as the frames."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "fast"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        speech = container.add_stream("aac", rate=rate, layout="mono")
        speech.bit_rate = 128_000
        each = rate // FPS
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
            piece = sound[index * each : (index + 1) * each]
            piece = np.pad(piece, (0, each - len(piece))).astype(np.float32)
            heard = av.AudioFrame.from_ndarray(piece[None], format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = rate, index * each, Fraction(1, rate)
            container.mux(speech.encode(heard))
        container.mux(video.encode(None))
        container.mux(speech.encode(None))


def main():
    """Reads, makes, writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "image", "landmarks", "audio", "out"):
        flags.add_argument(f"--{name}", type=Path, required=True)
    given = flags.parse_args()
    comma = given.landmarks.suffix == ".csv"
    points = np.loadtxt(given.landmarks, delimiter=",") if comma else np.load(given.landmarks)
    basis = np.load(given.model / "basis.npz", allow_pickle=False)
    crop, moved = crop_face(read_picture(given.image), points.astype(float))
    heard = windows(read_sound(given.audio, RATE))
    frames = talk(given.model, crop, normalise(moved, basis), heard)
    write_video(given.out, frames, read_sound(given.audio, 48000))
    print(f"wrote {given.out}: {len(heard)} frames, {len(heard) / FPS:.1f} s")


if __name__ == "__main__":
    main()
