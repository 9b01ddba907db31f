"""Mutate valid files of every format: each must load, or be refused with a clear error, and fast.

    python tests/tools/fuzz_weights.py --seconds 3600 [--only onnx] [--seed 0]

Whatever the bytes, `fastlstm.weights.read`, the building of what it finds, and
`fuzz_networks.load` may only succeed or raise ValueError, within `SECONDS` and `MEMORY`. The end of
the process by a signal is a finding as well; what breaks the rule is kept in the folder given by
``--keep``. `test_weights_fuzz.py` does a bounded number of rounds of the same.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_networks
import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM, weights
from fastlstm.weights import networks as networks_in_files

SECONDS = 10
HDF5_SECONDS = 90  # the process that reads it has a minute, whoever else uses the processor
MEMORY = 3 * 2**30  # of address space beyond what is used before the first input

Random = np.random.Generator

#: Numbers that parsers of sizes and offsets trip over.
EDGES = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63,
         2**64 - 1]  # fmt: skip


def seeds(folder: Path) -> dict[str, bytes]:
    """Valid files by name; formats whose packages are missing are left out."""
    lstm = LSTM(3, 4, 2, peepholes=True, clip=3.0, seed=1)
    plain, both = LSTM(3, 4, 2, seed=2), BiLSTM(2, 3, merge_mode="sum", seed=3)
    head = weights.Head(np.ones((2, 4), np.float32), np.zeros(2, np.float32))
    state = (np.ones((2, 4), np.float32), np.full((2, 4), 0.5, np.float32))
    features = np.geomspace(0.01, 100, 20)  # so different that they get factors
    wide = BiLSTM(20, 4, proj_size=3, seed=4)
    wide = fastlstm.quantize(wide, 16, np.random.default_rng(0).normal(size=(9, 20)) * features)
    in_8_bits = fastlstm.quantize(LSTM(20, 4, 2, peepholes=True, seed=5), 8)
    made: dict[str, bytes] = {}
    for name, layer, options in (
        ("native.npz", lstm, {"head": head, "state": state}),
        ("native.safetensors", lstm, {"head": head, "state": state}),
        ("variant.onnx", lstm, {"head": head, "state": state}),
        ("plain.onnx", plain, {}),
        ("both.onnx", both, {}),
        ("plain.pt", plain, {}),
        ("plain.keras", plain, {"head": head}),
        ("both.keras", both, {}),
        ("plain.h5", plain, {"head": head}),
        ("both.h5", both, {}),
        ("digits.npz", wide, {}),
        ("digits.safetensors", fastlstm.quantize(plain, 24), {"head": head, "state": state}),
        ("digits.onnx", in_8_bits, {"head": head, "state": state}),
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that input weights are quantised anew
                fastlstm.save(layer, folder / name, **options)  # type: ignore[arg-type]
        except ImportError:
            continue
        made[name] = (folder / name).read_bytes()
    for name, network in fuzz_networks.networks().items():
        try:
            network.save(folder / name)
        except ImportError:
            continue
        made[name] = (folder / name).read_bytes()
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **plain.state_dict())  # type: ignore[arg-type]
    made["compressed.npz"] = compressed.getvalue()
    made |= fuzz_networks.seeds()
    return made | torch_seeds() | onnx_seeds() | keras_seeds(folder) | audio_seeds()


def onnx_seeds() -> dict[str, bytes]:
    """Cells spelt out, on each other for two steps, and a stack of directions cut apart."""
    try:
        from onnx import helper, numpy_helper
    except ImportError:
        return {}
    I, H, node = 3, 4, helper.make_node

    def model(nodes: list[Any], arrays: dict[str, Any], inputs: str) -> bytes:
        tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
        values = [helper.make_tensor_value_info(name, 1, None) for name in (*inputs, "y")]
        graph = helper.make_graph(nodes, "graph", values[:-1], values[-1:], tensors)
        opsets = [helper.make_opsetid("", 17)]
        made: bytes = helper.make_model(graph, opset_imports=opsets).SerializeToString()
        return made

    floats = {"W_0": (4 * H, I), "W_1": (4 * H, H), "U": (4 * H, H), "b": (4 * H,)}
    arrays: dict[str, Any] = {name: np.ones(shape, np.float32) for name, shape in floats.items()}
    arrays |= {"sizes": [H] * 4, "t_0": 0, "t_1": 1}
    nodes, states = [], [("h", "c"), ("h", "c")]
    for t in "01":
        nodes.append(node("Gather", ["x", f"t_{t}"], [f"x_{t}"], axis=0))
        read = f"x_{t}"
        for k in "01":
            h, c = states[int(k)]
            at = f"_{t}{k}"
            z, i, f, g, o, a, b = (f"{name}{at}" for name in "zifgoab")
            nodes += [
                node("Gemm", [h, "U", "b"], [f"p{at}"], transB=1),
                node("Gemm", [read, f"W_{k}", "b"], [f"q{at}"], transB=1),
                node("Add", [f"p{at}", f"q{at}"], [z]),
                node("Split", [z, "sizes"], [i, f, g, o], axis=1),
                *(node("Sigmoid", [each], [f"s{each}"]) for each in (i, f, o)),
                node("Tanh", [g], [f"s{g}"]),
                node("Mul", [f"s{f}", c], [a]),
                node("Mul", [f"s{i}", f"s{g}"], [b]),
                node("Add", [a, b], [f"c{at}"]),
                node("Tanh", [f"c{at}"], [f"t{at}"]),
                node("Mul", [f"s{o}", f"t{at}"], [f"h{at}"]),
            ]
            states[int(k)] = (f"h{at}", f"c{at}")
            read = f"h{at}"
    nodes.append(node("Identity", [read], ["y"]))
    cells = model(nodes, arrays, "xhc")

    arrays = {"zero": [0], "one": [1], "two": [2]}
    for end, size in (("", I), ("_1", 2 * H)):
        shapes = {"W": (2, 4 * H, size), "R": (2, 4 * H, H)}
        arrays |= {f"{k}{end}": np.ones(shape, np.float32) for k, shape in shapes.items()}
    lstm = {"hidden_size": H, "direction": "bidirectional"}
    nodes = [
        node("LSTM", ["x", "W", "R"], ["Y"], **lstm),
        node("Slice", ["Y", "zero", "one", "one"], ["p"]),
        node("Slice", ["Y", "one", "two", "one"], ["q"]),
        node("Squeeze", ["p", "one"], ["r"]),
        node("Squeeze", ["q", "one"], ["s"]),
        node("Concat", ["r", "s"], ["z"], axis=2),
        node("LSTM", ["z", "W_1", "R_1"], ["y"], **lstm),
    ]
    return {"cells.onnx": cells, "joined.onnx": model(nodes, arrays, "x")}


def keras_seeds(folder: Path) -> dict[str, bytes]:
    """Weights alone, in both layouts, of cells, of two directions and of an old version."""
    try:
        import h5py
    except ImportError:
        return {}
    shapes = ((3, 16), (4, 16), (16,))
    with h5py.File(folder / "cells.h5", "w") as file:
        for number, (name, size) in enumerate((("lstm_cell", 3), ("lstm_cell_1", 4))):
            for k, shape in enumerate(((size, 16), *shapes[1:])):
                file[f"layers/rnn/cell/cells/{name}/vars/{k}"] = np.full(shape, number, "<f4")
    with h5py.File(folder / "old.h5", "w") as file:
        file.attrs["keras_version"] = b"2.1.4"
        file.attrs["layer_names"] = [b"both"]
        group = file.create_group("both")
        kinds = ("kernel:0", "recurrent_kernel:0", "bias:0")
        ways = ("forward", "backward")
        arrays = {f"both/{w}_l/{k}": s for w in ways for k, s in zip(kinds, shapes, strict=True)}
        group.attrs["weight_names"] = [name.encode() for name in arrays]
        for name, shape in arrays.items():
            group[name] = np.ones(shape, "<f4")
    return {name: (folder / name).read_bytes() for name in ("cells.h5", "old.h5")}


def audio_seeds() -> dict[str, bytes]:
    """JSON as RTNeural, NAM and GuitarML have it."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32).tolist()

    nam = {
        "version": "0.5.4",
        "metadata": {"name": "amp", "loudness": -18.5},
        "architecture": "LSTM",
        "config": {"input_size": 1, "hidden_size": 2, "num_layers": 2},
        "weights": numbers(8 * 3 + 12 + 8 * 4 + 12 + 3),
        "sample_rate": 48000,
    }
    submodels = [{"max_value": 0.5, "model": nam}, {"model": {**nam, "architecture": "WaveNet"}}]
    container = {"architecture": "SlimmableContainer", "config": {"submodels": submodels}}
    shape = [None, None, 2]
    lstm = {"type": "lstm", "activation": "tanh", "shape": shape}
    layers = [
        {**lstm, "weights": [numbers(1, 8), numbers(2, 8), numbers(8)]},
        {"type": "unknown", "activation": "", "shape": shape, "weights": []},
        {**lstm, "weights": [numbers(2, 8), numbers(2, 8), numbers(8)]},
        {"type": "dense", "activation": "", "shape": [1], "weights": [numbers(2, 1), numbers(1)]},
        {"type": "gru", "activation": "", "shape": [1], "weights": []},
    ]
    parameters = {
        "rec.weight_ih_l0": numbers(8, 1),
        "rec.weight_hh_l0": numbers(8, 2),
        "rec.bias_ih_l0": numbers(8),
        "rec.bias_hh_l0": numbers(8),
        "lin.weight": numbers(1, 2),
        "lin.bias": numbers(1),
    }
    documents = {
        "amp.nam": nam,
        "container.nam": {"version": "0.7.0", **container},
        "layers.json": {"in_shape": [None, None, 1], "in_gain": 3.0, "layers": layers},
        "parameters.json": {
            "model_data": {"model": "SimpleRNN", "skip": 0},
            "state_dict": parameters,
        },
    }
    return {name: json.dumps(document).encode() for name, document in documents.items()}


