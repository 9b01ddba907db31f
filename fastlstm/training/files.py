"""Networks in files: what `Network.save` writes, and `Network.load` reads."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import as_real_array, shown
from fastlstm._spec import as_spec
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.embedding import Embedding
from fastlstm.training.heads import HeadSpec
from fastlstm.training.layout import feature_count, names_of_head
from fastlstm.training.losses import LossName, OwnLoss
from fastlstm.training.scaling import Scaling
from fastlstm.weights import AssumptionWarning, Head, read, write
from fastlstm.weights.contents import Found, Trained
from fastlstm.weights.networks import Described

if TYPE_CHECKING:
    from fastlstm.training.network import Network

Made = TypeVar("Made", bound="Network")

_HEAD = ("head.weight", "head.bias")
_SCALING = ("x_mean", "x_scale", "y_mean", "y_scale")


class UnknownLoss:
    """In place of a loss of one's own, of which a file holds the name alone."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, z: Any, y: Any) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        """Raise a RuntimeError: it can't be computed."""
        raise RuntimeError(
            f"loss: the file names the function {self.__name__!r}, which only a program has: "
            "Network.load(path, loss=function) trains on"
        )


def save_network(network: Network, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a network; see `Network.save`."""
    write(lambda: _trained(network), path, overwrite=overwrite)


def _trained(network: Network) -> Trained:
    """Return what a file holds of a network."""
    layer: LSTM | BiLSTM = network.lstm
    if not network.each_step and network.pooling == "last":
        layer = _remade(layer, layer.isa, return_sequences=False)
    arrays = {n: a for n, a in network.state_dict().items() if n not in network.lstm.state_dict()}
    if network.scaling is not None:
        for name in _SCALING:
            value = getattr(network.scaling, name)
            arrays[f"scaling.{name}"] = np.atleast_1d(np.asarray(value, np.float64))
    is_plain = network.is_linear and network.scaling is None
    head = Head(*(arrays.pop(name) for name in _HEAD)) if is_plain else None
    described = Described(_options(network), arrays, is_plain)
    return Trained.checked(layer, head, network=described)


def _options(network: Network) -> dict[str, Any]:
    """Return what a file says of a network, as JSON has it."""
    options: dict[str, Any] = {"each_step": network.each_step}
    heads = {name: _as_json(spec) for name, spec in network.heads.items()}
    options |= {"head": heads[""]} if "" in heads else {"heads": heads}
    if network.pooling != "last":
        options["pooling"] = network.pooling
    if (table := network.embedding) is not None:
        options["embedding"] = {
            "num_embeddings": table.num_embeddings,
            "embedding_dim": table.embedding_dim,
            "padding_idx": table.padding_idx,
            **({"masked": True} if table.masked else {}),
        }
    if network.features is not None:
        options["features"] = network.features
    if network.metadata:
        options["metadata"] = network.metadata
    return options


def _as_json(spec: HeadSpec) -> dict[str, Any]:
    options = spec.options
    options.pop("check", None)  # of training, not of what was trained
    options.setdefault("loss", "mse")
    if callable(spec.loss):
        options["loss"] = {"function": options["loss"]}
    return options


def load_network(
    made: type[Made],
    path: str | os.PathLike[str],
    name: str | None,
    *,
    loss: LossName | OwnLoss | None,
    isa: str | None,
) -> Made:
    """Read a network; see `Network.load`."""
    found = read(path).choose(name)
    try:
        network = _built(made, found, loss, isa)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    if found.network is None and loss is None:
        warnings.warn(
            f"{os.fspath(path)}: does not say what the loss is: assumed is 'mse', of a regression; "
            "loss= says so",
            AssumptionWarning,
            stacklevel=3,
        )
    return network


