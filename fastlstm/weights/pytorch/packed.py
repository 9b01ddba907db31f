"""Dynamically quantised LSTMs of PyTorch: what their packed weights hold, by the names of an LSTM.

``torch.ao.quantization.quantize_dynamic`` leaves in a state dict, for layer l and direction d at
N = l*D + d, ``_all_weight_values.N.param``; for a cell ``_packed_weight_ih`` and
``_packed_weight_hh``. They are pickled as ``torch.ScriptObject`` with a state, (what, class):

    CellParamsBase          ("quantized_dynamic", [b_ih, b_hh], [], [reduce_range], [W, U])
                            ("quantized_fp16", [], [], [], [W, U])
    LinearPackedParamsBase  (weight, bias or None), which W and U are

Source: aten/src/ATen/native/RNN.cpp and torch/ao/nn/quantized/dynamic/modules/rnn.py of PyTorch
2.13.
"""

from __future__ import annotations

import re
from typing import Any

from fastlstm.weights.pytorch.arrays import Numbers
from fastlstm.weights.pytorch.records import QuantizedTensor, ScriptObject, Tensor

_LAYER = re.compile(r"(?:(.+)\.)?_all_weight_values\.(0|[1-9][0-9]{0,5})\.param\.(\w+)")
_CELL = re.compile(r"((?:.+\.)?)_packed_weight_([ih]h)\.(weight|bias)")

_CLASSES = "__torch__.torch.classes."


def unpack(script: ScriptObject) -> dict[str, Numbers] | None:
    """Return the tensors that packed weights hold by their names, or None of another object."""
    match script.state:
        case ((how, list(biases), _, _, [W, U]), kind) if kind == f"{_CLASSES}rnn.CellParamsBase":
            return _unpack_cell(how, biases, (W, U))
    return _unpack_matrix(script)


def _unpack_cell(how: Any, biases: list[Any], packed: tuple[Any, Any]) -> dict[str, Numbers] | None:
    parts: dict[str, Numbers] = {}
    for end, each in zip(("ih", "hh"), packed, strict=True):
        inside = _unpack_matrix(each)
        if inside is None:
            return None
        parts |= {f"{name}_{end}": tensor for name, tensor in inside.items()}
    if how == "quantized_dynamic" and len(biases) == 2:
        if not all(isinstance(bias, Numbers) for bias in biases):
            return None
        return parts | {"bias_ih": biases[0], "bias_hh": biases[1]}
    return parts if how == "quantized_fp16" and not biases else None


def _unpack_matrix(script: Any) -> dict[str, Numbers] | None:
    match script.state if isinstance(script, ScriptObject) else None:
        case ((weight, bias), kind) if kind == f"{_CLASSES}quantized.LinearPackedParamsBase":
            if isinstance(weight, Numbers) and (bias is None or isinstance(bias, Numbers)):
                return {"weight": weight} | ({} if bias is None else {"bias": bias})
    return None


def renamed(tensors: dict[str, Numbers]) -> tuple[dict[str, Numbers], dict[str, str]]:
    """Give what was packed the names of an LSTM: ``weight_ih_l0``, and of a cell ``weight_ih``.

    Parameters
    ----------
    tensors : dict of str to Numbers
        By names of which those of packed tensors are "rnn._all_weight_values.0.param.weight_ih".

    Returns
    -------
    tensors : dict of str to Numbers
        In the same order.
    assumptions : dict of str to str
        By the prefixes of LSTMs, what their arrays don't tell.
    """
    rows: dict[str, dict[int, Any]] = {}
    for name, tensor in tensors.items():
        if (match := _LAYER.fullmatch(name)) and match[3] in ("weight_ih", "weight_hh"):
            rows.setdefault(match[1] or "", {}).setdefault(int(match[2]), {})[match[3]] = tensor
    directions = {prefix: _directions(numbered) for prefix, numbered in rows.items()}
    result: dict[str, Numbers] = {}
    for name, tensor in tensors.items():
        new = name
        if match := _CELL.fullmatch(name):
            new = f"{match[1]}{match[3]}_{match[2]}"
        elif (match := _LAYER.fullmatch(name)) and directions.get(match[1] or ""):
            layer, direction = divmod(int(match[2]), len(directions[match[1] or ""]))
            prefix = f"{match[1]}." if match[1] else ""
            new = f"{prefix}{match[3]}_l{layer}{'_reverse' if direction else ''}"
        if new in result or (new != name and new in tensors):
            new = name
        result[new] = tensor
    assumptions = {
        prefix: "two layers are assumed, since two directions have the same shapes"
        for prefix, possible in directions.items()
        if len(possible) == 1 and len(rows[prefix]) == 2 and _fits(rows[prefix], 2)
    }
    return result, assumptions


def _directions(rows: dict[int, Any]) -> range:
    """Return the directions that packed rows are of: none if they are those of no LSTM."""
    return next((range(D) for D in (1, 2) if _fits(rows, D)), range(0))


def _fits(rows: dict[int, Any], D: int) -> bool:
    """Whether the shapes of rows l*D + d are those of layers of D directions."""
    if sorted(rows) != list(range(len(rows))) or len(rows) % D:
        return False
    shapes = []
    for number in range(len(rows)):
        pair = [rows[number].get(name) for name in ("weight_ih", "weight_hh")]
        shapes.append([t.shape for t in pair if isinstance(t, Tensor | QuantizedTensor)])
    if any(len(pair) != 2 or any(len(shape) != 2 for shape in pair) for pair in shapes):
        return False
    I, H = shapes[0][0][1], shapes[0][1][1]
    return all(
        pair[0][1] == (I if number < D else D * H) and pair[1][1] == H
        for number, pair in enumerate(shapes)
    )