def torch_seeds() -> dict[str, bytes]:
    """State dicts and checkpoints in all formats that PyTorch has, and weights in parts."""
    try:
        import torch
        import torch.nn.utils.prune
    except ImportError:
        return {}

    def written(save: Callable[..., None], *arguments: Any, **options: Any) -> bytes:
        stream = io.BytesIO()
        save(*arguments, stream, **options)
        return stream.getvalue()

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(3, 4), "weight_hh_l0")
    normed = torch.nn.utils.parametrizations.spectral_norm(normed, "weight_ih_l0")
    pruned = torch.nn.utils.prune.l1_unstructured(torch.nn.LSTM(3, 4), "weight_hh_l0", 0.3)
    state = {"state_dict": lstm.state_dict(), "epoch": 3, "best": 0.5, "names": ["a", None, True]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(torch.nn.ModuleList([torch.nn.LSTM(3, 4)]))
        how = torch.ao.quantization.per_channel_dynamic_qconfig
        packed = torch.ao.quantization.quantize_dynamic(
            torch.nn.ModuleList([torch.nn.LSTM(3, 4, bidirectional=True), torch.nn.LSTMCell(3, 4)]),
            {torch.nn.LSTM: how, torch.nn.LSTMCell: torch.ao.quantization.default_dynamic_qconfig},
        )
    objects = {
        "state_dict": torch.nn.LSTM(3, 4).state_dict(),
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")),
        "path": Path("a"),
        "log": collections.defaultdict(list, loss=[np.float64(0.5)]),
        ("key", 1): {2.5: datetime.datetime(2020, 1, 1), Path("b"): {1, 2}},
        "random": (random.getstate(), np.random.RandomState(0).get_state(), torch.Generator()),
        "array": np.asfortranarray(np.ones((2, 3), np.float16)),
        "class": torch.optim.Adam,
        "module": torch.nn.LSTM(2, 3),
    }
    arrays = {k: v.numpy() for k, v in lstm.state_dict().items()}
    container = io.BytesIO()
    with zipfile.ZipFile(container, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", written(torch.save, lstm.state_dict()))
        archive.writestr("variables.pth", written(torch.save, None))
    return {
        "objects.pt": written(torch.save, objects),
        "objects-legacy.pt": written(torch.save, objects, _use_new_zipfile_serialization=False),
        "objects-1.pt": written(torch.save, objects, pickle_protocol=1),
        "objects-5.pt": written(torch.save, objects, pickle_protocol=5),
        "arrays.pt": pickle.dumps(arrays, 2),
        "arrays-5.pt": pickle.dumps(arrays, 5),
        "tensors.pt": pickle.dumps(lstm.state_dict()),
        "normed.pt": written(torch.save, normed.state_dict()),
        "pruned.pt": written(torch.save, pruned.state_dict()),
        "container.pt": container.getvalue(),
        "checkpoint.pt": written(torch.save, state),
        "legacy.pt": written(torch.save, state, _use_new_zipfile_serialization=False),
        "script.pt": written(torch.jit.save, script),
        "packed.pt": written(torch.save, packed.state_dict()),
        "packed-legacy.pt": written(
            torch.save, packed.state_dict(), _use_new_zipfile_serialization=False
        ),
    }


def mutate(data: bytes, rng: Random, name: str = "") -> bytes:
    """Damage bytes a few times; of a zip often a member, with sound checksums around it."""
    if name in ("scaled.npz", "heads.npz") and rng.random() < 0.5:
        return _mutate_network(data, rng)
    if zipfile.is_zipfile(io.BytesIO(data)) and rng.random() < 0.7:
        return _mutate_member(data, rng)
    if name.endswith(".safetensors") and rng.random() < 0.7:
        length = int.from_bytes(data[:8], "little")
        header = _mutate_bytes(data[8 : 8 + length], rng)
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    if name.endswith((".json", ".nam")) and rng.random() < 0.7:
        return _mutate_json(data, rng)
    return _mutate_bytes(data, rng)


def _mutate_network(data: bytes, rng: Random) -> bytes:
    """Damage what a file says of its network, or drop an array, as JSON and zip allow."""
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file}
    if rng.random() < 0.2:
        del arrays[list(arrays)[rng.integers(len(arrays))]]
    if (text := arrays.get(networks_in_files.KEY)) is not None:
        damaged = _mutate_json(text.tobytes(), rng)
        arrays[networks_in_files.KEY] = np.frombuffer(damaged, np.uint8)
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


#: What may stand in the place of anything in JSON, as text.
ODD = ["null", "true", "0", "-1", "1e999", "NaN", "-Infinity", "9" * 5000, "0.5", '"tanh"', '""',
       "[]", "{}", "[[]]", "[1, [2]]", "[" * 3000, '{"a": 1, "a": 2}', "1e39", "2147483648",
       "9223372036854775808", "1000000", '"\\ud800"', '"LSTM"', "[null, 2]"]  # fmt: skip


def _mutate_json(data: bytes, rng: Random) -> bytes:
    """Replace values by odd ones, or drop them, at places drawn by their depth."""
    document = json.loads(data)
    planted = {}
    for number in range(1 + rng.geometric(0.5)):
        node = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(node[key], dict | list) and rng.random() < 0.7:
                node = node[key]
                continue
            if rng.random() < 0.2:
                del node[key]
            elif rng.random() < 0.2 and isinstance(node, list):
                node.append(node[key])
            else:
                node[key] = f"planted {number}"
                planted[f'"planted {number}"'] = ODD[rng.integers(len(ODD))]
            break
    text = json.dumps(document)
    for mark, odd in planted.items():
        text = text.replace(mark, odd)
    return text.encode()


def _mutate_member(data: bytes, rng: Random) -> bytes:
    """Write the archive again, with a member damaged, gone, twice as long or of another name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        names = old.namelist()
        chosen = names[rng.integers(len(names))]
        kind = rng.choice(["bytes", "bytes", "bytes", "gone", "renamed", "compressed"])
        for member in names:
            content, target = old.read(member), member
            if member == chosen:
                if kind == "gone":
                    continue
                if kind == "renamed":
                    target = _mutate_bytes(member.encode(), rng).decode("latin-1") or "x"
                if kind == "bytes":
                    content = mutate(content, rng, member)  # a zip in a zip too
            method = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name that is there already is one more damage
                new.writestr(zipfile.ZipInfo(target.replace("\0", "?")), content, method)
    return stream.getvalue()


def _mutate_bytes(data: bytes, rng: Random) -> bytes:
    """Flip, replace, insert, delete, repeat, cut, or plant a number."""
    changed = bytearray(data)
    for _ in range(1 + rng.geometric(0.5)):
        size = len(changed)
        at = int(rng.integers(size + 1))
        span = int(min(rng.geometric(0.1), size - at))
        match rng.integers(8):
            case 0 if at < size:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1 if at < size:
                changed[at] = int(rng.integers(256))
            case 2:
                changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                del changed[at : at + span]
            case 4:
                changed[at:at] = changed[at : at + span] * int(rng.integers(1, 4))
            case 5 if rng.random() < 0.3:
                del changed[at:]
            case 6:
                width = int(rng.choice([1, 2, 4, 8]))
                edge = EDGES[rng.integers(len(EDGES))] % 2 ** (8 * width)
                changed[at : at + width] = edge.to_bytes(width, "little")
            case 7:
                other = int(rng.integers(size + 1))
                changed[at : at + span] = changed[other : other + span]
    return bytes(changed)


def outcome(path: Path) -> str:
    """Read a file and build what is in it; tell what came of it. Raises what must not be raised."""
    try:
        contents = weights.read(path)
    except ValueError as error:
        fuzz_networks.check_begins_with_file(error, path)
        return "refused"
    built = 0
    for found in contents.layers:
        for each in (found, *found.parts):
            assert str(each)
            try:
                each.build()
            except ValueError:
                continue
            built += 1
    fuzz_networks.load(path)
    return "loaded" if built else "no LSTM"


def limit_memory() -> None:
    """Make MemoryError of what would take more than `MEMORY`."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def fuzz(
    files: dict[str, bytes], rounds: int | None, seconds: float, seed: int, keep: Path
) -> tuple[Counter[tuple[str, str]], int]:
    """Run rounds over all files until either limit; return outcomes by file, and findings."""
    rng = np.random.default_rng(seed)
    outcomes: Counter[tuple[str, str]] = Counter()
    findings = done = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and (rounds is None or done < rounds):
        done += 1
        for name, data in files.items():
            path = keep / f"now-{name}"
            # Kept until the next one is written: a crash leaves behind what caused it.
            path.write_bytes(mutate(data, rng, name))
            signal.alarm(HDF5_SECONDS if name.endswith((".keras", ".h5")) else SECONDS)
            try:
                outcomes[name, outcome(path)] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                findings += 1
                kept = keep / f"finding-{seed}-{findings}-{name}"
                path.replace(kept)
                print(f"{kept}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            finally:
                signal.alarm(0)
    return outcomes, findings


def too_slow(*_: object) -> None:
    """Raise from the alarm."""
    raise TimeoutError("not done in time")


def main() -> int:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose names hold this")
    parser.add_argument("--keep", type=Path, help="folder for findings")
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="fuzz"))
    keep.mkdir(exist_ok=True)
    files = {name: data for name, data in seeds(keep).items() if options.only in name}
    for (
        name,
        data,
    ) in files.items():  # what they are made of must be sound, and their modules loaded
        (keep / name).write_bytes(data)
        assert outcome(keep / name) == "loaded", name
    signal.signal(signal.SIGALRM, too_slow)
    limit_memory()
    outcomes, findings = fuzz(files, options.rounds, options.seconds, options.seed, keep)
    for name in files:
        by_outcome = {what: count for (file, what), count in outcomes.items() if file == name}
        print(f"{name}: {sum(by_outcome.values())} inputs, {by_outcome}")
    print(f"{sum(outcomes.values())} inputs, {findings} findings, in {keep}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
