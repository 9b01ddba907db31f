"""What reports on quantised layers are compared with, computed anew in NumPy and the reference."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastlstm import quantization_report, quantize, reference
from fastlstm.quantization import QuantizationReport
from fastlstm.quantization.digits import FLOAT_INPUTS
from fastlstm.reference.stack import weights_of
from support.layers import layer_class, random_state

#: Of the problems. The first layer's inputs are quantised; those of the second are too few for
#: that in one direction.
T, B, I, H, L = 23, 5, FLOAT_INPUTS + 3, 9, 2


class Problem:
    """Two layers in one or two directions, data with states and lengths."""

    def __init__(self, directions: int, bits: int = 8, **options: Any) -> None:
        rng = np.random.default_rng(directions)
        self.layer = layer_class(directions)(I, H, L, seed=rng, **options)
        self.quantized = quantize(self.layer, bits)
        self.x = rng.normal(size=(T, B, I)).astype(np.float32)
        width = self.layer.output_size
        h_0 = rng.uniform(-0.9, 0.9, (L * directions, B, width)).astype(np.float32)
        self.state = h_0, random_state(rng, (L * directions, B, H), np.float32)[1]
        self.lengths = np.array([T, 7, 1, 0, 20])
        self.present = np.arange(T)[:, np.newaxis] < self.lengths

    def report(self, **arguments: Any) -> QuantizationReport:
        return quantization_report(self.layer, self.quantized, self.x, timed=False, **arguments)

    def rows(self, index: int) -> list[reference.QuantizedWeights]:
        """One layer as the reference quantises it."""
        arrays, D = self.layer.state_dict(), self.layer.num_directions
        width = D * self.layer.output_size if index else I
        return [
            reference.quantize_layer(
                weights_of(arrays, index, d),
                self.quantized.bits or 0,
                float_input=width <= FLOAT_INPUTS,
            )
            for d in range(D)
        ]

    def run(self, index: int, x: np.ndarray, lengths: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """y of one layer (T, B, D*P) in float32 and by the reference quantised."""
        layer, D = self.layer, self.layer.num_directions
        single = type(layer)(x.shape[-1], H, proj_size=layer.options["proj_size"])
        single.load_state_dict(
            {
                name.replace(f"_l{index}", "_l0"): array
                for name, array in layer.state_dict().items()
                if f"_l{index}" in name
            }
        )
        state = self.state[0][index * D : (index + 1) * D], self.state[1][index * D :][:D]
        exact, _ = single(x, state, lengths=lengths)
        other, _ = reference.forward_of_digits(
            x, state, self.rows(index), lengths=lengths, num_directions=D
        )
        return exact, other

    def expected(self, lengths: Any) -> dict[str, np.ndarray]:
        """What the layers give: in float32, alone on that, and in the quantised stack."""
        first, low_first = self.run(0, self.x, lengths)
        second, low_alone = self.run(1, first, lengths)
        _, low_second = self.run(1, low_first, lengths)
        return {
            "exact 0": first,
            "own 0": low_first,
            "stack 0": low_first,
            "exact 1": second,
            "own 1": low_alone,
            "stack 1": low_second,
        }


@functools.cache
def solved(directions: int, bits: int, ragged: bool) -> tuple[Problem, dict[str, np.ndarray]]:
    problem = Problem(directions, bits)
    return problem, problem.expected(problem.lengths if ragged else None)


def errors(exact: np.ndarray, other: np.ndarray, spread: float | None = None) -> list[float]:
    """Largest and rms of the differences, and rms by the spread."""
    difference = np.abs(other.astype(np.float64) - exact)
    rms = math.sqrt(np.mean(difference**2))
    spread = float(np.std(exact.astype(np.float64))) if spread is None else spread
    return [float(difference.max()), rms, rms / spread]
