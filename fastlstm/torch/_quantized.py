"""Layers of 8, 16 and 24 bits inside PyTorch: what `replace` makes where it is given bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.utils.rnn import PackedSequence

from fastlstm import _core, lstm
from fastlstm._arguments import RealArray
from fastlstm._spec import Spec
from fastlstm.quantization.layers import quantize
from fastlstm.torch._context import autocast_dtype
from fastlstm.torch._module import LSTM
from fastlstm.torch._sequences import Rows
from fastlstm.torch._threads import follow_threads

State: TypeAlias = tuple[Tensor, Tensor]
Layer: TypeAlias = lstm.LSTM | lstm.BiLSTM


class QuantizedLSTM(LSTM):
    """A :class:`fastlstm.torch.LSTM` whose products are of 8, 16 or 24 bits, for inference alone.

    :func:`fastlstm.torch.replace` makes it. Its parameters are those of float32 that it was made
    of, which ``state_dict`` gives; it does not look at them again. Neither they nor anything else
    has a gradient.

    Attributes
    ----------
    bits : {8, 16, 24}
    """

    _layer: Layer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("QuantizedLSTM: fastlstm.torch.replace makes it, with bits")

    @property
    def bits(self) -> int:
        """Bits of the products: 8, 16 or 24."""
        bits = self._layer.bits
        assert bits is not None
        return bits

    def extra_repr(self) -> str:
        """Return the options that are not at their default, and the bits."""
        return f"{super().extra_repr()}, bits={self.bits}"

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode; RuntimeError for the other."""
        if mode:
            self._refuse("train", "it can't be trained")
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._refuse("load_state_dict", "it takes no parameters")

    def _refuse(self, method: str, why: str) -> NoReturn:
        raise RuntimeError(
            f"{method}: the model has a layer of {self.bits} bits, and {why}; "
            "fastlstm.torch.restore(model) makes it what it was"
        )

    def __prepare_scriptable__(self) -> NoReturn:
        self._refuse("torch.jit.script", "torch.nn.LSTM has no bits")

    def _run_theirs(self, x: Any, hx: State | None) -> NoReturn:
        super()._run_theirs(x, hx)  # which may raise
        self._refuse("forward", "got what only torch.nn.LSTM computes, which has no bits")

    def _run_recorded(self, x: Any, hx: Any) -> None:
        """Leave a call that may ask for gradients to the longer way, where they are refused."""

    def _packed_model(self, spec: Spec, names: Sequence[str]) -> _core.Model | None:
        follow_threads()
        return self._layer._weights.model

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _run(
        self,
        x: Tensor,
        state: State,
        weights: Sequence[Tensor],
        batch_sizes: Tensor | None = None,
        rows: Rows | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *state)):
            raise RuntimeError(
                f"input, hx: got one that requires a gradient, and a layer of {self.bits} bits has "
                "none; call it under torch.no_grad()"
            )
        if get_proxy_mode() is not None:  # the results would be constants of the trace
            self._refuse("make_fx", "no operation of PyTorch stands for it")
        cast = autocast_dtype(x.dtype)
        given = x.dtype if cast is None else cast
        x, h_0, c_0 = (tensor.detach().float() for tensor in (x, *state))
        present = None
        if batch_sizes is not None:
            B = h_0.shape[1]
            present = torch.arange(B) < batch_sizes[:, None]  # (T, B)
            x, packed = x.new_zeros(*present.shape, x.shape[-1]), x
            x[present] = packed
        lengths = None if present is None else present.sum(0).numpy()
        follow_threads()
        results = self._layer(x.numpy(), (h_0.numpy(), c_0.numpy()), lengths=lengths)
        y, (h_n, c_n) = results
        outputs = [torch.from_numpy(array).to(given) for array in (y, h_n, c_n)]
        if present is not None:
            outputs[0] = outputs[0][present]
        return outputs[0], outputs[1], outputs[2]


def quantized_layer(
    spec: Spec, parameters: Sequence[Tensor], bits: int, data: list[RealArray] | None
) -> Layer:
    """Return parameters as a layer of so many bits.

    Parameters
    ----------
    spec : Spec
    parameters : sequence of Tensor
        Of float32, in the order of :func:`fastlstm._parameters.parameter_shapes`.
    bits : {8, 16, 24}
    data : list of ndarray (T, B, I) or (T, I), or None
        Inputs of the layer, to find its factors by.
    """
    cls = lstm.BiLSTM if spec.num_directions == 2 else lstm.LSTM
    made: Layer = cls(**spec.options)
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    made.load_parameters(vector.numpy())
    return quantize(made, bits, data)


def calibrate(
    model: nn.Module, modules: Iterable[nn.Module], data: Iterable[Any]
) -> dict[nn.Module, list[RealArray]]:
    """Run data through a model, and return what these LSTMs in it were given.

    Returns
    -------
    dict of Module to list of ndarray
        (T, B, I), or (T, I) for sequences that came packed or without a batch.
    """
    inputs: dict[nn.Module, list[RealArray]] = {module: [] for module in modules}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        if isinstance(given, PackedSequence):
            given = nn.utils.rnn.unpack_sequence(given)
        elif module.batch_first and given.dim() == 3:
            given = [given.transpose(0, 1)]
        else:
            given = [given]
        inputs[module] += [sequence.detach().float().clone().numpy() for sequence in given]

    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in inputs]
    try:
        with torch.no_grad():
            for batch in data:
                if isinstance(batch, Mapping):
                    model(**batch)
                elif isinstance(batch, tuple | list):
                    model(*batch)
                else:
                    model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return inputs
