"""Calls of `fastlstm.torch._autograd.lstm` for tests, and the same of PyTorch's own LSTM."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastlstm._spec import as_spec
from support.optional import require

torch = require("torch")

from fastlstm.torch._autograd import lstm  # noqa: E402
from fastlstm.torch._spec import to_text  # noqa: E402

T, B, I, H = 4, 2, 3, 3

#: What layers there are, by what they show.
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stacked": {"num_layers": 2},
    "bidirectional": {"num_layers": 2, "num_directions": 2},
    "no-bias": {"bias": False},
    "projection": {"num_layers": 2, "num_directions": 2, "proj_size": 2},
}


class Case(NamedTuple):
    """A call: x, h_0, c_0 and the parameters, all leaves, and what runs it."""

    spec: str
    module: Any  # torch.nn.LSTM of the same parameters
    leaves: tuple[Any, ...]
    batch_sizes: Any

    def ours(self, *leaves: Any) -> tuple[Any, Any, Any]:
        x, h_0, c_0, *parameters = leaves or self.leaves
        sizes = self.batch_sizes
        return lstm(x, h_0, c_0, parameters, batch_sizes=sizes, spec=self.spec)

    def theirs(self, *leaves: Any) -> tuple[Any, Any, Any]:
        """`torch.nn.LSTM`'s, packed where there are batch_sizes."""
        x, h_0, c_0, *parameters = leaves or self.leaves
        if self.batch_sizes is not None:
            x = torch.nn.utils.rnn.PackedSequence(x, self.batch_sizes)
        names = [name for name, _ in self.module.named_parameters()]
        own = dict(zip(names, parameters, strict=True))
        with silenced():
            y, (h_n, c_n) = torch.func.functional_call(self.module, own, (x, (h_0, c_0)))
        return (y if self.batch_sizes is None else y.data), h_n, c_n

    def with_sizes(self, sizes: list[int]) -> Case:
        """The same packed, of sequences that have these numbers at each step."""
        generator = torch.Generator().manual_seed(7)
        x, h_0, c_0, *parameters = self.leaves
        outer = ((sum(sizes),), (len(h_0), sizes[0]), (len(h_0), sizes[0]))
        pairs = zip(outer, (x, h_0, c_0), strict=True)
        shapes = [(*shape, leaf.shape[-1]) for shape, leaf in pairs]
        dtype = x.dtype
        made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
        leaves = (*(leaf.requires_grad_() for leaf in made), *parameters)
        return self._replace(leaves=leaves, batch_sizes=torch.tensor(sizes))


def case(
    dtype: Any = torch.float64,
    sizes: tuple[int, int, int, int] = (T, B, I, H),
    num_directions: int = 1,
    **options: Any,
) -> Case:
    steps, batch, input_size, hidden_size = sizes
    generator = torch.Generator().manual_seed(3)
    module = torch.nn.LSTM(
        input_size, hidden_size, bidirectional=num_directions == 2, dtype=dtype, **options
    )
    rows, P = module.num_layers * num_directions, module.proj_size or hidden_size
    shapes = [(steps, batch, input_size), (rows, batch, P), (rows, batch, hidden_size)]
    shapes += [tuple(parameter.shape) for parameter in module.parameters()]
    made = [torch.randn(shape, generator=generator, dtype=dtype) / 2 for shape in shapes]
    spec = as_spec(
        num_directions,
        input_size=input_size,
        hidden_size=hidden_size,
        dtype=str(dtype).removeprefix("torch."),
        **options,
    )
    return Case(to_text(spec), module, tuple(leaf.requires_grad_() for leaf in made), None)


class Tagger(torch.nn.Module):
    """A model around the kernels: a layer of the case's parameters and a linear head."""

    def __init__(self, made: Case) -> None:
        super().__init__()
        self.spec, self.rows = made.spec, made.leaves[1].shape[0]
        self.widths = (made.leaves[1].shape[-1], made.leaves[2].shape[-1])
        names = [name for name, _ in made.module.named_parameters()]
        for name, leaf in zip(names, made.leaves[3:], strict=True):
            self.register_parameter(name, torch.nn.Parameter(leaf.detach().clone()))
        self.names = names
        self.head = torch.nn.Linear(made.ours()[0].shape[-1], 2, dtype=leaf.dtype)

    def forward(self, x: Any, batch_sizes: Any = None) -> Any:
        batch = x.shape[1] if batch_sizes is None else 3
        h_0, c_0 = (x.new_zeros(self.rows, batch, width) for width in self.widths)
        own = [getattr(self, name) for name in self.names]
        y, h_n, _ = lstm(x, h_0, c_0, own, batch_sizes=batch_sizes, spec=self.spec)
        return self.head(y.tanh()), h_n


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Without what PyTorch says of its own LSTM: that oneDNN has no projections, for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def weights_of(outputs: tuple[Any, ...]) -> list[Any]:
    """Numbers to multiply results with, so that a sum of all has a gradient everywhere."""
    return [
        torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape) for out in outputs
    ]


def loss_of(function: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """A scalar of all results, and not linear in them."""

    def loss(*leaves: Any) -> Any:
        outputs = function(*leaves)
        pairs = zip(outputs, weights_of(outputs), strict=True)
        return sum((out * weight).sin().sum() for out, weight in pairs)

    return loss


def gradients(function: Callable[..., tuple[Any, ...]], leaves: tuple[Any, ...]) -> list[Any]:
    return list(torch.autograd.grad(loss_of(function)(*leaves), leaves))


def assert_close(actual: Any, expected: Any, bound: float = 1e-12) -> None:
    """Compare trees of tensors: the largest difference, beside numbers about 1."""
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)
