"""The options of a layer that ``train`` takes, made of the tables that the layer has them in."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any

from fastlstm import LSTM, BiLSTM
from fastlstm._spec import DEFAULTS, Spec
from fastlstm.cli._messages import as_user_errors
from fastlstm.cli._options import number
from fastlstm.variants import ACTIVATION_OPTIONS, ACTIVATIONS, Cell, Rates

#: Where an option is described.
_TABLES = {**dict.fromkeys(Cell._fields, Cell), **dict.fromkeys(Rates._fields, Rates),
           "proj_size": Spec, "bias": Spec, "reverse": Spec}  # fmt: skip

#: Those that are not called as in Python: flags that take something away, and ``--clip``, which is
#: of the gradient.
_FLAGS = {"bias": "--no-bias", "clip": "--gate-clip"}


def add_layer(parser: argparse.ArgumentParser) -> None:
    """Add the options of a layer that have a default, as a group."""
    group = parser.add_argument_group("cell and dropping, as of fastlstm.LSTM in Python")
    for name in _TABLES:
        default = DEFAULTS[name]
        options: dict[str, Any] = {"dest": f"layer_{name}", "help": _described(name)}
        if isinstance(default, bool):
            options["action"] = "store_false" if default else "store_true"
        elif name in ACTIVATION_OPTIONS:
            options |= {"choices": ACTIVATIONS, "default": default}
            options["help"] += f" ({default})"
        elif isinstance(default, int):
            options |= {"type": number(int, 0), "default": default, "metavar": "P"}
        else:
            options |= {"type": number(float), "default": default, "metavar": "X"}
        group.add_argument(_flag(name), **options)


def layer_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_layer` asked for, as a constructor takes it."""
    return {name: getattr(args, f"layer_{name}") for name in _TABLES}


def make_layer(inputs: int, batch_first: bool, rng: Any, args: argparse.Namespace) -> LSTM | BiLSTM:
    """Return the layer that the options ask for."""
    options = layer_options(args)
    if args.bidirectional and not options["reverse"]:
        del options["reverse"]  # of one direction alone
    with as_user_errors({name: _flag(name) for name in _TABLES}):
        return (BiLSTM if args.bidirectional else LSTM)(
            inputs,
            args.hidden,
            args.layers,
            dtype=args.dtype,
            batch_first=batch_first,
            forget_bias=args.forget_bias,
            seed=rng,
            **options,
        )


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _described(name: str) -> str:
    """Return the first sentence of what the table of an option says of it."""
    if name == "bias":
        return "leave the biases out"
    entry = rf"^(?:\w+, )*{name}(?:, \w+)* : .*\n((?: +.*\n?)+)"
    found = re.search(entry, inspect.getdoc(_TABLES[name]) or "", re.MULTILINE)
    text = " ".join(found[1].split()) if found else ""  # there are no docstrings under -OO
    return re.split(r"\. [A-Z(]|\.$|; out of", text)[0]
