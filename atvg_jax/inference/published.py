"""The published PyTorch networks' parameters, by their own names, in and out.

A state dict here is a plain ``{name: numpy array}``; reading it from a file is someone else's work.
Names may carry the ``module.`` that the released files prefix. The differences between the two
worlds are layout alone:

- convolutions: (out, in, kh, kw) there, (kh, kw, in, out) here; transposed ones (in, out, kh, kw);
- dense and recurrent matrices: (out, in) there, (in, out) here;
- the first dense layer after a convolution flattens channel-first there, channel-last here, so
  its rows are permuted.

What a published file holds and no network of ours uses (``num_batches_tracked``, and the
discriminator's ``decoder``) is kept under the ``published`` collection, so that the way back gives
the same dictionary.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.inference.model_directory import KEPT
from atvg_jax.models import abstract_variables

Variables = dict[str, Any]
PREFIX = "module."


class Entry(NamedTuple):
    """One array of a state dict and where it lives here.

    Attributes:
        name: in the published state dict.
        path: collection, then module names, then the array's name.
        to_ours: published array -> our array.
        to_theirs: the way back.
    """

    name: str
    path: tuple[str, ...]
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _transpose(forward: tuple[int, ...]) -> tuple[Callable, Callable]:
    back = tuple(np.argsort(forward))
    return (lambda x: x.transpose(forward)), (lambda x: x.transpose(back))


DENSE = _transpose((1, 0))
CONV = _transpose((2, 3, 1, 0))
TRANSPOSED_CONV = _transpose((2, 3, 0, 1))


def _flattened(height: int, width: int) -> tuple[Callable, Callable]:
    """Dense layer over a flattened (C, height, width) map."""

    def to_ours(x: np.ndarray) -> np.ndarray:
        maps = x.reshape(x.shape[0], -1, height, width)
        return maps.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])

    def to_theirs(x: np.ndarray) -> np.ndarray:
        maps = x.reshape(height, width, -1, x.shape[-1])
        return maps.transpose(3, 2, 0, 1).reshape(x.shape[-1], -1)

    return to_ours, to_theirs


def _layer(name: str, path: str, layout: tuple[Callable, Callable], bias: bool) -> list[Entry]:
    keys = ("params", *path.split("/"))
    entries = [Entry(f"{name}.weight", (*keys, "kernel"), *layout)]
    if bias:
        entries.append(Entry(f"{name}.bias", (*keys, "bias"), _same, _same))
    return entries


def _norm(name: str, path: str) -> list[Entry]:
    keys = tuple(path.split("/"))
    return [
        Entry(f"{name}.weight", ("params", *keys, "scale"), _same, _same),
        Entry(f"{name}.bias", ("params", *keys, "bias"), _same, _same),
        Entry(f"{name}.running_mean", ("batch_stats", *keys, "mean"), _same, _same),
        Entry(f"{name}.running_var", ("batch_stats", *keys, "var"), _same, _same),
        _kept(f"{name}.num_batches_tracked"),
    ]


def _kept(name: str) -> Entry:
    return Entry(name, (KEPT, name), _same, _same)


def _block(
    name: str,
    norm: str | None,
    path: str,
    bias: bool = False,
    layout: tuple[Callable, Callable] = CONV,
) -> list[Entry]:
    """A convolution ``name`` and its batch norm ``norm``, both under ``path`` here."""
    entries = _layer(name, f"{path}/conv", layout, bias)
    return entries + (_norm(norm, f"{path}/norm") if norm else [])


def _dense(name: str, path: str, layout: tuple[Callable, Callable] = DENSE) -> list[Entry]:
    return _layer(name, f"{path}/dense", layout, bias=True)


def _recurrent(
    name: str, path: str, layer: int, layout: tuple[Callable, Callable] = DENSE
) -> list[Entry]:
    keys = ("params", *path.split("/"))
    return [
        Entry(f"{name}.weight_ih_l{layer}", (*keys, "input_kernel"), *layout),
        Entry(f"{name}.weight_hh_l{layer}", (*keys, "hidden_kernel"), *layout),
        Entry(f"{name}.bias_ih_l{layer}", (*keys, "input_bias"), _same, _same),
        Entry(f"{name}.bias_hh_l{layer}", (*keys, "hidden_bias"), _same, _same),
    ]


def _lstm() -> list[Entry]:
    return [entry for i in range(3) for entry in _recurrent("lstm", f"lstm/layer_{i}", i)]


# Index of each audio convolution within the published encoder; 2 and 6 are its max-pools.
_AUDIO_CONVS = ((0, "conv_1"), (1, "conv_2"), (3, "conv_3"), (4, "conv_4"), (5, "conv_5"))


def _audio_encoder(norm: bool) -> list[Entry]:
    entries = []
    for index, path in _AUDIO_CONVS:
        name = f"audio_eocder.{index}"
        entries += _block(
            f"{name}.0", f"{name}.1" if norm else None, f"audio_encoder/{path}", bias=not norm
        )
    entries += _dense("audio_eocder_fc.0", "audio_encoder/fc_1", _flattened(12, 2))
    return entries + _dense("audio_eocder_fc.2", "audio_encoder/fc_2")


def _at_net() -> list[Entry]:
    return [
        *_dense("lmark_encoder.0", "landmark_encoder_1"),
        *_dense("lmark_encoder.2", "landmark_encoder_2"),
        *_audio_encoder(norm=True),
        *_lstm(),
        *_dense("lstm_fc.0", "output"),
    ]


def _at_single() -> list[Entry]:
    return [*_audio_encoder(norm=False), *_dense("audio_eocder_fc.4", "output")]


def _vg_net() -> list[Entry]:
    entries = []
    for name, path in (
        ("image_encoder1.1", "image_1"),
        ("image_encoder1.2", "image_2"),
        ("image_encoder1.3", "image_3"),
        ("image_encoder2.0", "image_4"),
        ("image_encoder2.1", "image_5"),
        ("landmark_encoder_stage2.0", "landmark_conv"),
        ("lmark_feature.0", "landmark_feature"),
        ("bottle_neck.0", "bottleneck"),
    ):
        entries += _block(f"{name}.0", f"{name}.1", path)
    entries += _dense("landmark_encoder.0", "landmark_fc")
    for name, norm, path, bias in (
        ("lmark_att.0", "lmark_att.1", "attention_up_1", True),
        ("lmark_att.3", "lmark_att.4", "attention_up_2", True),
        ("generator1.9", "generator1.10", "decoder_up_1", False),
        ("generator1.12", "generator1.13", "decoder_up_2", False),
        ("base.0", "base.1", "base_up_1", False),
        ("base.3", "base.4", "base_up_2", False),
    ):
        entries += _block(name, norm, path, bias, TRANSPOSED_CONV)
    entries += _layer("lmark_att.6.0", "attention_head", CONV, bias=True)
    for index in range(9):
        name, path = f"generator1.{index}.conv_block", f"residual_{index}"
        entries += _layer(f"{name}.0", f"{path}/conv_1", CONV, bias=False)
        entries += _norm(f"{name}.1", f"{path}/norm_1")
        entries += _layer(f"{name}.4", f"{path}/conv_2", CONV, bias=False)
        entries += _norm(f"{name}.5", f"{path}/norm_2")
    entries += _layer("generator_color.0", "motion_head", CONV, bias=True)
    entries += _layer("generator_attention.0", "alpha_head", CONV, bias=True)
    return entries + _recurrent("convGRU", "mmrnn", 0, CONV)


def _discriminator() -> list[Entry]:
    entries = _block("image_encoder_dis.0.0", None, "image_1", bias=True)
    for index in (1, 2, 3):
        name = f"image_encoder_dis.{index}"
        entries += _block(f"{name}.0", f"{name}.1", f"image_{index + 1}")
    return [
        *entries,
        *_dense("encoder.0", "landmark_encoder_1"),
        *_dense("encoder.2", "landmark_encoder_2"),
        *(_kept(f"decoder.{index}.{part}") for index in (0, 2) for part in ("weight", "bias")),
        *_dense("img_fc.0", "image_fc", _flattened(8, 8)),
        *_lstm(),
        *_dense("lstm_fc.0", "landmark_head"),
        *_dense("decision.0", "decision"),
    ]


# Published name -> (our name, its entries).
NETWORKS: dict[str, tuple[str, list[Entry]]] = {
    "AT_net": ("at_net", _at_net()),
    "AT_single": ("at_single", _at_single()),
    "VG_net": ("vg_net", _vg_net()),
    "GL_Discriminator": ("discriminator", _discriminator()),
}
# Shapes of the entries that no network of ours uses, at the published width.
_KEPT_SHAPES = {
    "decoder.0.weight": (512, 1024),
    "decoder.0.bias": (512,),
    "decoder.2.weight": (136, 512),
    "decoder.2.bias": (136,),
}


def _entries(name: str) -> tuple[str, list[Entry]]:
    if name not in NETWORKS:
        raise InputError(f"no published network is called {name!r}: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _check(name: str, ours: str, entries: list[Entry], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises InputError that lists what is missing, unexpected or misshapen, by name."""
    flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(abstract_variables(ours))
    expected: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        if entry.path[0] == KEPT:
            expected[entry.name] = _KEPT_SHAPES.get(entry.name, ())
        else:
            placeholder = np.broadcast_to(np.float32(0), flat[entry.path].shape)
            expected[entry.name] = entry.to_theirs(placeholder).shape
    wrong = [f"missing {key}" for key in expected if key not in arrays]
    wrong += [f"unexpected {key}" for key in arrays if key not in expected]
    wrong += [
        f"{key} has shape {np.shape(arrays[key])} instead of {shape}"
        for key, shape in expected.items()
        if key in arrays and np.shape(arrays[key]) != shape
    ]
    if wrong:
        raise InputError(f"not a state dict of {name}: {'; '.join(wrong)}", "wrong_network")


