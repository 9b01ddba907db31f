"""Networks out of other frameworks' files: `load_network`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm._arguments import as_flag, shown
from fastlstm.training.embedding import Embedding
from fastlstm.training.files import with_all_steps
from fastlstm.training.heads import ClassName
from fastlstm.training.losses import LossName, OwnLoss
from fastlstm.training.network import Network
from fastlstm.training.pooling import POOLINGS, Pooling
from fastlstm.weights import AssumptionWarning, existing
from fastlstm.weights.models import ACTIVATIONS, Linear, Model, Told
from fastlstm.weights.uneven import Joined, joined

#: The losses whose answers are what a file computes of the last linear layer's numbers.
_LOSSES: dict[str, LossName] = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}

_UNSAID = "does not say what the loss is: assumed is {}; loss= says so"


def load_network(
    path: str | os.PathLike[str],
    *,
    prefix: str | None = None,
    embedding: str | None = None,
    lstm: str | Iterable[str] | None = None,
    linear: str | Iterable[str] | None = None,
    activation: str | Iterable[str] | None = None,
    pooling: Pooling | None = None,
    each_step: bool | None = None,
    ignore: str | Iterable[str] = (),
    padding_idx: int | None = None,
    loss: LossName | OwnLoss | None = None,
    classes: Iterable[ClassName] | None = None,
    targets: Iterable[str] | None = None,
    features: Iterable[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: npt.DTypeLike | None = None,
    batch_first: bool | None = None,
    dequantize: bool = False,
    isa: str | None = None,
) -> Network:
    """Load a whole network: an embedding, LSTMs on each other, linear layers.

    Parameters
    ----------
    path : str or path
        A state dict of PyTorch (``.pt``, ``.safetensors``, TorchScript, ``.npz``), a model of Keras
        with its configuration (``.keras``, ``.h5``), an ONNX graph, or what `Network.load` reads.
    prefix : str, optional
        Of a file of arrays: which of them count, as "model" of a checkpoint that has its state dict
        under that name. Other names need not have it.
    embedding : str, optional
        Name of the embedding in a file of arrays; without it one whose vectors the LSTM reads is
        found, where there is one way to find it.
    lstm, linear : str or sequence of str, optional
        Names of the LSTMs and of the linear layers of a file of arrays, in the order in which they
        are run.
    activation : str or sequence of str, optional
        What stands behind each linear layer but the last, or behind all of these, of a file of
        arrays: "relu", "tanh", "sigmoid", "silu", "identity".
    pooling : {"last", "last_step", "mean", "max"}, optional
        What one answer for a sequence is read from, of a file of arrays; see `Network`.
    each_step : bool, optional
        Whether there is an answer at each step, of a file of arrays.
    ignore : str or sequence of str, optional
        Names of arrays, or of the modules that hold them, that are no part of the network.
    padding_idx : int, optional
        As of `Embedding`.
    loss, classes, targets, features, metadata
        As of `Network`. Without a loss it follows from what the file ends in: "cross_entropy" of a
        softmax, "binary_cross_entropy" of a sigmoid.
    dtype, batch_first, dequantize, isa
        As of :func:`fastlstm.load`. ``batch_first`` is by default what the file says, or False.

    Returns
    -------
    Network
        Dropout is left out. LSTMs of different sizes are layers of the largest one's, filled up
        with units that are 0, in training too. Predictions are the framework's up to rounding.

    Raises
    ------
    FileNotFoundError, ImportError
        As :func:`fastlstm.load`.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If the file is damaged; if it holds what no network here computes, which is named; if
        arrays are left that belong to nothing; if parts don't fit each other; or if there are
        several ways to read it: the message lists the arrays and names the argument that tells.

    Warns
    -----
    AssumptionWarning
        If the file does not say all that results depend on, and neither do the arguments: what was
        assumed.

    Examples
    --------
    >>> import fastlstm, numpy as np, pathlib, tempfile
    >>> rng, path = np.random.default_rng(0), pathlib.Path(tempfile.mkdtemp()) / "tagger.npz"
    >>> arrays = {f"rnn.{name}": a for name, a in fastlstm.LSTM(8, 16, seed=0).state_dict().items()}
    >>> arrays["emb.weight"] = rng.normal(size=(100, 8)).astype(np.float32)
    >>> arrays["tag.weight"] = rng.normal(size=(2, 16)).astype(np.float32)
    >>> np.savez(path, **arrays, **{"tag.bias": np.zeros(2, np.float32)})
    >>> network = fastlstm.load_network(
    ...     path, each_step=True, loss="cross_entropy", classes=["noun", "verb"])
    >>> network.predict(np.zeros((5, 1), int)).shape  # x (T, B)
    (5, 1)
    """
    told = Told(
        _as_name("prefix", prefix),
        _as_name("embedding", embedding),
        _as_names("lstm", lstm),
        _as_names("linear", linear),
        _as_names("activation", activation),
        pooling,
        None if each_step is None else as_flag("each_step", each_step),
        _as_names("ignore", ignore) or (),
    )
    for each in told.activation or ():
        if each not in ACTIVATIONS:
            raise ValueError(
                f"activation: got {shown(each)}, expected one of {', '.join(ACTIVATIONS)}"
            )
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling: got {shown(pooling)}, expected {', '.join(POOLINGS)}")
    file, chosen_format = existing(path)
    model = chosen_format.read_model(file, told)
    if model is None:
        given = {"padding_idx": padding_idx, "classes": classes, "targets": targets,
                 "features": features, "metadata": metadata, "dtype": dtype,
                 "batch_first": batch_first}  # fmt: skip
        if said := [*told.of_arrays, *(name for name, each in given.items() if each is not None)]:
            raise ValueError(
                f"{said[0]}: got one for {file}, which Network.load reads as it was saved"
            )
        return Network.load(file, loss=loss, isa=isa)
    try:
        merged = joined(model.layers)
        layer = merged.found.build(
            dtype=dtype,
            batch_first=model.batch_first if batch_first is None else batch_first,
            dequantize=dequantize,
            isa=isa,
        )
        layer = with_all_steps(layer, isa)
        chosen, assumed = _loss(model, loss, classes)
        linear_layers = _linear_layers(model, merged, chosen)
        table = None if model.table is None else _table(model, padding_idx)
        if table is None and padding_idx is not None:
            raise ValueError("padding_idx: got one, but the file has no embedding")
        network = Network(
            layer,
            len(linear_layers[-1].bias),
            loss=chosen,
            hidden=[(len(each.bias), each.activation) for each in linear_layers[:-1]],
            each_step=model.pooling is None,
            pooling=model.pooling or "last",  # type: ignore[arg-type]  # of POOLINGS
            embedding=table,
            classes=classes,
            targets=targets,
            features=features,
            metadata=metadata,
            seed=0,
        )
        network._load_parts(_arrays(model, linear_layers))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    assumptions = [*model.assumptions, *merged.found.assumptions, *assumed]
    if assumptions:
        warnings.warn(
            f"{file}: {'; '.join(dict.fromkeys(assumptions))}", AssumptionWarning, stacklevel=2
        )
    return network


def _as_name(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a name")
    return value


def _as_names(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, Mapping):
        raise TypeError(f"{name}: got {shown(value)}, expected a name or several")
    listed = list(names)
    if wrong := [each for each in listed if not isinstance(each, str)]:
        raise TypeError(f"{name}: got {shown(wrong[0])} in it, expected names")
    if len(set(listed)) < len(listed) and name != "activation":
        raise ValueError(f"{name}: got {shown(listed)}, expected different names")
    if not listed and name != "ignore":
        raise ValueError(f"{name}: got no name, expected one or more")
    return tuple(listed)


def _loss(
    model: Model, loss: LossName | OwnLoss | None, classes: Any
) -> tuple[LossName | OwnLoss, list[str]]:
    """Return the loss, and what had to be assumed."""
    if model.output == "softmax" and loss not in (None, "cross_entropy"):
        raise ValueError(f"loss: got {shown(loss)}, but the file ends in a softmax: cross_entropy")
    if loss is not None:
        return loss, []
    if model.output in _LOSSES:
        return _LOSSES[model.output], []
    if classes is not None:
        return "cross_entropy", [_UNSAID.format("'cross_entropy', as there are classes")]
    return "mse", [_UNSAID.format("'mse', of a regression")]


def _linear_layers(model: Model, merged: Joined, loss: Any) -> list[Linear]:
    """Return the linear layers as the network has them; the last one without activation."""
    first, *others = model.linear
    if merged.found.width != len(merged.columns):
        weight = np.zeros((len(first.weight), merged.found.width), first.weight.dtype)
        weight[:, merged.columns] = first.weight
        first = replace(first, weight=weight)
    layers = [first, *others]
    if model.output == "sigmoid" and loss != "binary_cross_entropy":
        layers[-1] = replace(layers[-1], activation="sigmoid")
    if layers[-1].activation != "identity":
        # What ends in an activation that is no loss's has a last layer that changes nothing.
        K, dtype = len(layers[-1].bias), layers[-1].weight.dtype
        layers.append(Linear("identity", np.eye(K, dtype=dtype), np.zeros(K, dtype)))
    return layers


def _table(model: Model, padding_idx: int | None) -> Embedding:
    assert model.table is not None
    V, E = model.table.shape
    if model.skipped is None:
        return Embedding(V, E, padding_idx)
    if padding_idx not in (None, model.skipped):
        raise ValueError(f"padding_idx: got {padding_idx}, but the file says {model.skipped}")
    return Embedding(V, E, model.skipped, masked=True)


def _arrays(model: Model, linear: list[Linear]) -> dict[str, NDArray[Any]]:
    """Return the arrays beside the LSTM's by the names of `Network.state_dict`."""
    arrays = {} if model.table is None else {"embedding.weight": model.table}
    for number, each in enumerate(linear[:-1]):
        arrays[f"head.hidden.{number}.weight"] = each.weight
        arrays[f"head.hidden.{number}.bias"] = each.bias
    return arrays | {"head.weight": linear[-1].weight, "head.bias": linear[-1].bias}
