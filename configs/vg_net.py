"""VG-net: landmarks and one portrait to video frames, trained against a discriminator.

    python -m atvg_jax.train --config=configs/vg_net.py --workdir=runs/vg --config.data=DATA

The base is the published network and training: 58.36 M parameters and a discriminator of 21.49 M,
16 frames a window, Adam 2e-4 (0.5, 0.999) for both, loss 10 x pixel + adversarial + landmark.
``batch_size`` is over all devices; the published one is 10 a device. DATA is what
``data_prep.build`` made.

After a colon, separated by commas: ``compact`` (a quarter of the width, a sixteenth of the work,
and settings for little data: landmarks whitened at the start, a mouth that counts more, no
dropout), ``smoke`` (four steps of a tiny network), and the ablations ``no_attention`` (plain
absolute error, frames straight from the decoder), ``no_dynamic_loss`` (plain absolute error),
``plain_discriminator`` (no landmark regression), ``no_discriminator`` (pixels alone) and
``no_recurrence`` (every frame by itself). Any key may be set by itself: ``--config.steps=2000``.

Expected, ``compact,no_discriminator`` on 426 clips of 48 people, held-out clips of 6 others: PSNR
26.54, 26.70, 26.81, 26.91 and 26.92 dB after 800, 1600, 2400, 4000 and 6000 steps (the unmoved
portrait: 26.33), mouths 1.92, 1.68, 1.48, 1.19 and 1.14 pixels from the true ones (1.92). Attention
finds the lips by step 1200, and frames close a mouth that the portrait has open. One core takes
1.2 s a step.
"""

from ml_collections import ConfigDict

from configs import words


def get_config(arg: str | None = None) -> ConfigDict:
    c = ConfigDict()
    c.network = "vg_net"
    c.model = ConfigDict(
        {"width": 1.0, "recurrence": "time", "attention": True, "dropout_rate": 0.5}
    )
    # How the layer that reads landmarks starts: normal, as published, or whitened, fitted to the
    # data (training/initialisation.py), with which frames follow the landmarks far sooner.
    c.landmark_init = "normal"
    c.discriminator = ConfigDict({"width": 1.0})
    # Weights of the generator's terms; landmark also weighs the discriminator's regression.
    c.loss = ConfigDict({"pixel": 10.0, "adversarial": 1.0, "landmark": 1.0, "dynamic": True})
    # Not in the paper, for short trainings: what the pixels of the mouth count more than others.
    c.loss.mouth = 0.0

    # Data: a folder that data_prep.build made; T frames a window.
    c.data = ""
    c.frames = 16
    c.balance = 0.0  # of speakers: 0 as the data has them, 1 as much of each
    c.augment = ConfigDict({"flip": 0.5, "colour": 0.0, "channel": 0.0, "noise": 0.0, "gain": 0.0})
    c.read_threads = 4
    c.read_ahead = 4

    # Training. batch_size is over all devices; devices = 0 takes all there are.
    c.seed = 0
    c.start_from = ""  # a run whose averaged weights this one starts with, not with random ones
    c.steps = 200_000
    c.batch_size = 10
    c.devices = 0
    c.learning_rate = 2e-4
    c.schedule = "constant"  # or linear, cosine: to zero at the last step
    c.warmup_steps = 0
    c.adam_b1 = 0.5
    c.adam_b2 = 0.999
    c.weight_decay = 0.0
    c.clip_norm = 0.0  # 0: off
    c.ema_decay = 0.999  # of the averaged copy that synthesis uses; 0: none
    c.compute_dtype = "float32"  # or bfloat16; parameters and statistics stay float32
    # To fit larger batches: make cheap parts of the forward pass again for the backward pass; run a
    # device's examples in so many parts.
    c.remat = False
    c.accumulate = 1

    # Watching. eval_windows limits the held-out windows; 0 takes all.
    c.log_every = 20
    c.checkpoint_every = 1000
    c.eval_every = 1000
    c.eval_split = "validation"  # "": nothing is held out
    c.eval_windows = 200
    c.eval_landmarks = True  # find mouths in held-out frames, where dlib is installed
    c.keep = 3
    c.profile_steps = 0
    changes = {
        "compact": _compact,
        "no_attention": _no_attention,
        "no_dynamic_loss": _no_dynamic_loss,
        "plain_discriminator": _plain_discriminator,
        "no_discriminator": _no_discriminator,
        "no_recurrence": _no_recurrence,
        "smoke": _smoke,
    }
    return words.apply(c, arg, changes)


def _compact(c: ConfigDict) -> None:
    c.model.width = 0.25
    c.discriminator.width = 0.25
    c.landmark_init = "whitened"
    # Little data seen few times: what keeps a network from learning it by heart only slows it.
    c.model.dropout_rate = 0.0
    c.loss.mouth = 10.0
    c.balance = 0.5
    c.augment.colour = 0.15
    c.frames = 8
    c.batch_size = 4
    c.learning_rate = 1e-3
    c.schedule = "cosine"
    c.steps = 6000
    c.read_threads = 1
    c.checkpoint_every = 100
    c.eval_every = 200
    c.eval_windows = 32


def _no_attention(c: ConfigDict) -> None:
    c.model.attention = False
    c.loss.dynamic = False


def _no_dynamic_loss(c: ConfigDict) -> None:
    c.loss.dynamic = False


def _plain_discriminator(c: ConfigDict) -> None:
    c.loss.landmark = 0.0


def _no_discriminator(c: ConfigDict) -> None:
    c.loss.adversarial = 0.0
    c.loss.landmark = 0.0


def _no_recurrence(c: ConfigDict) -> None:
    c.model.recurrence = "none"


def _smoke(c: ConfigDict) -> None:
    c.model.width = 1 / 32
    c.discriminator.width = 1 / 32
    c.frames = 4
    c.landmark_init = "whitened"
    c.steps = 4
    c.batch_size = 4
    c.log_every = 2
    c.checkpoint_every = 2
    c.eval_every = 2
    c.eval_windows = 4
