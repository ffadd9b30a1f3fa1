"""The four pieces that every format has: what goes in, what comes out, and how it is computed.

``portrait``    a portrait and its landmarks -> what the other pieces need of them, made once
``landmarks``   that and the sound's windows -> landmarks of every frame
``frames``      that and landmarks -> frames, attention and motion
``step``        portrait and windows -> landmarks and frames of the next frames, with state in and
                out: any cutting of a sound into steps gives the frames of the whole

Batch ``b`` and time ``t`` are open. Landmarks are (68, 2) normalised and pixels float32 in [-1, 1],
in and out; what lies in between (model units, the basis, the boost) is inside.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from atvg_jax.features import audio, lips
from atvg_jax.features.faces import CROP_SIZE
from atvg_jax.features.landmarks import COMPONENTS, LANDMARK_SCALE
from atvg_jax.inference.model_directory import Model, NetworkConfig
from atvg_jax.models import PortraitFeatures, ensemble

Array = jax.Array
Arrays = dict[str, Any]
PIECES = ("portrait", "landmarks", "frames", "step")
POINTS = 68
COORDINATES = 2 * POINTS


class Tensor(NamedTuple):
    """One input or output.

    Attributes:
        shape: numbers, and ``b`` and ``t`` for batch and time.
        meaning: what it holds, in which range.
    """

    shape: tuple[int | str, ...]
    meaning: str


class Piece(NamedTuple):
    """One artifact; all tensors are float32.

    Attributes:
        inputs: by name, in order.
        outputs: by name, in order.
        function: (weights, inputs by name) -> outputs by name.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    function: Callable[[Any, Arrays], Arrays]


def weights(model: Model) -> dict[str, Any]:
    """What the functions compute with: both networks' variables, and the basis."""
    basis = model.basis
    return {
        "at_net": dict(model.variables["at_net"]),
        "vg_net": dict(model.variables["vg_net"]),
        "basis": {
            "mean": np.asarray(basis.mean, np.float32),
            "components": np.asarray(basis.components, np.float32),
            "boost": np.asarray(basis.boost, np.float32),
        },
    }


