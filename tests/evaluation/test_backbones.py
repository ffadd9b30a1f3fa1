import functools

import jax
import numpy as np
import pytest
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import save_file

from atvg_jax.errors import InputError
from atvg_jax.evaluation.backbones import inception, layers, lpips


def random_weights(shapes, seed=0):
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        weights[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        if "running_var" in name or name.endswith("bn.weight"):
            weights[name] = 1 + np.abs(weights[name])
        if name.startswith("lin"):
            weights[name] = np.abs(weights[name])
    return weights


def frames(count, size=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def numpy_convolution(x, weight, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)


def numpy_lpips(weights, real, made):
    """LPIPS written once more, with loops over pictures and NumPy alone."""
    distances = []
    for pair in zip(real, made, strict=True):
        maps = []
        for frame in pair:
            x = frame.transpose(2, 0, 1)[None] / 127.5 - 1
            shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
            x = (x - shift[:, None, None]) / scale[:, None, None]
            taken = []
            for name, stride, padding in (
                ("net.slice1.0", 4, 2),
                ("net.slice2.3", 1, 2),
                ("net.slice3.6", 1, 1),
                ("net.slice4.8", 1, 1),
                ("net.slice5.10", 1, 1),
            ):
                if name in ("net.slice2.3", "net.slice3.6"):
                    x = sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((-2, -1))
                x = numpy_convolution(x, weights[f"{name}.weight"], stride, (padding, padding))
                x = np.maximum(x + weights[f"{name}.bias"][:, None, None], 0)
                taken.append(x[0] / (np.linalg.norm(x[0], axis=0) + 1e-10))
            maps.append(taken)
        total = 0.0
        for number, (one, other) in enumerate(zip(*maps, strict=True)):
            weight = weights[f"lin{number}.model.1.weight"][0]
            total += ((one - other) ** 2 * weight).sum(axis=0).mean()
        distances.append(total)
    return distances


def test_lpips(tmp_path):
    weights = random_weights(lpips.shapes())
    save_file(weights, tmp_path / "alex.safetensors")
    distance = lpips.Lpips(tmp_path / "alex.safetensors")
    real, made = frames(2), frames(2, seed=1)
    np.testing.assert_allclose(distance(real, made), numpy_lpips(weights, real, made), rtol=1e-4)
    np.testing.assert_array_equal(distance(real, real), 0)
    # The published size of AlexNet's convolutions and of the five linear layers.
    sizes = {name: int(np.prod(shape)) for name, shape in lpips.shapes().items()}
    assert sum(size for name, size in sizes.items() if name.startswith("net")) == 2_469_696
    assert sum(size for name, size in sizes.items() if name.startswith("lin")) == 1152


def test_inception_is_keras_inception():
    """Against Keras' own Inception v3, which has an average where FID's has a maximum."""
    keras = pytest.importorskip("keras")
    shapes = inception.shapes()
    # The published size of Inception v3 before its classifier.
    assert sum(int(np.prod(s)) for n, s in shapes.items() if "running" not in n) == 21_785_568
    weights = random_weights(shapes)
    for name in weights:
        if name.endswith("bn.weight"):
            weights[name] = np.ones_like(weights[name])  # Keras has none
    theirs = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(107, 107, 3)
    )
    units = [name.removesuffix(".conv.weight") for name in weights if "conv.weight" in name]
    kinds = {"Conv2D": [], "BatchNormalization": []}
    for layer in theirs.layers:
        kinds.get(type(layer).__name__, []).append(layer)

    def number(layer):
        digits = layer.name.rpartition("_")[2]
        return int(digits) if digits.isdigit() else 0

    for own in kinds.values():
        own.sort(key=number)
    for name, convolution, norm in zip(units, *kinds.values(), strict=True):
        convolution.set_weights([weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0)])
        parts = ("bias", "running_mean", "running_var")
        norm.set_weights([weights[f"{name}.bn.{part}"] for part in parts])
    pictures = np.random.default_rng(0).uniform(-1, 1, (1, 107, 107, 3)).astype(np.float32)
    expected = np.asarray(theirs(pictures, training=False))
    assert (expected > 0).mean() > 0.1

    @jax.jit
    def ours(weights, inputs):
        unit = functools.partial(inception.apply_unit, weights)
        pools = (layers.average_pool, None)
        return [inception.features(unit, inputs, last_pool=pool) for pool in pools]

    averaged, own = (np.asarray(f) for f in ours(weights, pictures.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(averaged, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(own - averaged).max() > 1e-2 * np.abs(averaged).max()


def test_pools():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    # By hand: the corner sees four numbers, an edge six.
    average = np.asarray(layers.average_pool(x))[0, 0]
    assert average[0, 0] == pytest.approx((0 + 1 + 4 + 5) / 4)
    assert average[0, 1] == pytest.approx((0 + 1 + 2 + 4 + 5 + 6) / 6)
    assert average[1, 1] == pytest.approx(5)
    assert np.asarray(layers.max_pool(x, 3, 1, padding=1))[0, 0].tolist()[0] == [5, 6, 7, 7]
    assert np.asarray(layers.max_pool(x, 2, 2))[0, 0].tolist() == [[5, 7], [13, 15]]


def test_frechet_distance():
    """Against SciPy's matrix square root, and by hand in one dimension."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (50, 6)) @ rng.normal(0, 1, (6, 6)), rng.normal(1, 2, (40, 6))
    one, other = inception.Moments(), inception.Moments()
    for part in np.array_split(a, 7):
        one.add(part)
    other.add(b)
    mean, covariance = one.gaussian()
    np.testing.assert_allclose(mean, a.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(a.T))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    expected += np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert inception.frechet_distance(one, other) == pytest.approx(expected)
    assert inception.frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    # Means 0 and 3, standard deviations 1 and 2: 3^2 + (2 - 1)^2.
    one, other = inception.Moments(), inception.Moments()
    one.add(np.array([[-1.0], [1.0]]) / np.sqrt(2))
    other.add(3 + np.array([[-2.0], [2.0]]) / np.sqrt(2))
    assert inception.frechet_distance(one, other) == pytest.approx(10)
    with pytest.raises(ValueError, match="two features"):
        inception.Moments().gaussian()


def test_files_that_are_not_weights(tmp_path):
    shapes = {"a": (2, 3), "b": (4,)}
    arrays = {
        "module.a": np.ones((2, 3), np.float32),
        "b": np.ones(4, np.float64),
        "more": np.ones(1),
    }
    np.savez(tmp_path / "good.npz", **arrays)
    read = layers.read_weights(tmp_path / "good.npz", shapes, "a network")
    assert {name: array.shape for name, array in read.items()} == shapes
    assert read["b"].dtype == np.float32
    np.savez(tmp_path / "other.npz", a=np.ones((3, 2)))
    with pytest.raises(InputError, match=r"is not a network: it lacks a \(2, 3\), not \(3, 2\); b"):
        layers.read_weights(tmp_path / "other.npz", shapes, "a network")
    np.savez(tmp_path / "nan.npz", a=np.ones((2, 3)), b=np.full(4, np.nan))
    with pytest.raises(InputError, match="not finite"):
        layers.read_weights(tmp_path / "nan.npz", shapes, "a network")
    np.savez(tmp_path / "object.npz", a=np.array([{}], dtype=object))
    for name in ("broken.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"\x10\x00\x00\x00 nothing of the kind")
    for name in ("object.npz", "broken.npz", "broken.safetensors"):
        with pytest.raises(InputError, match="holds no arrays"):
            layers.read_weights(tmp_path / name, shapes, "a network")
    with pytest.raises(InputError, match="cannot read"):
        layers.read_weights(tmp_path / "nowhere.npz", shapes, "a network")
    with pytest.raises(InputError, match=r"turn a \.pth into one"):
        layers.read_weights(tmp_path / "alex.pth", shapes, "a network")
