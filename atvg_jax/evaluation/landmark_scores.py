"""Landmarks judged as landmarks, before anything is drawn from them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation import metrics
from atvg_jax.evaluation.judge import GROUND_TRUTH, STATIC_PORTRAIT, Scores
from atvg_jax.features.landmarks import LANDMARK_SCALE


def judge_landmarks(
    clip_id: str,
    speaker: str,
    real: npt.ArrayLike,
    systems: Mapping[str, npt.ArrayLike],
) -> list[Scores]:
    """Scores normalised landmarks of a clip; frame 0 is the portrait and is not scored.

    Args:
        clip_id: its name in the report.
        speaker: who it shows.
        real: (T, 68, 2) normalised.
        systems: by name, (T, 68, 2) normalised of each.

    Returns:
        Scores of the ground truth, of the portrait's landmarks kept for ever, and of the systems:
        the distance of a mouth point in model units and in per cent of the eyes' distance, and how
        the mouth's opening follows the real one's.
    """
    truth = np.asarray(real, np.float64)
    still = np.broadcast_to(truth[:1], truth.shape)
    clips = {GROUND_TRUTH: truth, STATIC_PORTRAIT: still, **systems}
    return [_scores(name, clip_id, speaker, truth, clip) for name, clip in clips.items()]


def _scores(
    system: str,
    clip_id: str,
    speaker: str,
    real: npt.NDArray[np.float64],
    made: npt.ArrayLike,
) -> Scores:
    truth, own = real[1:], np.asarray(made, np.float64)[1:]
    distance = metrics.landmark_distance(truth, own, "mouth")
    eyes = np.linalg.norm(truth[:, 42:48].mean(axis=1) - truth[:, 36:42].mean(axis=1), axis=-1)
    agreement = metrics.mouth_agreement(metrics.mouth_opening(truth), metrics.mouth_opening(own))
    values = {
        "landmark_distance_model": float(LANDMARK_SCALE * distance.mean()),
        "landmark_distance_eyes": float(100 * (distance / eyes).mean()),
        "mouth_correlation": agreement.correlation,
        "mouth_lag": agreement.lag,
        "mouth_spread_ratio": agreement.spread_ratio,
    }
    return Scores(system, clip_id, speaker, len(truth), values, agreement.by_lag)
