"""Layers of classes that users derive: saved as what they are, copied with all that they hold."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.training import Network
from fastlstm.weights import read
from support.arrays import assert_same_bits
from support.optional import require


class Tagged(LSTM):
    """With an attribute, in a dictionary of its own."""

    def __init__(self, *args: Any, tag: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.tag = tag


class Slotted(BiLSTM):
    """With an attribute, and no other."""

    __slots__ = ("tag",)

    def __init__(self, *args: Any, tag: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.tag = tag


DERIVED = pytest.mark.parametrize(("derived", "base"), [(Tagged, LSTM), (Slotted, BiLSTM)])

PACKAGES = {
    ".npz": (),
    ".safetensors": ("safetensors",),
    ".pt": ("torch",),
    ".onnx": ("onnx",),
    ".keras": ("h5py",),
}


@DERIVED
@pytest.mark.parametrize("suffix", PACKAGES)
def test_a_file_holds_the_layer(suffix: str, derived: Any, base: type, tmp_path: Path) -> None:
    for package in PACKAGES[suffix]:
        require(package)
    layer = derived(3, 5, batch_first=True, tag="mine", seed=0)
    path = tmp_path / f"model{suffix}"
    fastlstm.save(layer, path)
    loaded = fastlstm.load(path)
    assert type(loaded) is base
    assert loaded.options == layer.options
    x = np.ones((2, 4, 3), np.float32)
    assert_same_bits(loaded(x)[0], layer(x)[0])


@DERIVED
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_a_copy_has_the_attributes(copied: Any, derived: Any, base: type) -> None:
    layer = derived(3, 5, tag="mine", seed=0)
    other = copied(layer)
    assert type(other) is derived
    assert other.tag == "mine"
    assert other.options == layer.options
    assert_same_bits(other.parameters, layer.parameters)


@pytest.mark.parametrize("each_step", [True, False])
def test_a_network_saves_a_layer_of_a_class_with_other_arguments(
    each_step: bool, tmp_path: Path
) -> None:
    class Fixed(LSTM):
        def __init__(self) -> None:
            super().__init__(3, 5, seed=0)

    network = Network(Fixed(), 2, each_step=each_step, seed=0)
    network.save(tmp_path / "model.npz")
    found = read(tmp_path / "model.npz").choose()
    assert found.option("return_sequences") is each_step
    assert found.head is not None
    assert_same_bits(found.build().parameters, network.lstm.parameters)


def test_attributes_that_a_class_does_not_name_are_refused() -> None:
    layer: Any = Slotted(3, 5)
    with pytest.raises(AttributeError, match="hiden_size"):
        layer.hiden_size = 3
