"""The speed of two stacks and of their layers, measured in turns."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import numpy as np

from fastlstm._arguments import RealArray
from fastlstm._layer import LSTMBase
from fastlstm._parameters import parameter_count
from fastlstm._processor import processor
from fastlstm.quantization.layerwise import Item, Pair
from fastlstm.threads import get_num_threads

#: Multiply-adds of a call, at most: some hundredths of a second.
_WORK = 2**30

#: Rounds, and the seconds after which there are no more once there have been the fewest.
_FEWEST, _MOST, _SECONDS = 5, 51, 1.0


class Turns(NamedTuple):
    """The time of two layers, measured one after the other, again and again.

    Attributes
    ----------
    before, after : float
        Seconds of a call in float32 and quantised, medians.
    ratio : float
        How many times as fast the quantised one is: the median of the rounds' before / after.
    """

    before: float
    after: float
    ratio: float


class Speed(NamedTuple):
    """How fast a layer is, and where that was measured.

    Attributes
    ----------
    turns : Turns
    steps, batch : int
        T and B of the calls: as many steps of the data's first array as take a moment.
    machine : str
        Name of the processor.
    isas : (str, str)
        Instruction sets in float32 and quantised.
    threads : int
        As set; a call takes those that are worth their while.
    """

    turns: Turns
    steps: int
    batch: int
    machine: str
    isas: tuple[str, str]
    threads: int


def measure(
    layer: LSTMBase, quantized: LSTMBase, pair: Pair, item: Item
) -> tuple[Speed, list[Turns]]:
    """Measure two stacks, and each of their layers on what float32 gives it, on some of the data.

    Where steps are padding, all count as there: the ratio is the same.
    """
    T, B = item.x.shape[:2]
    work = B * parameter_count(layer._spec)
    steps = min(T, max(1, _WORK // work))
    x = np.ascontiguousarray(item.x[:steps])
    given = x.swapaxes(0, 1).copy() if layer.batch_first else x
    speed = Speed(
        _in_turns(layer, quantized, given),
        steps,
        B,
        processor(),
        (layer.isa, quantized.isa),
        get_num_threads(),
    )
    if len(pair.exact) == 1:
        return speed, [speed.turns]
    turns = []
    for exact, other in zip(pair.exact, pair.other, strict=True):
        turns.append(_in_turns(exact, other, x))
        x, _ = exact(x)
    return speed, turns


def _in_turns(before: LSTMBase, after: LSTMBase, x: RealArray) -> Turns:
    """Time calls of one and of the other, round after round."""
    times: tuple[list[float], list[float]] = [], []
    both: tuple[Any, Any] = before, after
    for layer in both:  # a first call of either finds its threads and its memory
        layer(x)
    end = time.perf_counter() + _SECONDS
    while len(times[0]) < _FEWEST or (len(times[0]) < _MOST and time.perf_counter() < end):
        for layer, measured in zip(both, times, strict=True):
            start = time.perf_counter()
            layer(x)
            measured.append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    before_seconds, after_seconds = map(statistics.median, times)
    return Turns(before_seconds, after_seconds, ratio)
