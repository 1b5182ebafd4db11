"""Weights of the recogniser's shapes, drawn at random."""

import numpy as np

from export.recogniser.command import LAYERS


def random_weights():
    rng = np.random.default_rng(0)

    def layer(name, side, inputs, outputs):
        spread = np.sqrt(2 / (side * side * inputs))
        return {
            f"{name}/conv/filters": np.float32(rng.normal(0, spread, (side, side, inputs, outputs))),
            f"{name}/conv/bias": np.float32(rng.normal(0, 0.1, outputs)),
            f"{name}/scale/weights": np.float32(rng.uniform(0.5, 1.5, outputs)),
            f"{name}/scale/biases": np.float32(rng.normal(0, 0.1, outputs)),
        }

    weights, channels = layer("conv32_down", 7, 3, 32), 32
    for name, _ in LAYERS:
        outputs = int(name.removeprefix("conv").partition("_")[0])
        weights |= layer(f"{name}/conv1", 3, channels, outputs) | layer(f"{name}/conv2", 3, outputs, outputs)
        channels = outputs
    return weights | {"fc": np.float32(rng.normal(0, 0.0006, (256, 128)))}
