"""Checkpoints of PyTorch with other Python objects in them.

What hostile files do with objects: test_weights_pickles.py.
"""

from __future__ import annotations

import argparse
import collections
import copyreg
import dataclasses
import datetime
import enum
import fractions
import functools
import pathlib
import random
import sys
import types
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm.weights import pytorch
from support.optional import require
from support.pickled_models import assert_loads, lstm, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*TypedStorage", "ignore:.*weight_norm")


class Stage(enum.Enum):
    """An enumeration of a module that a reader may not have."""

    TRAIN = "train"


class Level(enum.IntFlag):
    """Of numbers."""

    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class TrainerState:
    """As of Hugging Face's trainer."""

    epoch: float = 1.5
    log_history: list[dict[str, float]] = dataclasses.field(default_factory=lambda: [{"loss": 0.5}])


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    """With a state of a tuple."""

    lr: float = 0.1


class AttributeDict(dict):  # type: ignore[type-arg]
    """A dict with a class of its own, as Lightning and others keep hyperparameters in."""


class Points(list):  # type: ignore[type-arg]
    """A list with a class of its own."""


class Reduced:
    """What is called is itself the result of a call."""

    def __reduce__(self) -> Any:
        return functools.partial(functools.partial, dict), (), None, None, iter([("a", 1)])


class Exact:
    """Made with keywords."""

    def __getnewargs_ex__(self) -> Any:
        return (1,), {"a": 2}

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls)


class Node:
    """That holds itself."""

    def __init__(self) -> None:
        self.me = self
        self.children = [self, {"parent": self}]


def recursive_list() -> list[Any]:
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    return ring


def config(package: str, name: str, **state: Any) -> Any:
    """An instance of a class of a package that is not installed, such as OmegaConf's."""
    module = types.ModuleType(package)
    kind = type(name, (), {"__module__": package})
    setattr(module, name, kind)
    for count in range(package.count(".")):
        parent = package.rsplit(".", count + 1)[0]
        sys.modules.setdefault(parent, types.ModuleType(parent))
    sys.modules.setdefault(package, module)
    made = getattr(sys.modules[package], name)()
    made.__dict__.update(state)
    return made


def torch_generator() -> Any:
    return require("torch").Generator().manual_seed(3)


#: What stands beside good weights, and what a list of what was passed over says of it; None for
#: what is plain data, or an array.
OBJECTS: dict[str, tuple[Any, str | None]] = {
    "namespace": (lambda: argparse.Namespace(lr=0.1, deep=argparse.Namespace(a=[1])), "Namespace"),
    "simple namespace": (lambda: types.SimpleNamespace(a=1), "SimpleNamespace"),
    "path": (lambda: pathlib.PurePosixPath("runs/1"), "PurePosixPath"),
    "system's path": (lambda: Path("runs/1"), "Path"),
    "datetime": (lambda: datetime.datetime(2020, 1, 2, 3, 4), "datetime.datetime"),
    "date": (lambda: datetime.date(2020, 1, 2), "datetime.date"),
    "timedelta": (lambda: datetime.timedelta(1), "datetime.timedelta"),
    "timezone": (lambda: datetime.UTC, "datetime.timezone"),
    "decimal": (lambda: Decimal("0.1"), "Decimal"),
    "fraction": (lambda: fractions.Fraction(1, 3), "Fraction"),
    "enum": (lambda: Stage.TRAIN, "Stage"),
    "flag": (lambda: Level.LOW | Level.HIGH, ""),
    "dataclass": (TrainerState, "TrainerState"),
    "dataclass with slots": (Slotted, "Slotted"),
    "default dict": (lambda: collections.defaultdict(list, a=[1]), None),
    "default dict of a lambda's kin": (lambda: collections.defaultdict(Stage, {1: 2}), None),
    "ordered dict": (lambda: collections.OrderedDict(a=1), None),
    "counter": (lambda: collections.Counter("abca"), None),
    "deque": (lambda: collections.deque([1, 2], maxlen=3), "deque"),
    "dict with a class": (lambda: AttributeDict(lr=0.1, layers=[1, 2]), "AttributeDict"),
    "list with a class": (lambda: Points([1, 2]), "Points"),
    "set": (lambda: {1, "a"}, None),
    "frozenset": (lambda: frozenset([1, (2, 3)]), None),
    "set of objects": (lambda: {Stage.TRAIN}, "Stage"),
    "complex": (lambda: 1 + 2j, None),
    "bytes": (lambda: b"\0\xff" * 5, None),
    "no bytes": (lambda: b"", None),
    "bytearray": (lambda: bytearray(b"\0\xff"), None),
    "large integer": (lambda: 2**3000, None),
    "range": (lambda: range(3), "range"),
    "slice": (lambda: slice(1, 2), "slice"),
    "ellipsis": (lambda: ..., "Ellipsis"),
    "class": (lambda: collections.UserDict, "UserDict"),
    "class of PyTorch": (lambda: require("torch").optim.Adam, "Adam"),
    "function": (lambda: require("torch").nn.functional.relu, "relu"),
    "method of a class": (lambda: Stage.mro, ""),
    "built-in function": (lambda: len, "len"),
    "partial": (lambda: functools.partial(int, base=2), "partial"),
    "exception": (lambda: ValueError("a"), "ValueError"),
    "module of PyTorch": (lambda: require("torch").nn.MSELoss(), "MSELoss"),
    "optimiser": (
        lambda: require("torch").optim.Adam(
            [require("torch").nn.Parameter(require("torch").ones(2))]
        ),
        "Adam",
    ),
    "device": (lambda: require("torch").device("cuda:0"), None),
    "dtype": (lambda: require("torch").bfloat16, None),
    "size": (lambda: require("torch").Size([1, 2]), None),
    "layout": (lambda: require("torch").strided, None),
    "generator": (torch_generator, "Generator"),
    "random state of PyTorch": (lambda: require("torch").get_rng_state(), None),
    "random state of Python": (random.getstate, None),
    "random state of NumPy": (np.random.get_state, None),
    "generator of NumPy": (lambda: np.random.default_rng(0), ""),
    "old generator of NumPy": (lambda: np.random.RandomState(0), ""),
    "config": (
        lambda: config("omegaconf.dictconfig", "DictConfig", _content={"lr": 0.1}, _parent=None),
        "omegaconf.dictconfig.DictConfig",
    ),
    "reduced": (Reduced, ""),
    "keywords": (Exact, ""),
    "node": (Node, "Node"),
    "list in itself": (recursive_list, None),
    "array of objects": (lambda: np.array([{"a": 1}, None], dtype=object), "an array of objects"),
    "array of records": (lambda: np.zeros(2, [("a", "f4")]), None),
    "array of texts": (lambda: np.array(["a", "bc"]), None),
    "array of dates": (lambda: np.array(["2020"], "datetime64[D]"), None),
    "masked array": (lambda: np.ma.array([1.0, 2.0], mask=[0, 1]), "numpy.ma.core"),
    "texts of NumPy 2": (lambda: np.array(["a"], np.dtypes.StringDType()), None),
    "dtype of NumPy": (lambda: np.dtype("f4"), None),
    "type of NumPy": (lambda: np.float32, "float32"),
}