def from_state_dict(name: str, state_dict: Mapping[str, np.ndarray]) -> Variables:
    """Turns a published state dict into variables of the network of the published size.

    Args:
        name: AT_net, AT_single, VG_net or GL_Discriminator.
        state_dict: array by published name, with or without ``module.`` before each.

    Returns:
        Variables for ``model.apply``: ``params``, ``batch_stats`` where the network has any, and
        ``published`` with the entries that no network uses.

    Raises:
        InputError: unknown network, or an entry is missing, unexpected or misshapen (all listed).
    """
    ours, entries = _entries(name)
    arrays = {key.removeprefix(PREFIX): np.asarray(value) for key, value in state_dict.items()}
    _check(name, ours, entries, arrays)
    flat = {e.path: np.ascontiguousarray(e.to_ours(arrays[e.name])) for e in entries}
    # A scalar entry is a 0-d array, which ascontiguousarray would have made 1-d.
    flat |= {e.path: arrays[e.name] for e in entries if e.path[0] == KEPT}
    return flax.traverse_util.unflatten_dict(flat)


def to_state_dict(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The way back: variables of the published size to ``{published name: array}``.

    Entries that no network uses come from the ``published`` collection, or are zeros where the
    variables were trained here and have none.

    Raises:
        InputError: the variables are not this network's.
    """
    ours, entries = _entries(name)
    del ours
    flat = flax.traverse_util.flatten_dict(
        {key: value for key, value in variables.items() if key != KEPT}
    )
    kept = variables.get(KEPT, {})
    state_dict = {}
    for entry in entries:
        if entry.path[0] == KEPT:
            shape = _KEPT_SHAPES.get(entry.name)
            default = np.zeros((), np.int64) if shape is None else np.zeros(shape, np.float32)
            state_dict[entry.name] = np.asarray(kept.get(entry.name, default))
        elif entry.path not in flat:
            raise InputError(f"not variables of {name}: no {'/'.join(entry.path)}", "wrong_network")
        else:
            array = entry.to_theirs(np.asarray(flat[entry.path]))
            state_dict[entry.name] = np.ascontiguousarray(array)
    return state_dict