def _built(
    made: type[Made], found: Found, loss: LossName | OwnLoss | None, isa: str | None
) -> Made:
    layer = found.build(isa=isa)
    each_step = layer.return_sequences
    layer = with_all_steps(layer, isa)
    described = found.network
    if described is None:
        if found.head is None:
            raise ValueError("holds no linear layer on top of the LSTM, expected a network")
        described = Described({"each_step": each_step, "head": {"loss": loss or "mse"}}, {}, True)
    arrays = dict(described.arrays)
    if found.head is not None:
        arrays |= zip(_HEAD, (found.head.weight, found.head.bias), strict=True)
    options = _checked_options(described.options)
    heads = {n: _as_spec(each, arrays, n, loss) for n, each in options.pop("heads").items()}
    if options["each_step"] != each_step and options.get("pooling", "last") == "last":
        raise ValueError(f"each_step is {options['each_step']}, the layer has {each_step}")
    scaling = _scaling_of(arrays)
    if found.head is not None:
        described = Described(described.options, arrays, True)
    if "" in heads:
        spec = heads[""]
        given = {n: getattr(spec, n) for n in ("outputs", "loss", "quantiles", "class_weights")}
        given |= {"classes": spec.classes, "targets": spec.targets, "hidden": spec.hidden}
    else:
        given = {"heads": heads}
    expected = {}
    if "embedding" in options:
        options["embedding"] = table = Embedding(**options["embedding"])
        expected["embedding.weight"] = table.shape
    for head, spec in heads.items():
        shapes = spec.shapes(feature_count(layer))
        for each, shape in zip(names_of_head(head, len(shapes)), shapes, strict=True):
            expected[f"{each}.weight"] = shape
    for head, shape in expected.items():  # before memory is taken for them
        if head not in arrays:
            raise ValueError(f"arrays: missing or unexpected {head}")
        if arrays[head].shape != shape:
            raise ValueError(f"{head}: got shape {arrays[head].shape}, expected {shape}")
    network = made(layer, **given, **options, seed=0)
    network.scaling = scaling
    views = {name: array for name, array in arrays.items() if not name.startswith("scaling.")}
    network._load_parts(views)
    return network


def with_all_steps(layer: LSTM | BiLSTM, isa: str | None) -> LSTM | BiLSTM:
    """Return a layer that gives all its outputs, made of one that may give the last alone."""
    return layer if layer.return_sequences else _remade(layer, isa, return_sequences=True)


def _remade(layer: LSTM | BiLSTM, isa: str | None, **changes: Any) -> LSTM | BiLSTM:
    """Return a layer with other options, and the same parameters or digits."""
    # Not its own class, which may be one of the user's with other arguments.
    kind = BiLSTM if layer.num_directions == 2 else LSTM
    options = {**layer.options, **changes}
    if layer._quantized is not None:
        return kind._from_quantized(as_spec(kind.num_directions, **options), layer._quantized, isa)
    made = kind(**options, isa=isa)
    made.load_parameters(layer.parameters)
    return made


_KEYS = {"each_step", "head", "heads", "pooling", "embedding", "features", "metadata"}


def _checked_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a file, with its head or heads by name; ValueError if unknown."""
    options = dict(given)
    if wrong := sorted(options.keys() - _KEYS):
        raise ValueError(f"the network has {shown(wrong)}, which nothing is known of")
    if ("head" in options) == ("heads" in options) or "each_step" not in options:
        raise ValueError("the network needs each_step, and one of head and heads")
    heads = {"": options.pop("head")} if "head" in options else options["heads"]
    if not isinstance(heads, dict) or not all(isinstance(each, dict) for each in heads.values()):
        raise ValueError(f"heads: got {shown(heads)}, expected mappings")
    if not isinstance(options.get("embedding", {}), dict):
        raise ValueError(f"embedding: got {shown(options['embedding'])}, expected a mapping")
    return {**options, "heads": heads}


def _as_spec(
    options: dict[str, Any], arrays: dict[str, Any], name: str, loss: LossName | OwnLoss | None
) -> HeadSpec:
    """Return what a head answers, of what a file says."""
    bias = arrays[f"heads.{name}.bias" if name else "head.bias"]
    given = options.get("loss", "mse")
    if isinstance(given, dict):
        given = UnknownLoss(str(given["function"])) if loss is None else loss
    if "outputs" not in options and "quantiles" not in options:
        options = {**options, "outputs": len(bias)}
    return HeadSpec(**{**options, "loss": given})


def _scaling_of(arrays: dict[str, Any]) -> Scaling | None:
    """Return the scaling of a file, or None."""
    names = [f"scaling.{name}" for name in _SCALING]
    there = [name for name in names if name in arrays]
    if not there:
        return None
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{', '.join(missing)} missing beside {there[0]}")
    x_mean, x_scale, y_mean, y_scale = (
        as_real_array(name, arrays[name], np.dtype(np.float64)).astype(np.float64) for name in names
    )
    if y_scale.shape not in ((1,), y_mean.shape):
        raise ValueError(f"scaling.y_scale: got shape {y_scale.shape}, expected (1,)")
    one = y_scale.shape == (1,)
    return Scaling(x_mean, x_scale, y_mean, float(y_scale[0]) if one else y_scale)