@pytest.fixture(autouse=True)
def as_python_pickles_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask, where another test imported it, has them pickled by a function of tblib's."""
    monkeypatch.delitem(copyreg.dispatch_table, ValueError, raising=False)


@pytest.mark.slow(protocol=1)
@pytest.mark.slow(protocol=3)
@pytest.mark.slow(protocol=4)
@pytest.mark.parametrize("what", OBJECTS)
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_objects_are_passed_over(tmp_path: Path, what: str, protocol: int) -> None:
    make, named = OBJECTS[what]
    module, value = lstm(), make()
    content = {"before": value, "model": module.state_dict(), "after": [value, value]}
    for legacy in (False, True):
        path = saved(tmp_path / "m.pt", content, legacy, protocol)
        contents = pytorch.read(path)
        assert [found.name for found in contents.layers] == ["model"]
        assert not contents.refused
        assert_loads(path, module)
        passed = {each.name: each.what for each in contents.others if "passed over" in each.what}
        notes = [note for note in contents.layers[0].notes if "passed over" in note]
        if named is None:
            assert not passed
            assert not notes
        else:
            first = next(iter(passed))
            assert first.startswith("before")
            assert named in passed[first]
            assert named in notes[0]


@pytest.mark.parametrize("what", OBJECTS)
def test_objects_as_keys(tmp_path: Path, what: str) -> None:
    value = OBJECTS[what][0]()
    try:
        hash(value)
    except TypeError:
        return
    module = lstm()
    content = {"callbacks": {value: {"best": 1}}, "model": module.state_dict()}
    assert_loads(saved(tmp_path / "m.pt", content), module)


def test_weights_under_unusual_keys_have_names(tmp_path: Path) -> None:
    module = lstm()
    content = {("a", 1): module.state_dict(), 0.5: {"x": np.ones(2)}, Stage.TRAIN: np.ones(1)}
    contents = pytorch.read(saved(tmp_path / "m.pt", content))
    assert contents.choose().name == "<a, 1>"
    names = [each.name for each in contents.others]
    assert names[0] == "<0.5>.x"
    assert "Stage" in names[1]
    assert_loads(tmp_path / "m.pt", module)


