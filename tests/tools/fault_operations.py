"""Operations whose every allocation in C fails once in turn: the program of ``test_faults.py``.

Run with ``fail_allocations.c`` preloaded: ``python tests/tools/fault_operations.py NAME PATH``,
NAME one of ``OPERATIONS`` or "threads", PATH that of the preloaded library.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM, _core
from fastlstm._linear import linear, linear_backward
from fastlstm.training.losses import cross_entropy

VARIANT = {"proj_size": 7, "layer_norm": True, "peepholes": True}
DTYPES = (np.float32, np.float64)


class Faults:
    """The functions of the preloaded library, told where the compiled core is."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        core = str(Path(_core.__file__).resolve())
        lines = Path("/proc/self/maps").read_text().splitlines()
        fields = [line.split() for line in lines if line.endswith(core)]
        (code,) = (field[0].split("-") for field in fields if "x" in field[1])
        self.library.fault_watch(*(ctypes.c_size_t(int(address, 16)) for address in code))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, f"fault_{name}")


class Operation(NamedTuple):
    """What is made to fail.

    prepare() makes what run(it) uses, and run returns arrays; look(it) returns what a failed run
    must not have changed. ``allocates`` is false for what is promised to allocate nothing in C.
    """

    prepare: Callable[[], Any]
    run: Callable[[Any], list[np.ndarray]]
    look: Callable[[Any], list[np.ndarray]]
    allocates: bool = True


def nothing(_: Any) -> list[np.ndarray]:
    return []


def results(returned: Any) -> list[np.ndarray]:
    y, (h_n, c_n) = returned[:2]
    return [y, h_n, c_n]


def numbers(layer: LSTM | BiLSTM, *shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, layer.input_size)).astype(layer.dtype)


def making(make: Callable[[], LSTM | BiLSTM]) -> Operation:
    return Operation(
        lambda: None, lambda _: results((layer := make())(numbers(layer, 6, 2))), nothing
    )


def calling(make: Callable[[], LSTM | BiLSTM], T: int, B: int, **options: Any) -> Operation:
    def run(layer: LSTM | BiLSTM) -> list[np.ndarray]:
        return results(layer(numbers(layer, T, B), **options))

    return Operation(make, run, lambda layer: results(layer(numbers(layer, 3, 1))))


def recording(make: Callable[[], LSTM | BiLSTM], T: int, B: int, **options: Any) -> Operation:
    def run(layer: LSTM | BiLSTM) -> list[np.ndarray]:
        return results(layer.record(numbers(layer, T, B), **options))

    return Operation(make, run, nothing)


def going_back(make: Callable[[], LSTM | BiLSTM], T: int, B: int, **options: Any) -> Operation:
    def prepare() -> Any:
        layer = make()
        y, _, tape = layer.record(numbers(layer, T, B), **options)
        return tape, y

    def run(recorded: Any) -> list[np.ndarray]:
        tape, y = recorded
        return [each for each in tape.backward(y) if each is not None]

    return Operation(prepare, run, nothing)


def adding_up(make: Callable[[], LSTM | BiLSTM]) -> Operation:
    """Gradients added to what there is, which a failure leaves as it was."""

    def prepare() -> Any:
        layer = make()
        y, _, tape = layer.record(numbers(layer, 9, 3))
        total = fastlstm.Gradients(params=np.ones(layer.parameters.shape, layer.dtype))
        return tape, y, total

    def run(recorded: Any) -> list[np.ndarray]:
        tape, y, total = recorded
        return [tape.backward(y, into=total, wrt=["params"]).params.copy()]

    return Operation(prepare, run, lambda recorded: [recorded[2].params])


def streaming(make: Callable[[], LSTM]) -> Operation:
    def run(layer: LSTM) -> list[np.ndarray]:
        stream = layer.stream(3)
        return [stream.push(numbers(layer, 5, 3)), *stream.state]

    return Operation(make, run, nothing)


