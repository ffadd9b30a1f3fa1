"""Media files made picture by picture and tone by tone, for the tests of reading and writing."""

from fractions import Fraction

import av
import numpy as np

GREY_STEP = 5  # between pictures, so that a decoded picture names the one it was


def coded_picture(number, size=(48, 64)):
    """A flat grey that tells which picture of the source it is."""
    return np.full((*size, 3), 20 + GREY_STEP * (number % 44), np.uint8)


def picture_number(frame):
    return round((float(frame[8:-8, 8:-8].mean()) - 20) / GREY_STEP)


def write_file(
    path,
    times=None,  # of pictures, seconds
    sound=None,  # (samples,) or (samples, 2)
    rate=16000,
    sound_start=0.0,
    codecs=("libx264", "aac"),
    pictures=coded_picture,
    change_stream=lambda stream: None,
    time_base=Fraction(1, 90000),
    **container_settings,
):
    """A media file with pictures and sound at times of our choice."""
    with av.open(str(path), "w", **container_settings) as container:
        video_stream = audio_stream = None
        if times is not None:
            video_stream = container.add_stream(codecs[0], rate=25)
            first = pictures(0)
            video_stream.height, video_stream.width = first.shape[:2]
            video_stream.pix_fmt = "yuv420p"
            video_stream.codec_context.time_base = time_base
            change_stream(video_stream)
        if sound is not None:
            layout = "stereo" if sound.ndim == 2 else "mono"
            audio_stream = container.add_stream(codecs[1], rate=rate, layout=layout)
        if video_stream is not None:
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(pictures(number), format="rgb24")
                frame.pts, frame.time_base = round(time / time_base), time_base
                container.mux(video_stream.encode(frame))
            container.mux(video_stream.encode(None))
        if audio_stream is not None:
            planes = np.ascontiguousarray(np.atleast_2d(sound.T).astype(np.float32))
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
            frame.sample_rate = rate
            frame.time_base = Fraction(1, rate)
            frame.pts = round(sound_start * rate)
            to_codec = av.AudioResampler(
                format=audio_stream.codec_context.format.name,
                layout=layout,
                rate=rate,
                frame_size=audio_stream.codec_context.frame_size or 1024,
            )
            for part in [*to_codec.resample(frame), *to_codec.resample(None)]:
                container.mux(audio_stream.encode(part))
            container.mux(audio_stream.encode(None))
    return path


def beep(seconds, start, length=0.05, rate=16000, hertz=1000):
    """Silence with one tone in it."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.8 * np.sin(2 * np.pi * hertz * t) * ((t >= start) & (t < start + length))


def beep_start(waveform, rate=16000):
    """Seconds at which the sound first gets loud."""
    return float(np.argmax(np.abs(waveform) > 0.25)) / rate