def test_nothing_is_imported(tmp_path: Path) -> None:
    """Not even the module that a class is of."""
    (tmp_path / "trap_of_objects.py").write_text("raise SystemExit('imported')\n")
    made = config("trap_of_objects", "Config", a=1)
    path = saved(tmp_path / "m.pt", {"config": made, "model": lstm().state_dict()})
    del sys.modules["trap_of_objects"]
    sys.path.insert(0, str(tmp_path))
    try:
        assert pytorch.read(path).layers
    finally:
        sys.path.remove(str(tmp_path))
    assert "trap_of_objects" not in sys.modules


# LSTMs inside objects


class Holder:
    """An object that holds weights."""

    def __init__(self, held: Any) -> None:
        self.held = held


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (lambda m: Holder(m.state_dict()), "beside.held", "Holder"),
        (lambda m: argparse.Namespace(ema=[m.state_dict()]), "beside.ema.0", "Namespace"),
        (lambda m: AttributeDict(rnn=m.state_dict()), "beside.rnn", "AttributeDict"),
        (lambda m: np.array([m.state_dict()], object), "beside.0", "array of objects"),
        (lambda m: m, "beside", "torch.nn.modules.rnn.LSTM"),
        (lambda m: require("torch").nn.Sequential(m), "beside.0", "Sequential"),
        (
            lambda m: require("torch").nn.utils.parametrizations.weight_norm(m, "weight_hh_l0"),
            None,
            None,
        ),
    ],
)
def test_lstms_inside_objects_are_refused(
    tmp_path: Path, make: Any, name: str | None, kind: str | None, legacy: bool
) -> None:
    value = make(lstm())
    if kind is None:  # PyTorch itself refuses to pickle such a module
        with pytest.raises(RuntimeError):
            saved(tmp_path / "m.pt", value)
        return
    module = lstm()
    path = saved(tmp_path / "m.pt", {"model": module.state_dict(), "beside": value}, legacy)
    contents = pytorch.read(path)
    (refused,) = contents.refused
    assert refused.name == name
    assert refused.kind == "PyTorch LSTM"
    assert f"inside the Python object beside ({'an ' * (kind[0] == 'a')}" in refused.reason
    assert kind in refused.reason
    assert "save the state_dict() alone" in refused.reason
    assert_loads(path, module, "model")
    with pytest.raises(ValueError, match="inside the Python object beside"):
        fastlstm.load(path, name)
    saved(tmp_path / "alone.pt", {"beside": value}, legacy)
    with pytest.raises(ValueError, match=r"holds no LSTM that can be run: .*inside the Python"):
        fastlstm.load(tmp_path / "alone.pt")


def test_other_tensors_inside_objects_are_passed_over(tmp_path: Path) -> None:
    torch = require("torch")
    module = lstm()
    content = {
        "model": module.state_dict(),
        "net": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GRU(2, 2)),
        "optimiser": torch.optim.Adam(module.parameters()),
    }
    contents = pytorch.read(saved(tmp_path / "m.pt", content))
    assert not contents.refused
    assert_loads(tmp_path / "m.pt", module)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_with_attributes(tmp_path: Path, legacy: bool) -> None:
    torch = require("torch")
    module = lstm()
    state = dict(module.state_dict())
    state["weight_hh_l0"] = state["weight_hh_l0"].clone()
    state["weight_hh_l0"].origin = "here"
    parameter = torch.nn.Parameter(state["weight_ih_l0"])
    parameter.tag = Stage.TRAIN
    state["weight_ih_l0"] = parameter
    assert_loads(saved(tmp_path / "m.pt", state, legacy), module)


def test_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    module = lstm()
    torch = require("torch")
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2, 3))[0].sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 1,
        "pytorch-lightning_version": "1.0.0",
        "state_dict": {f"rnn.{k}": v for k, v in module.state_dict().items()},
        "callbacks": {Stage: {"best_model_path": Path("a"), "best_model_score": torch.ones(())}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"_last_lr": [np.float64(0.1)], "lr_lambdas": [None, {}]}],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(hidden=5, loss=torch.nn.MSELoss()),
        "loops": {"state": Holder(1)},
    }
    path = saved(tmp_path / "m.ckpt", checkpoint)
    assert_loads(path, module, "state_dict.rnn")
    assert_loads(path, module)


def test_what_was_passed_over_is_inspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastlstm.cli import main

    path = saved(tmp_path / "m.pt", {"args": argparse.Namespace(a=1), "m": lstm().state_dict()})
    main(["inspect", str(path)])
    out = capsys.readouterr().out
    assert "args: argparse.Namespace, passed over" in out
    assert "note: Python objects in the file were passed over: argparse.Namespace" in out


def test_thousands_of_objects_are_counted(tmp_path: Path) -> None:
    content = {"log": [Holder(n) for n in range(3000)], "m": lstm().state_dict()}
    contents = pytorch.read(saved(tmp_path / "m.pt", content))
    assert len(contents.others) == 1001
    assert "2000 more" in contents.others[-1].what
    assert len(contents.choose().notes[-1]) < 200