def pieces(model: Model, dtype: str = "float32") -> dict[str, Piece]:
    """The four pieces of a model.

    Args:
        model: whose networks to take.
        dtype: that the networks compute in; inputs, outputs and states are float32.
    """
    networks = {
        slot: NetworkConfig(config.name, {**config.settings, "dtype": dtype})
        for slot, config in model.networks.items()
    }
    at_net, vg_net = networks["at_net"].create(), networks["vg_net"].create()
    speaks_alone = networks["at_net"].name == "at_single"

    def to_model(shapes: Array) -> Array:
        """(..., 68, 2) normalised -> (..., 136)."""
        return shapes.reshape(*shapes.shape[:-2], COORDINATES) * LANDMARK_SCALE

    def from_model(values: Array) -> Array:
        return values.reshape(*values.shape[:-1], POINTS, 2) / LANDMARK_SCALE

    def seen(inputs: Arrays) -> PortraitFeatures:
        return PortraitFeatures(*(inputs[name] for name in PortraitFeatures._fields))

    def portrait(weights: Any, inputs: Arrays) -> Arrays:
        basis = weights["basis"]
        components = (to_model(inputs["landmarks"]) - basis["mean"]) @ basis["components"]
        # Through the basis, as the landmarks that drive the frames are.
        example = components @ basis["components"].T + basis["mean"]
        made: Any = vg_net.apply(
            weights["vg_net"], inputs["image"], example, method="encode_portrait"
        )
        features = {name: value.astype(jnp.float32) for name, value in made._asdict().items()}
        features.pop("image")
        return {"components": components, **features}

    def speak(weights: Any, inputs: Arrays, state: Any) -> tuple[Array, Any]:
        """Windows to landmarks (b, t, 68, 2) and AT-net's state."""
        basis = weights["basis"]
        if speaks_alone:
            components = at_net.apply(weights["at_net"], inputs["mfcc"])
        else:
            components, state = at_net.apply(
                weights["at_net"], inputs["components"], inputs["mfcc"], state, method="steps"
            )
        values = (components * basis["boost"]) @ basis["components"].T + basis["mean"]
        return from_model(lips.apart(values, model.basis)), state

    def show(weights: Any, inputs: Arrays, shapes: Array, state: Any) -> tuple[Arrays, Any]:
        """Landmarks (b, t, 68, 2) to frames and VG-net's state."""
        made: Any = vg_net.apply(
            weights["vg_net"], seen(inputs), to_model(shapes), state, method="frames_from"
        )
        output, state = made
        return {
            "frames": output.frames.astype(jnp.float32),
            "attention": output.attention[..., 0].astype(jnp.float32),
            "motion": output.motion.astype(jnp.float32),
        }, state

    def landmarks(weights: Any, inputs: Arrays) -> Arrays:
        return {"landmarks": speak(weights, inputs, None)[0]}

    def frames(weights: Any, inputs: Arrays) -> Arrays:
        return show(weights, inputs, inputs["landmarks"], None)[0]

    def step(weights: Any, inputs: Arrays) -> Arrays:
        at_state = vg_state = None
        if "lstm_state" in states:
            packed = inputs["lstm_state"]
            at_state = tuple((packed[:, i, 0], packed[:, i, 1]) for i in range(packed.shape[1]))
        if "gru_state" in states:
            vg_state = inputs["gru_state"]
        shapes, at_state = speak(weights, inputs, at_state)
        made, vg_state = show(weights, inputs, shapes, vg_state)
        after: Arrays = {}
        if "lstm_state" in states:
            after["next_lstm_state"] = jnp.stack([jnp.stack(pair, 1) for pair in at_state], 1)
        if "gru_state" in states:
            after["next_gru_state"] = vg_state
        return {"landmarks": shapes, **made, **after}

    features = _feature_tensors(model)
    states = _state_tensors(model)
    after = {
        f"next_{name}": tensor._replace(meaning="after the last frame")
        for name, tensor in states.items()
    }
    image = Tensor(("b", CROP_SIZE, CROP_SIZE, 3), "aligned portrait, RGB, [-1, 1]")
    windows = Tensor(
        ("b", "t", audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS), "MFCC around each frame"
    )
    spoken = Tensor(("b", "t", POINTS, 2), "normalised, boost applied")
    of_portrait = Tensor(("b", POINTS, 2), "normalised, of the portrait")
    components = Tensor(("b", COMPONENTS), "the portrait's landmarks in the basis")
    made = {
        "frames": Tensor(("b", "t", CROP_SIZE, CROP_SIZE, 3), "RGB, [-1, 1]"),
        "attention": Tensor(("b", "t", CROP_SIZE, CROP_SIZE), "[0, 1]: motion, or portrait"),
        "motion": Tensor(("b", "t", CROP_SIZE, CROP_SIZE, 3), "what is blended in, [-1, 1]"),
    }
    heard = {"components": components, "mfcc": windows}
    portrait_inputs = {"image": image, **features}
    return {
        "portrait": Piece(
            {"image": image, "landmarks": of_portrait},
            {"components": components, **features},
            portrait,
        ),
        "landmarks": Piece(heard, {"landmarks": spoken}, landmarks),
        "frames": Piece({**portrait_inputs, "landmarks": spoken}, made, frames),
        "step": Piece(
            {**heard, **portrait_inputs, **states}, {"landmarks": spoken, **made, **after}, step
        ),
    }


def _feature_tensors(model: Model) -> dict[str, Tensor]:
    """What VG-net makes of the portrait, sizes from its own weights."""
    params = model.variables["vg_net"]["params"]

    def channels(layer: str) -> int:
        return int(np.shape(params[layer]["conv"]["kernel"])[-1])

    return {
        "shallow": Tensor(("b", 32, 32, channels("image_3")), "features of the portrait"),
        "deep": Tensor(("b", 8, 8, channels("image_5")), "features of the portrait"),
        "landmark_map": Tensor(("b", 8, 8, channels("landmark_conv")), "of its landmarks"),
        "landmark_feature": Tensor(("b", 8, 8, channels("landmark_feature")), "of its landmarks"),
    }


def _state_tensors(model: Model) -> dict[str, Tensor]:
    """What one step hands to the next; networks without recurrence have none."""
    states = {}
    if model.networks["at_net"].name != "at_single":
        members = ensemble.members_of(model.variables["at_net"])
        lstm = members[0]["params"]["lstm"]
        hidden = len(members) * int(np.shape(lstm["layer_0"]["hidden_kernel"])[0])
        states["lstm_state"] = Tensor(("b", len(lstm), 2, hidden), "zeros before the first frame")
    if model.networks["vg_net"].settings.get("recurrence", "time") == "time":
        kernel = model.variables["vg_net"]["params"]["mmrnn"]["hidden_kernel"]
        states["gru_state"] = Tensor(
            ("b", 8, 8, int(np.shape(kernel)[2])), "zeros before the first frame"
        )
    return states


def sized(tensors: Mapping[str, Tensor], b: int, t: int) -> dict[str, tuple[int, ...]]:
    """Shapes with numbers for batch and time."""
    sizes: dict[int | str, int] = {"b": b, "t": t}
    return {
        name: tuple(size if isinstance(size, int) else sizes[size] for size in tensor.shape)
        for name, tensor in tensors.items()
    }
