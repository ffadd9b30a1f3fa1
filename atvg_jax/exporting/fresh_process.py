"""Runs artifacts where this package is not: a script for a process of its own, which imports none.

    python -I fresh_process.py FORMAT FOLDER INPUTS.npz OUTPUTS.npz

INPUTS holds ``image`` (B, 128, 128, 3), ``shape`` (B, 68, 2) and ``mfcc`` (B, T, 28, 12). OUTPUTS
gets every output of every piece as ``PIECE/NAME``: the pieces one after the other for the whole
batch, ``step`` over two parts of the time, and ``fewer/...`` for one portrait and fewer frames.
"""

import json
import sys
from pathlib import Path

# An import of it is an error from here on, wherever it may be installed; and so is one of JAX,
# where the format promises to do without.
FORBIDDEN = {"stablehlo": ["atvg_jax"], "savedmodel": ["atvg_jax", "jax"]}
FORBIDDEN["onnx"] = [*FORBIDDEN["savedmodel"], "tensorflow"]
FEWER = 2  # frames of the call with one portrait


def forbid(form):
    """Makes imports of what the format does without fail."""
    for name in FORBIDDEN[form]:
        sys.modules[name] = None  # type: ignore[assignment]


def runner(form, folder):
    """A function (piece, inputs by name) -> outputs by name, and what it runs on."""
    if form == "stablehlo":
        import jax
        from jax import export

        files = {file.stem: file for file in folder.glob("*.stablehlo")}
        loaded = {name: export.deserialize(file.read_bytes()) for name, file in files.items()}
        compiled = {name: jax.jit(exported.call) for name, exported in loaded.items()}
        return lambda name, inputs: compiled[name](inputs), {"jax": jax.__version__}
    if form == "savedmodel":
        import tensorflow as tf

        model = tf.saved_model.load(str(folder / "atvg" / "1"))

        def call(name, inputs):
            tensors = {key: tf.constant(array) for key, array in inputs.items()}
            return model.signatures[name](**tensors)

        return call, {"tensorflow": tf.__version__}
    import onnxruntime

    sessions = {
        file.stem: onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for file in folder.glob("*.onnx")
    }

    def run(name, inputs):
        names = [output.name for output in sessions[name].get_outputs()]
        return dict(zip(names, sessions[name].run(names, inputs), strict=True))

    return run, {"onnxruntime": onnxruntime.__version__}


def everything(call, image, shape, mfcc, states):
    """All outputs, by ``PIECE/NAME``."""
    import numpy as np

    def arrays(name, inputs):
        return {key: np.asarray(value) for key, value in call(name, inputs).items()}

    portrait = arrays("portrait", {"image": image, "landmarks": shape})
    made = {f"portrait/{name}": array for name, array in portrait.items()}
    components = portrait.pop("components")
    features = {"image": image, **portrait}
    spoken = arrays("landmarks", {"components": components, "mfcc": mfcc})
    shown = arrays("frames", {**features, **spoken})
    made |= {f"landmarks/{name}": array for name, array in spoken.items()}
    made |= {f"frames/{name}": array for name, array in shown.items()}

    parts = []
    state = {name: np.zeros((len(image), *size), np.float32) for name, size in states.items()}
    for piece in (mfcc[:, :FEWER], mfcc[:, FEWER:]):
        inputs = {"components": components, "mfcc": piece, **features, **state}
        parts.append(arrays("step", inputs))
        state = {name: parts[-1].pop(f"next_{name}") for name in states}
    made |= {f"step/{n}": np.concatenate([part[n] for part in parts], axis=1) for n in parts[0]}

    first = {name: array[:1] for name, array in features.items()}
    heard = {"components": components[:1], "mfcc": mfcc[:1, :FEWER]}
    spoken = arrays("landmarks", heard)
    shown = arrays("frames", {**first, **spoken})
    made |= {f"fewer/{name}": array for name, array in {**spoken, **shown}.items()}
    return made


def main():
    """Reads, runs, writes."""
    form, folder, inputs, outputs = sys.argv[1:]
    forbid(form)
    call, versions = runner(form, Path(folder))
    import numpy as np

    with np.load(inputs, allow_pickle=False) as file:
        given = {name: file[name] for name in file.files}
    states = json.loads(str(given.pop("states")))
    made = everything(call, **given, states=states)
    np.savez(outputs, versions=json.dumps({"python": sys.version.split()[0], **versions}), **made)


if __name__ == "__main__":
    main()
