"""What reports call the metrics, in the order in which they show them."""

from typing import NamedTuple


class Metric(NamedTuple):
    """How a metric is shown.

    Attributes:
        title: heading.
        unit: "" where it has none.
        decimals: digits after the point.
        better: ``higher`` or ``lower``, or ``truth`` where it is best as the ground truth has it.
        meaning: one line for those who read a report.
    """

    title: str
    unit: str
    decimals: int
    better: str
    meaning: str


METRICS: dict[str, Metric] = {
    "psnr": Metric(
        "PSNR", "dB", 2, "higher", "peak signal-to-noise ratio in colour; equal frames have 58.92"
    ),
    "psnr_mouth": Metric("PSNR mouth", "dB", 2, "higher", "the same, in a box around the mouth"),
    "ssim_gaussian": Metric(
        "SSIM", "", 4, "higher", "structural similarity, Gaussian window of 11 x 11, sigma 1.5"
    ),
    "ssim_uniform": Metric(
        "SSIM 7x7", "", 4, "higher", "structural similarity, scikit-image's default window"
    ),
    "lpips": Metric("LPIPS", "", 4, "lower", "LPIPS 0.1 with AlexNet"),
    "fid": Metric(
        "FID",
        "",
        2,
        "lower",
        "of all clips together, Inception v3 of pt_inception-2015-12-05",
    ),
    "landmark_distance_mouth": Metric(
        "LMD mouth", "px", 3, "lower", "mean distance of a mouth point, mouths centred"
    ),
    "landmark_distance_face": Metric(
        "LMD face", "px", 3, "lower", "mean distance of any of the 68 points"
    ),
    "landmark_distance_model": Metric(
        "mouth distance", "model units", 4, "lower", "mean distance of a mouth point, centred"
    ),
    "landmark_distance_eyes": Metric(
        "mouth distance", "% of eye distance", 2, "lower", "the same, over the eyes' distance"
    ),
    "mouth_correlation": Metric(
        "mouth corr.", "", 3, "higher", "correlation of the mouth's opening with the real one's"
    ),
    "mouth_lag": Metric(
        "mouth lag", "frames", 1, "truth", "where that correlation is largest; positive: late"
    ),
    "mouth_spread_ratio": Metric(
        "mouth spread", "", 3, "truth", "standard deviation of the opening over the real one's"
    ),
    "lse_d": Metric("LSE-D", "", 3, "lower", "distance of lips and sound by SyncNet, syncnet_v2"),
    "lse_c": Metric("LSE-C", "", 3, "higher", "how much the best offset of the two stands out"),
    "identity_similarity": Metric(
        "identity", "", 4, "higher", "cosine to the portrait, dlib_face_recognition_resnet_model_v1"
    ),
    "cpbd": Metric("CPBD", "", 4, "higher", "share of edges whose blur would not be noticed"),
    "jitter": Metric(
        "jitter", "levels", 3, "truth", "change from frame to frame outside the mouth, of 255"
    ),
    "legacy_psnr": Metric(
        "legacy PSNR", "dB", 2, "higher", "wraps around at 8 bits as the released code does"
    ),
    "legacy_landmark_distance": Metric(
        "legacy LMD", "px", 2, "lower", "summed over 20 mouth points as the released code does"
    ),
}
