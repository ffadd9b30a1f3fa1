"""AT-net: speech to facial landmarks.

    python -m atvg_jax.train --config=configs/at_net.py --workdir=runs/at --config.data=DATA

The base is the published network and training: 30.07 M parameters, batch 16, 16 frames a window,
Adam 2e-4 (0.5, 0.999), mean squared error of 6 landmark components. DATA is what
``data_prep.build`` made.

After a colon, separated by commas: ``compact`` (a quarter of the width, 1.9 M parameters),
``single`` (AT-single: one window of sound, no recurrence, no portrait), ``smoke`` (ten steps of a
tiny network). Any key may be set by itself: ``--config.steps=2000``.

Three more words are for learning from recordings too (``data_prep.add_speech``), one run starting
from the one before with ``--config.start_from``. ``framewise``: AT-net's audio encoder and a linear
layer learn from single windows of sound how a face differs from the clip's mean; neighbours are
much alike, so that 256 windows from as many places teach more than as many in a row. ``spoken``:
AT-net learns from that encoder on, from recordings and film. ``finetune``: from film alone, a
little.

``compact`` is for a CPU and little data, so it also has what keeps a network from learning its
people by heart: dropout, changes of recording, windows between the frames, an evened out share of
speakers, a loss for when lips open beside the one for how far, and an example frame from anywhere
in the clip.

Expected with ``--config.model.width=0.1875``, seed 3, 426 clips (28 minutes) of 48 people, and
held-out clips of 6 others, in per cent of the distance between the eyes. ``compact`` by itself:
mouth error 1.94, 1.96, 1.93, 1.91 and 1.91 after 100, 300, 600, 800 and 1000 steps (2.71 for a
mouth that stays as it is), the loss 0.0041 to 0.0039. With 220 minutes of labelled speech, as
``launch/train_compact.sh`` trains four: ``framewise`` 1.69, 1.61, 1.58 and 1.58 after 200, 1000,
2000 and 2500 steps (2.05 for a mouth as in the mean of the clip); ``spoken`` 1.95, 1.90, 1.89 and
1.89 after 100, 500, 1000 and 1500; ``finetune`` 1.77, 1.83, 1.81 and 1.83 after 100, 200, 300 and
400. One core takes 13, 8 and 2 minutes for these three.
"""

from ml_collections import ConfigDict

from configs import words


def get_config(arg: str | None = None) -> ConfigDict:
    c = ConfigDict()
    c.network = "at_net"
    c.architecture = "at_net"  # or at_single, at_framewise
    c.model = ConfigDict({"width": 1.0, "dropout_rate": 0.0})

    # Not in the paper: weight of one minus the correlation of the lips' opening.
    c.loss = ConfigDict({"opening": 0.0})

    # Data: a folder that data_prep.build made; T frames a window.
    c.data = ""
    c.frames = 16
    c.example = "before"  # the example frame: directly before the window, any, or the mean of all
    c.balance = 0.0  # of speakers: 0 as the data has them, 1 as much of each
    c.augment = ConfigDict({"flip": 0.0, "colour": 0.0, "channel": 0.0, "noise": 0.0, "gain": 0.0})
    c.augment.between = 0.0
    c.read_threads = 2
    c.read_ahead = 4

    # Training. batch_size is over all devices; devices = 0 takes all there are.
    c.seed = 0
    c.start_from = ""  # a run whose averaged weights this one starts with, not with random ones
    c.steps = 100_000
    c.batch_size = 16
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
    c.eval_windows = 0
    c.keep = 3
    c.profile_steps = 0
    return words.apply(
        c,
        arg,
        {
            "compact": _compact,
            "framewise": _framewise,
            "spoken": _spoken,
            "finetune": _finetune,
            "single": _single,
            "smoke": _smoke,
        },
    )


def _compact(c: ConfigDict) -> None:
    c.model.width = 0.25
    c.model.dropout_rate = 0.4
    c.augment.channel = 6.0
    c.augment.noise = 3.0
    c.augment.between = 0.75
    c.balance = 0.8
    c.example = "any"
    c.loss.opening = 0.01
    c.frames = 24
    c.batch_size = 12
    c.learning_rate = 1e-3
    c.steps = 1000
    c.schedule = "cosine"
    c.checkpoint_every = 100
    c.eval_every = 100


def _framewise(c: ConfigDict) -> None:
    c.architecture = "at_framewise"
    c.model.dropout_rate = 0.1
    c.example = "mean"
    c.balance = 0.2  # few people are filmed; recordings are most of what there is to hear
    c.frames = 1
    c.batch_size = 256
    c.loss.opening = 0.0
    c.ema_decay = 0.995
    c.steps = 2500
    c.warmup_steps = 100
    c.checkpoint_every = 200
    c.eval_every = 200
    c.eval_windows = 2048


def _spoken(c: ConfigDict) -> None:
    c.balance = 0.2
    c.steps = 1500


def _finetune(c: ConfigDict) -> None:
    c.steps = 400
    c.learning_rate = 3e-4


def _single(c: ConfigDict) -> None:
    c.architecture = "at_single"


def _smoke(c: ConfigDict) -> None:
    c.model.width = 1 / 32
    c.steps = 10
    c.batch_size = 4
    c.log_every = 5
    c.checkpoint_every = 5
    c.eval_every = 5
    c.eval_windows = 8
