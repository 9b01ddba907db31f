"""First derivatives from the kernels, beside those of `torch.nn.LSTM` and PyTorch's operations."""

from __future__ import annotations

from typing import Any

import pytest

from fastlstm.variants import Masks
from support.optional import require

torch = require("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from fastlstm._parameters import parameter_shapes  # noqa: E402
from fastlstm._spec import as_spec  # noqa: E402
from fastlstm.torch import _plain  # noqa: E402
from fastlstm.torch._autograd import lstm  # noqa: E402
from fastlstm.torch._spec import to_text  # noqa: E402
from support.torch_calls import LAYERS, assert_close, case, gradients, loss_of, silenced  # noqa: E402


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layer", LAYERS)
def test_results_and_gradients_are_those_of_pytorch(layer: str, packed: bool) -> None:
    given = case(**LAYERS[layer])
    if packed:
        given = given.with_sizes([3, 3, 2, 1])
    assert_close(given.ours(), given.theirs())
    leaves = given.leaves
    assert_close(gradients(given.ours, leaves), gradients(given.theirs, leaves))


def test_float32() -> None:
    given = case(torch.float32, **LAYERS["bidirectional"])
    assert_close(given.ours(), given.theirs(), 1e-6)
    leaves = given.leaves
    assert_close(gradients(given.ours, leaves), gradients(given.theirs, leaves), 1e-5)


@pytest.mark.parametrize(
    "sizes", [(0, 2, 3, 3), (4, 0, 3, 3), (4, 2, 1, 1), (1, 1, 3, 17)], ids=str
)
def test_sizes_at_the_edge(sizes: tuple[int, int, int, int]) -> None:
    given = case(sizes=sizes, num_layers=2, num_directions=2)
    leaves = given.leaves
    if min(sizes) > 0:
        assert_close(given.ours(), given.theirs())
        assert_close(gradients(given.ours, leaves), gradients(given.theirs, leaves))
        return
    y, h_n, c_n = given.ours()  # where PyTorch refuses, nothing happens to the states
    assert y.shape == (sizes[0], sizes[1], 2 * sizes[3])
    assert torch.equal(h_n, leaves[1])
    assert torch.equal(c_n, leaves[2])
    found = gradients(given.ours, leaves)
    assert_close(found[1:3], gradients(lambda *given: (y, *given), leaves[1:3]))
    assert all(not gradient.any() for gradient in (found[0], *found[3:]))


def drawn(spec: Any, steps: tuple[int, ...], batch: int) -> Masks:
    """Masks as training draws them, for steps (T, B) or packed rows (N,)."""
    rows, P, H = spec.num_layers * spec.num_directions, spec.output_size, spec.hidden_size
    generator = torch.Generator().manual_seed(5)

    def mask(*shape: int, kept: float = 1.0) -> Any:
        return (torch.rand(shape, generator=generator) < 0.6).double() * kept

    return Masks(
        mask(rows, batch, P, kept=1.5),
        mask(spec.num_layers - 1, *steps, spec.num_directions * P, kept=2.0),
        mask(rows, *steps, P) if spec.cell.zoneout_h else None,
        mask(rows, *steps, H) if spec.cell.zoneout_c else None,
    )


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"peepholes": True, "layer_norm": True, "zoneout_h": 0.2, "zoneout_c": 0.3},
        {"coupled_gates": True, "gate_activation": "hard_sigmoid", "proj_size": 2, "clip": 0.7},
    ],
    ids=["usual", "regularised", "coupled"],
)
def test_masks_and_variants(options: dict[str, Any], packed: bool) -> None:
    spec = as_spec(2, input_size=3, hidden_size=3, num_layers=2, dtype="float64", **options)
    sizes = torch.tensor([3, 2, 2]) if packed else None
    steps, batch = ((7,), 3) if packed else ((3, 2), 2)
    masks = drawn(spec, steps, batch)
    generator = torch.Generator().manual_seed(1)
    shapes = [(*steps, 3), (4, batch, spec.output_size), (4, batch, 3)]
    shapes += [shape for _, shape in parameter_shapes(spec)]
    leaves = tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    )

    def by(function: Any) -> Any:
        return lambda x, h_0, c_0, *parameters: function(
            x, h_0, c_0, parameters, batch_sizes=sizes, masks=masks, spec=to_text(spec)
        )

    assert_close(by(lstm)(*leaves), by(_plain.lstm)(*leaves))
    assert_close(gradients(by(lstm), leaves), gradients(by(_plain.lstm), leaves))
    with torch.no_grad():
        assert_close(by(lstm)(*leaves), by(_plain.lstm)(*leaves))


def test_only_what_is_asked_for_is_computed() -> None:
    given = case(**LAYERS["bidirectional"])
    expected = gradients(given.theirs, given.leaves)
    for wanted in ([0], [1, 2], [3], [4, 9], [0, 2, 18]):
        leaves = tuple(
            leaf.detach().requires_grad_(place in wanted) for place, leaf in enumerate(given.leaves)
        )
        loss_of(given.ours)(*leaves).backward()
        found = [place for place, leaf in enumerate(leaves) if leaf.grad is not None]
        assert found == wanted
        assert_close([leaves[k].grad for k in wanted], [expected[k] for k in wanted])


def test_a_result_that_is_not_used_has_no_gradient() -> None:
    given = case()
    for place in range(3):
        found = torch.autograd.grad(given.ours()[place].sum(), given.leaves)
        assert_close(found, torch.autograd.grad(given.theirs()[place].sum(), given.leaves))
    undefined = torch._C._functions.UndefinedGrad()(given.ours()[0])
    found = torch.autograd.grad(undefined.sum(), given.leaves, allow_unused=True)
    assert found == (None,) * len(given.leaves)