def pushing(make: Callable[[], LSTM]) -> Operation:
    def run(stream: fastlstm.Stream) -> list[np.ndarray]:
        x = np.ones((5, 3, stream.input_size), stream.dtype)
        return [stream.push(x), stream.step(x[0]).copy(), *stream.state]

    return Operation(lambda: make().stream(3), run, nothing, allocates=False)


def feeding_back(make: Callable[[], LSTM]) -> Operation:
    """Steps whose input is the last result: the first of them allocates a copy."""

    def prepare() -> Any:
        stream = make().stream(2)
        return stream, stream.step(np.ones((2, stream.input_size), stream.dtype))

    def run(prepared: Any) -> list[np.ndarray]:
        stream, y = prepared
        return [np.array([stream.step(y) for _ in range(3)]), *stream.state]

    return Operation(prepare, run, lambda prepared: [prepared[1].copy(), *prepared[0].state])


def replacing(make: Callable[[], LSTM | BiLSTM]) -> Operation:
    def run(layer: LSTM | BiLSTM) -> list[np.ndarray]:
        layer.load_parameters(np.linspace(-1, 1, layer.parameters.size))
        return [layer.parameters]

    def look(layer: LSTM | BiLSTM) -> list[np.ndarray]:
        return [layer.parameters, *results(layer(numbers(layer, 4, 2)))]

    return Operation(make, run, look)


def loading(make: Callable[[], LSTM | BiLSTM]) -> Operation:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.npz"
    fastlstm.save(make(), path)

    def run(_: Any) -> list[np.ndarray]:
        layer = fastlstm.load(path)
        return results(layer(numbers(layer, 4, 2)))

    return Operation(lambda: folder, run, nothing)  # the folder lives as long as the operation


def answering(make: Callable[[], LSTM | BiLSTM]) -> Operation:
    """The linear head alone, its softmax and its gradient."""

    def prepare() -> Any:
        layer = make()
        width = layer.num_directions * layer.output_size
        rng = np.random.default_rng(5)
        return layer, *(rng.normal(size=s).astype(layer.dtype) for s in ((9, width), (3, width), 3))

    def run(prepared: Any) -> list[np.ndarray]:
        layer, x, weight, bias = prepared
        z = linear(x, weight, bias, layer.isa)
        _, dz, _ = cross_entropy(z, np.zeros(len(z), np.intp))
        dweight, dbias = np.empty_like(weight), np.empty_like(bias)
        return [z, dz, linear_backward(dz, x, weight, dweight, dbias, layer.isa), dweight, dbias]

    return Operation(prepare, run, nothing)


def operations(name: str, options: dict[str, Any]) -> Iterator[Operation]:
    """The operations of a name, on layers with these options."""

    def usual() -> LSTM:
        return LSTM(5, 19, 2, seed=1, **options)

    def both() -> BiLSTM:
        return BiLSTM(20, 67, 2, seed=1, **options)

    def variant() -> LSTM:
        return LSTM(5, 19, 2, seed=1, **VARIANT, **options)

    def echo() -> LSTM:
        return LSTM(11, 11, seed=1, **options)

    lengths = {"lengths": [9, 4, 0, 7, 1]}
    match name:
        case "head":
            yield from (answering(make) for make in (usual, both))
        case "make":
            yield from (making(make) for make in (usual, both, variant))
        case "call":
            yield from (calling(make, 9, 3) for make in (usual, variant))
            yield from (calling(make, 9, 5, **lengths) for make in (usual, both, variant))
        case "two threads":
            # As directions, and as rows: these have scratch memory for each thread.
            yield calling(both, 20, 1)
            yield calling(both, 10, 24)
            yield calling(usual, 40, 100)
        case "record":
            yield from (recording(make, 9, 3) for make in (usual, both, variant))
            yield from (recording(make, 9, 5, **lengths) for make in (usual, both, variant))
        case "backward":
            yield from (going_back(make, 9, 3) for make in (usual, both, variant))
            yield from (going_back(make, 9, 5, **lengths) for make in (usual, both, variant))
            yield from (adding_up(make) for make in (usual, both, variant))
        case "stream":
            yield from (streaming(make) for make in (usual, variant))
        case "push":
            yield from (pushing(make) for make in (usual, variant))
        case "feed back":
            yield feeding_back(echo)
        case "load parameters":
            yield from (replacing(make) for make in (usual, both, variant))
        case "load file":
            yield from (loading(make) for make in (usual, both, variant))


