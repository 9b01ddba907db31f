"""The layers of a stack as layers of their own."""

from __future__ import annotations

import numpy as np

from fastlstm._layer import LSTMBase
from fastlstm._parameters import parameter_count
from fastlstm._quantized import Quantized
from fastlstm._spec import Spec
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.variants import Rates


def single_layers(layer: LSTMBase) -> list[LSTM | BiLSTM]:
    """Return each layer of a stack as a layer of its own, quantised if the stack is.

    Each gives all outputs (T, B, D*P), whatever the stack does.
    """
    spec, D = layer._spec, layer.num_directions
    kind = BiLSTM if D == 2 else LSTM
    specs = [_spec_of_layer(spec, index) for index in range(spec.num_layers)]
    if (quantized := layer._quantized) is not None:
        parts = [quantized.directions[row : row + D] for row in range(0, spec.num_layers * D, D)]
        return [
            kind._from_quantized(one, Quantized(quantized.bits, part), layer.isa)
            for one, part in zip(specs, parts, strict=True)
        ]
    singles = [kind(**one.options, isa=layer.isa) for one in specs]
    ends = np.cumsum([parameter_count(one) for one in specs])
    for single, part in zip(singles, np.split(layer.parameters, ends[:-1]), strict=True):
        single.load_parameters(part)
    return singles


def _spec_of_layer(spec: Spec, index: int) -> Spec:
    return spec._replace(
        input_size=spec.num_directions * spec.output_size if index else spec.input_size,
        num_layers=1,
        batch_first=False,
        rates=Rates(),
        return_sequences=True,
        merge_mode="concat",
    )
