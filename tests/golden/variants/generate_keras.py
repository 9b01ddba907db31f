"""Make ``keras_*.npz`` beside this file with Keras 3, on JAX in float64.

    pip install keras jax
    python tests/golden/variants/generate_keras.py [FOLDER]

``keras_merge.npz``: ``Bidirectional(LSTM)``, whose two outputs are merged in every way that Keras
has: ``y_concat`` (T, B, 2*H), and ``y_sum``, ``y_ave``, ``y_mul`` (T, B, H).

``keras_recurrent_dropout.npz``: a bidirectional LSTM in training with recurrent dropout, and the
mask that was drawn for each direction, ``recurrent`` (2, B, H): 0, or 1 / (1 - rate). Keras draws
one mask per gate, and keeps them for the whole call (``DropoutRNNCell._create_dropout_mask``, four
times, since its LSTM sets ``dropout_mask_count`` to 4). Here it is made to draw one, with its own
code, and to use it for all gates, which is what it does in its SimpleRNN and what we do.

Keras 3.15.1 rounds to float32 in a few places although everything is float64: on PyTorch in its
matmul, on JAX in its tanh. Hence JAX, and JAX's own tanh.

Both have x (T, B, I), h_0, c_0, h_n, c_n (2, B, H) and parameters by PyTorch's names. Keras has the
gates in our order and one bias, which is divided between ``bias_ih`` and ``bias_hh``; it has the
batch first and matrices that are multiplied from the right, both of which are turned.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
Arrays = dict[str, NDArray[Any]]
T, B, I, H = 7, 3, 5, 4
RATE = 0.4


def draw(keras: Any, seed: int, recurrent_dropout: float) -> tuple[Any, list[Any], Arrays, Arrays]:
    """Two layers of Keras with weights of theirs, their weights, and our inputs and parameters."""
    import jax

    @keras.saving.register_keras_serializable("fastlstm")  # Bidirectional copies layers
    def exact_tanh(x: Any) -> Any:
        return jax.numpy.tanh(x)

    rng = np.random.default_rng(seed)
    options = {
        "activation": exact_tanh,
        "return_sequences": True,
        "return_state": True,
        "recurrent_dropout": recurrent_dropout,
    }
    layers = [
        keras.layers.LSTM(H, go_backwards=backwards, seed=seed + backwards, **options)
        for backwards in (False, True)
    ]
    parameters: Arrays = {}
    weights = []
    for layer, end in zip(layers, ("l0", "l0_reverse"), strict=True):
        shapes = ((4 * H, I), (4 * H, H), (4 * H,), (4 * H,))
        W, U, b_ih, b_hh = (rng.uniform(-0.8, 0.8, shape) for shape in shapes)
        for name, array in zip(
            ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (W, U, b_ih, b_hh), strict=True
        ):
            parameters[f"{name}_{end}"] = array
        weights.append([W.T, U.T, b_ih + b_hh])
        layer.build((B, T, I))
        layer.set_weights(weights[-1])
    inputs = {
        "x": rng.normal(size=(T, B, I)),
        "h_0": rng.uniform(-0.9, 0.9, (2, B, H)),
        "c_0": rng.normal(scale=1.5, size=(2, B, H)),
    }
    return layers, weights, inputs, parameters


def states(inputs: Arrays) -> list[NDArray[Any]]:
    """h_0 and c_0 of the one direction, then of the other."""
    return [inputs[name][d] for d in (0, 1) for name in ("h_0", "c_0")]


def file(keras: Any, inputs: Arrays, parameters: Arrays, finals: list[Any], **more: Any) -> Arrays:
    """All arrays of a file; finals are h_n and c_n of the one direction, then of the other."""
    return {
        "keras_version": np.array(keras.__version__),
        **inputs,
        **{f"parameter.{name}": array for name, array in parameters.items()},
        "h_n": np.stack([np.asarray(finals[0]), np.asarray(finals[2])]),
        "c_n": np.stack([np.asarray(finals[1]), np.asarray(finals[3])]),
        **more,
    }


def make_merge(keras: Any) -> Arrays:
    """The four ways of merging."""
    layers, weights, inputs, parameters = draw(keras, 3, 0.0)
    merged = {}
    for mode in ("concat", "sum", "ave", "mul"):
        model = keras.layers.Bidirectional(
            layers[0], merge_mode=mode, backward_layer=layers[1], name=mode
        )
        model.build((B, T, I))
        model.forward_layer.set_weights(weights[0])
        model.backward_layer.set_weights(weights[1])
        y, *finals = model(
            np.swapaxes(inputs["x"], 0, 1), initial_state=states(inputs), training=False
        )
        merged[f"y_{mode}"] = np.swapaxes(np.asarray(y), 0, 1)
    return file(keras, inputs, parameters, finals, **merged)


def make_recurrent_dropout(keras: Any) -> Arrays:
    """One mask per direction."""
    layers, _, inputs, parameters = draw(keras, 5, RATE)
    initial = states(inputs)
    masks, outputs, finals = [], [], []
    for d, layer in enumerate(layers):
        cell = layer.cell
        cell.dropout_mask_count = None  # draw one
        draw_mask = cell._create_dropout_mask

        def for_all_gates(step_input: Any, rate: float, draw_mask: Any = draw_mask) -> list[Any]:
            mask = draw_mask(step_input, rate)
            masks.append(np.asarray(mask))
            return [mask] * 4

        cell._create_dropout_mask = for_all_gates
        y, *final = layer(
            np.swapaxes(inputs["x"], 0, 1),
            initial_state=initial[2 * d : 2 * d + 2],
            training=True,
        )
        steps = np.swapaxes(np.asarray(y), 0, 1)
        outputs.append(steps[::-1] if d else steps)  # in the order in which they were taken
        finals += final
    assert len(masks) == 2
    for mask in masks:
        assert set(np.unique(mask)) <= {0.0, 1 / (1 - RATE)}
    return file(
        keras,
        inputs,
        parameters,
        finals,
        y=np.concatenate(outputs, -1),
        recurrent=np.stack(masks),
    )


def main(folder: Path) -> None:
    """Write both files to `folder`."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_ENABLE_X64"] = "1"
    import keras

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    for name, make in (("merge", make_merge), ("recurrent_dropout", make_recurrent_dropout)):
        path = folder / f"keras_{name}.npz"
        arrays: dict[str, Any] = dict(make(keras))
        assert all(a.dtype == np.float64 for a in arrays.values() if a.dtype.kind == "f")
        np.savez_compressed(path, **arrays)
        print(f"{path.name}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
