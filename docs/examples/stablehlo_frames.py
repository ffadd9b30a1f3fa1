"""Frames from sound with JAX alone: python stablehlo_frames.py DIR INPUTS.npz FRAMES.npy

INPUTS holds image (128, 128, 3) uint8, landmarks (68, 2) normalised and mfcc (T, 28, 12).
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

folder, source, target = sys.argv[1:]
given = np.load(source, allow_pickle=False)
read = {name: (Path(folder) / f"{name}.stablehlo").read_bytes() for name in ("portrait", "step")}
portrait, step = export.deserialize(read["portrait"]), export.deserialize(read["step"])
image = given["image"][None].astype(np.float32) / 127.5 - 1
known = portrait.call({"image": image, "landmarks": given["landmarks"][None].astype(np.float32)})
(shapes,), _ = jax.tree.unflatten(step.in_tree, step.in_avals)  # inputs by name
states = [name for name in shapes if name.endswith("_state")]
state = {name: np.zeros((1, *shapes[name].shape[1:]), np.float32) for name in states}
frames, run = [], jax.jit(step.call)  # compiled once for each number of frames in a call
for start in range(0, len(given["mfcc"]), 16):
    piece = given["mfcc"][None, start : start + 16]
    made = run({**known, **state, "image": image, "mfcc": piece})
    state = {name: made[f"next_{name}"] for name in states}
    frames.append(np.clip((made["frames"][0] + 1) * 127.5, 0, 255))
np.save(target, np.concatenate(frames).round().astype(np.uint8))