OPERATIONS = (
    "head",
    "make",
    "call",
    "two threads",
    "record",
    "backward",
    "stream",
    "push",
    "feed back",
    "load parameters",
    "load file",
)


def bits(arrays: list[np.ndarray]) -> list[tuple[Any, ...]]:
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays]


def assert_live(faults: Faults, expected: int) -> None:
    if faults.live_blocks() != expected:
        gc.collect()
    assert faults.live_blocks() == expected, (faults.live_blocks(), expected)


def fail_in_turn(faults: Faults, operation: Operation) -> int:
    """Let the n-th allocation of an operation fail, n = 1, 2, ... until it has none; return n."""
    expected = bits(operation.run(operation.prepare()))
    gc.collect()
    base = faults.live_blocks()
    assert base >= 0
    for n in range(1, 1000):
        prepared = operation.prepare()
        before = faults.live_blocks()
        seen = bits(operation.look(prepared))
        faults.fail_allocation(n)
        try:
            got = bits(operation.run(prepared))
        except MemoryError:
            has_raised = True
        else:
            has_raised = False
        has_failed = faults.has_failed_allocation()
        faults.fail_allocation(0)
        assert has_raised == has_failed, (n, has_raised)
        if not has_failed:
            assert got == expected
            return n - 1
        assert_live(faults, before)
        assert bits(operation.look(prepared)) == seen
        assert bits(operation.run(prepared)) == expected
        del prepared
        assert_live(faults, base)
    raise AssertionError("there is no end of allocations")


def fail_all(faults: Faults, name: str) -> str:
    """Go over the operations of a name; return how many faults were injected."""
    fastlstm.set_num_threads(2 if name == "two threads" else 1)
    faults.claim_processors(2)
    total = count = 0
    for isa in _core.available_isas():
        for dtype in DTYPES:
            for operation in operations(name, {"dtype": dtype, "isa": isa}):
                injected = fail_in_turn(faults, operation)
                assert (injected > 0) == operation.allocates, (name, isa, dtype, injected)
                total += injected
                count += 1
    return f"{name}: {total} faults in {count} operations, 0 blocks lost"


def tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def fail_threads(faults: Faults) -> str:
    """Let threads fail to start, all of 3, then one less each time: the same bits."""
    layers = [BiLSTM(20, 67, 2, seed=1), LSTM(70, 129, 2, seed=1), LSTM(5, 19, seed=1)]
    inputs = [numbers(layer, 60, B) for layer, B in zip(layers, (3, 1, 300), strict=True)]

    def call() -> list[tuple[Any, ...]]:
        return [
            each
            for layer, x in zip(layers, inputs, strict=True)
            for each in bits(results(layer(x)))
        ]

    fastlstm.set_num_threads(1)
    expected = call()
    faults.claim_processors(4)
    fastlstm.set_num_threads(4)
    before = tasks()
    for started in range(4):
        faults.allow_threads(min(started, 1))
        # While others use the processors, calls that go in step ask for less, and for a time those
        # after them. A batch is shared by rows, whose threads do not wait for each other.
        late = time.monotonic() + 60
        while tasks() < before + started and time.monotonic() < late:
            layers[-1](inputs[-1])
        for _ in range(3):
            assert call() == expected
        assert tasks() == before + started
    faults.allow_threads(100)
    assert call() == expected
    return "threads: 3 failed to start, the same bits on 1, 2, 3 and 4"


if __name__ == "__main__":
    chosen, library = sys.argv[1:]
    injector = Faults(library)
    print(fail_threads(injector) if chosen == "threads" else fail_all(injector, chosen))
