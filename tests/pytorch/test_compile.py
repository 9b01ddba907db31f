"""`torch.compile` without a break of the graph, beside what becomes of `torch.nn.LSTM`."""

from __future__ import annotations

from typing import Any

import pytest

from support.optional import require

torch = require("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.func import grad, vmap  # noqa: E402

from support.torch_calls import (  # noqa: E402
    LAYERS,
    Tagger,
    assert_close,
    case,
    gradients,
    loss_of,
    silenced,
)

# The compiler itself warns of what it finds deprecated in its own parts.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

#: Lengths and batches. Sizes that are equal at first are taken to be equal always: I is 3.
SHAPES = [(5, 2), (7, 2), (9, 4), (8, 5), (11, 6), (20, 7), (2, 8)]


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def trained(model: Any, run: Any, *given: Any) -> list[Any]:
    """Results and gradients of the input and all parameters."""
    x = given[0].detach().clone().requires_grad_()
    outputs = run(x, *given[1:])
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [*outputs, *gradients(lambda *_: outputs, (x, *own))]


def test_training_and_inference_of_any_length() -> None:
    model = Tagger(case(**LAYERS["bidirectional"]))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for number, (T, B) in enumerate(SHAPES):
        x = torch.randn(T, B, 3, dtype=torch.float64)
        assert_close(trained(model, compiled, x), trained(model, model, x))
        if number == 3:  # a length and a batch were met that were new
            frames = counter.frame_count
    assert frames <= 3
    assert counter.frame_count == frames
    model.eval()
    with torch.no_grad():
        for number, (T, B) in enumerate(SHAPES):
            x = torch.randn(T, B, 3, dtype=torch.float64)
            assert_close(compiled(x), model(x))
            if number == 0:
                frames = counter.frame_count
    assert counter.frame_count == frames


@pytest.mark.slow
def test_the_same_by_inductor() -> None:
    model = Tagger(case())
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for T, B in SHAPES[:3]:
        x = torch.randn(T, B, 3, dtype=torch.float64)
        assert_close(trained(model, compiled, x), trained(model, model, x))


def test_dynamic_shapes_from_the_first_call_on() -> None:
    model = Tagger(case())
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for T, B in SHAPES:
        x = torch.randn(T, B, 3, dtype=torch.float64)
        assert_close(trained(model, compiled, x), trained(model, model, x))
    assert counter.frame_count == 1


def test_packed_sequences() -> None:
    model = Tagger(case(**LAYERS["projection"]))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for sizes in ([3, 2], [3, 3, 1], [3, 3, 3, 2, 1]):
        x = torch.randn(sum(sizes), 3, dtype=torch.float64)
        steps = torch.tensor(sizes)
        assert_close(trained(model, compiled, x, steps), trained(model, model, x, steps))
    assert counter.frame_count == 1


def test_part_of_the_parameters() -> None:
    model = Tagger(case())
    model.weight_hh_l0.requires_grad_(False)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    assert_close(trained(model, compiled, x), trained(model, model, x))


@pytest.mark.parametrize(
    "transform",
    [
        lambda loss: grad(loss, (0, 3)),
        lambda loss: vmap(loss, (0, None, None, None, None, None, None)),
        lambda loss: vmap(loss, (None, None, None, 0, None, None, None)),
        lambda loss: vmap(grad(loss, (0, 3)), (0, None, None, None, None, None, None)),
    ],
    ids=["grad", "vmap", "vmap-parameters", "vmap-grad"],
)
def test_transforms_inside(transform: Any, request: pytest.FixtureRequest) -> None:
    given = case()
    leaves = [leaf.detach() for leaf in given.leaves]
    place = {"grad": None, "vmap-parameters": 3}.get(request.node.callspec.id, 0)
    if place is not None:
        leaves[place] = torch.stack([leaves[place], 2 * leaves[place]])
    function = transform(loss_of(given.ours))
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert_close(compiled(*leaves), function(*leaves))


def test_a_wrong_shape_is_named() -> None:
    model = Tagger(case())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="x: got shape"):
        compiled(torch.randn(3, 2, 4, dtype=torch.float64))


def test_what_pytorch_does() -> None:
    """The table of docs."""
    if not torch.__version__.startswith("2.13."):
        pytest.skip("the table is of PyTorch 2.13")
    module = torch.nn.LSTM(3, 3)
    with silenced(), pytest.raises(torch._dynamo.exc.Unsupported, match="RNN, GRU, or LSTM"):
        torch.compile(module, backend="aot_eager", fullgraph=True)(torch.randn(3, 2, 3))