def test_without_gradients_nothing_is_recorded() -> None:
    given = case()
    with torch.no_grad():
        assert all(out.grad_fn is None for out in given.ours())
    frozen = [leaf.detach() for leaf in given.leaves]
    assert not any(out.requires_grad for out in given.ours(*frozen))
    with torch.inference_mode():
        assert_close(given.ours(*frozen)[0], given.theirs(*frozen)[0])


def test_results_share_no_memory_with_what_was_given() -> None:
    given = case(sizes=(0, 2, 3, 3))  # the final states are the initial ones
    held = {leaf.data_ptr() for leaf in given.leaves if leaf.numel()}
    assert all(out.data_ptr() not in held for out in given.ours() if out.numel())
    _, h_n, c_n = given.ours()
    found = torch.autograd.grad((h_n, c_n), given.leaves[1:3], (h_n, c_n))
    assert all(gradient.data_ptr() not in held for gradient in found)


def test_a_graph_can_be_kept_and_is_used_up_otherwise() -> None:
    given = case()
    loss = loss_of(given.ours)(*given.leaves)
    first = torch.autograd.grad(loss, given.leaves, retain_graph=True)
    assert_close(torch.autograd.grad(loss, given.leaves), first, 0)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, given.leaves)


@pytest.mark.parametrize("place", range(4))
def test_a_change_in_place_of_what_gradients_need_is_noticed(place: int) -> None:
    given = case()
    leaves = [leaf.detach().clone().requires_grad_() for leaf in given.leaves]
    y, _, _ = given.ours(*leaves)
    with torch.no_grad():
        leaves[place].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_results_may_be_changed_in_place() -> None:
    given = case()
    for function in (given.ours, given.theirs):
        y, h_n, _ = function()
        y.mul_(2)
        h_n.zero_()
        found = torch.autograd.grad(y.sum(), given.leaves)
        assert_close(found, torch.autograd.grad(2 * given.theirs()[0].sum(), given.leaves))


def test_hooks_see_and_change_gradients() -> None:
    given = case()
    leaves = [leaf.detach().clone().requires_grad_() for leaf in given.leaves]
    seen: list[Any] = []
    for leaf in leaves:
        leaf.register_hook(lambda gradient: 2 * gradient)
    y, _, _ = given.ours(*leaves)
    y.register_hook(seen.append)
    assert y.grad_fn is not None
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append(len(inputs)))
    y.sum().backward()
    expected = torch.autograd.grad(2 * given.theirs()[0].sum(), given.leaves)
    assert_close([leaf.grad for leaf in leaves], list(expected))
    assert torch.equal(seen[0], torch.ones_like(y))
    assert seen[1] == len(leaves)


def test_saved_tensors_can_be_packed() -> None:
    given = case()
    expected = gradients(given.ours, given.leaves)
    with torch.autograd.graph.save_on_cpu():
        assert_close(gradients(given.ours, given.leaves), expected, 0)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_compute_again(use_reentrant: bool) -> None:
    given = case()
    leaves = [leaf.detach().clone().requires_grad_() for leaf in given.leaves]
    results = checkpoint(given.ours, *leaves, use_reentrant=use_reentrant)
    loss_of(lambda *_: results)().backward()
    assert_close([leaf.grad for leaf in leaves], gradients(given.theirs, given.leaves))


def test_anomaly_mode_names_the_call() -> None:
    given = case()
    nan = [leaf.detach().clone().requires_grad_() for leaf in given.leaves]
    with torch.no_grad():
        nan[3].fill_(float("nan"))
    with silenced(), torch.autograd.detect_anomaly():
        assert_close(gradients(given.ours, given.leaves), gradients(given.theirs, given.leaves))
        with pytest.raises(RuntimeError, match="'_LstmBackward' returned nan values"):
            given.ours(*nan)[0].sum().backward()


def test_profilers_and_modes_see_the_operations() -> None:
    given = case()
    with torch.autograd.profiler.profile() as profile:
        given.ours()[0].sum().backward()
    assert {"fastlstm::record", "fastlstm::backward"} <= {
        event.key for event in profile.key_averages()
    }
    with torch.device("meta"):  # of new tensors, not of these
        assert given.ours()[0].device.type == "cpu"
    elsewhere = [leaf.detach().to("meta").requires_grad_() for leaf in given.leaves]
    found = torch.autograd.grad(given.ours(*elsewhere)[0].sum(), elsewhere)
    assert [gradient.shape for gradient in found] == [leaf.shape for leaf in elsewhere]


def test_strides_change_no_bit() -> None:
    given = case()
    expected = given.ours()
    x, *others = (leaf.detach() for leaf in given.leaves)
    leaves = [x.transpose(0, 1).contiguous().transpose(0, 1)]
    leaves += [leaf.movedim(0, -1).contiguous().movedim(-1, 0) for leaf in others]
    for first in (leaves[0], x.movedim(-1, 0).contiguous().movedim(0, -1), (2 * x)[:, :, :] / 2):
        assert_close(given.ours(first, *leaves[1:]), expected, 0)
    seeds = torch.autograd.grad(expected[0], given.leaves, torch.ones(()).double().expand(4, 2, 3))
    assert_close(seeds, torch.autograd.grad(given.theirs()[0].sum(), given.leaves))


def test_negated_views_are_read_as_they_are_meant() -> None:
    given = case()
    x, *others = (leaf.detach() for leaf in given.leaves)
    view = torch.complex(x, -x).conj().imag
    assert view.is_neg()
    assert_close(given.ours(view, *others), given.ours(x, *others), 0)
