"""LSTM nodes of ONNX models: what they say, and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.layers import random_state
from support.onnx_models import (
    FLOAT,
    Array,
    assert_holds,
    branch,
    compare_with_original,
    expected_arrays,
    helper,
    lstm_node,
    model_of,
    numpy_helper,
    only,
    onnx,
    parameters_of,
    read,
    reason,
    weights,
)

# What a node says


def test_options_and_sizes(tmp_path: Path) -> None:
    arrays = {**weights(I=7, H=2, D=2), "P": np.ones((2, 6), np.float32)}
    node = helper.make_node(
        "LSTM",
        ["X", "W", "R", "", "", "", "", "P"],
        ["", "first", "last"],
        direction="bidirectional",
        layout=1,
        clip=2.0,
        input_forget=1,
        activations=["SIGMOID", "relu", "Affine"] * 2,
        activation_alpha=[1.0, 1.0],
    )
    found = only(read(tmp_path, model_of([node], arrays)))
    assert found.name == "first"
    assert found.kind == "ONNX LSTM"
    assert found.order == "i o f c"
    assert found.bidirectional
    assert found.options == {
        "input_size": 7,
        "hidden_size": 2,
        "num_layers": 1,
        "batch_first": True,
        "coupled_gates": True,
        "cell_activation": "relu",
        "output_activation": "identity",
        "clip": 2.0,
        "bias": False,
        "peepholes": True,
    }
    assert [note for note in found.notes if "input_forget" in note]


def test_plain_node_is_described_shortly(tmp_path: Path) -> None:
    found = only(read(tmp_path, model_of([lstm_node()], weights())))
    assert str(found) == "lstm: LSTM 3 -> 5, float32"
    assert (found.notes, found.state, found.parts, found.head) == ((), None, (), None)


def test_wrong_hidden_size_is_noted(tmp_path: Path) -> None:
    found = only(read(tmp_path, model_of([lstm_node(hidden_size=128)], weights())))
    assert found.options["hidden_size"] == 5
    assert found.notes == ("its attribute hidden_size is 128, its arrays are of 5 units",)


def test_infinite_clip_is_none(tmp_path: Path) -> None:
    found = only(read(tmp_path, model_of([lstm_node(clip=float("inf"))], weights())))
    assert "clip" not in found.options


def test_reverse(tmp_path: Path) -> None:
    model = model_of([lstm_node(direction="reverse")], weights())
    found = only(read(tmp_path, model))
    assert found.options["reverse"] is True
    assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("D", [1, 2])
def test_fixed_initial_state(tmp_path: Path, D: int, layout: int) -> None:
    direction = "bidirectional" if D == 2 else "forward"
    rng = np.random.default_rng(2)
    h_0, c_0 = random_state(rng, (D, 5), np.float32)
    for B in (1, 3):
        arrays = {
            name: np.repeat(state[np.newaxis] if layout else state[:, np.newaxis], B, 1 - layout)
            for name, state in (("h_0", h_0), ("c_0", c_0))
        }
        node = lstm_node(direction=direction, layout=layout)
        node.input.extend(["", "h_0", "c_0"])
        found = only(read(tmp_path, model_of([node], {**weights(D=D), **arrays})))
        assert found.state is not None
        np.testing.assert_array_equal(found.state[0], h_0)
        np.testing.assert_array_equal(found.state[1], c_0)


def test_states_that_are_zero_or_not_known_or_many(tmp_path: Path) -> None:
    node = lstm_node()
    node.input.extend(["", "h_0", "c_0"])
    zeros = np.zeros((1, 2, 5), np.float32)
    zero = only(read(tmp_path, model_of([node], {**weights(), "h_0": zeros, "c_0": zeros})))
    assert zero.state is None
    assert zero.notes == ()
    unknown = only(read(tmp_path, model_of([node], weights(), ["X", "h_0", "c_0"])))
    assert unknown.state is None
    assert unknown.notes == ()
    several = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    many = only(read(tmp_path, model_of([node], {**weights(), "h_0": several, "c_0": zeros})))
    assert many.state is None
    assert many.notes == (
        "h_0, another one for each of 2 sequences, is left out",
    ) or many.notes == ("initial_h, another one for each of 2 sequences, is left out",)


@pytest.mark.parametrize("filled", [0.0, 0.25])
def test_states_of_a_computed_shape(tmp_path: Path, filled: float) -> None:
    """As exporters make zeros for a batch of any size."""
    value = helper.make_tensor("", FLOAT, [1], [filled])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["h_0"], value=value),
        helper.make_node("Expand", ["row", "shape"], ["c_0"]),
        lstm_node(),
    ]
    nodes[-1].input.extend(["", "h_0", "c_0"])
    row = np.full((1, 1, 5), 2 * filled, np.float32)
    found = only(read(tmp_path, model_of(nodes, {**weights(), "row": row}, ["X", "shape"])))
    if not filled:
        assert found.state is None
    else:
        assert found.state is not None
        np.testing.assert_array_equal(found.state[0], np.full((1, 5), filled))
        np.testing.assert_array_equal(found.state[1], np.full((1, 5), 2 * filled))


def test_sequence_lengths_are_noted(tmp_path: Path) -> None:
    node = lstm_node()
    node.input.append("lengths")
    found = only(read(tmp_path, model_of([node], weights(), ["X", "lengths"])))
    assert "sequence_lens" in found.notes[0]


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        (
            {"activations": ["Sigmoid", "Softsign", "Tanh"]},
            "activation 'Softsign' is not supported",
        ),
        ({"activations": ["Sigmoid", "Tanh"]}, "activations: expected 3 names"),
        (
            {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.3]},
            "activation 'HardSigmoid' with alpha 0.3 and beta 0.5 is not supported, only with 0.2",
        ),
        (
            {
                "activations": ["Sigmoid", "Affine", "Affine"],
                "activation_alpha": [1.0, 2.0],
            },
            "activation 'Affine' with alpha 2 and beta 0 is not supported, only with 1 and 0",
        ),
        ({"activations": [1.0, 2.0, 3.0]}, "activation '1.0' is not supported"),
        (
            {"activation_alpha": "1", "activations": ["Affine"] * 3},
            "activation_alpha is not a list",
        ),
        ({"direction": "sideways"}, "direction 'sideways' is unknown"),
        ({"direction": "bidirectional"}, "W has shape (1, 20, 3), expected (2, 20, 3)"),
        ({"clip": 0.0}, "clip is 0.0, not a positive number"),
        ({"clip": float("nan")}, "clip is nan, not a positive number"),
        ({"clip": [1.0]}, "clip is [1.0], not a positive number"),
    ],
)
def test_what_no_layer_computes_is_refused(
    tmp_path: Path, attributes: dict[str, Any], why: str
) -> None:
    contents = read(tmp_path, model_of([lstm_node(**attributes)], weights()))
    assert reason(contents).startswith(why)
    (refused,) = contents.refused
    assert (refused.name, refused.kind) == ("lstm", "ONNX LSTM")


def test_directions_with_other_activations_are_refused(tmp_path: Path) -> None:
    names = ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "Relu"]
    node = lstm_node(direction="bidirectional", activations=names)
    why = reason(read(tmp_path, model_of([node], weights(D=2))))
    assert why == "the activations of the two directions differ"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"W": np.zeros((1, 20), np.float32)}, "W has shape (1, 20), expected three sizes"),
        ({"W": np.zeros((1, 19, 3), np.float32)}, "W has shape (1, 19, 3), expected (1, 20, 3)"),
        ({"W": np.zeros((1, 20, 0), np.float32)}, "W has shape (1, 20, 0), expected three sizes"),
        ({"R": np.zeros((1, 24, 5), np.float32)}, "R has shape (1, 24, 5), expected (1, 20, 5)"),
        ({"B": np.zeros((1, 20), np.float32)}, "B has shape (1, 20), expected (1, 40)"),
        ({"B": np.zeros((1, 40), np.float64)}, "mixed types"),
        (dict.fromkeys("WR", np.zeros((1, 20, 5), np.int32)), "mixed types, or none of weights"),
        ({"W": np.zeros((1, 20, 3), np.complex64)}, "its weights are not in the file: W: 'W' has"),
    ],
)
def test_arrays_that_fit_no_lstm_are_refused(
    tmp_path: Path, changed: dict[str, Array], why: str
) -> None:
    assert reason(read(tmp_path, model_of([lstm_node()], {**weights(), **changed}))).startswith(why)


def test_weights_that_are_not_in_the_file_are_refused(tmp_path: Path) -> None:
    arrays = weights()
    W = arrays.pop("W")
    why = "its weights are not in the file: W: "
    given = read(tmp_path, model_of([lstm_node()], arrays, ["X", "W"]))
    assert reason(given) == f"{why}'W' is an input of the graph"
    nowhere = read(tmp_path, model_of([lstm_node()], arrays))
    assert reason(nowhere) == f"{why}nothing makes 'W'"
    product = helper.make_node("MatMul", ["one", "W_0"], ["W"])
    made = read(tmp_path, model_of([product, lstm_node()], {**arrays, "W_0": W}, ["X", "one"]))
    assert reason(made) == f"{why}it is computed by a node 'MatMul'"
    few = helper.make_node("LSTM", ["X", "W"], ["Y"])
    assert reason(read(tmp_path, model_of([few], {"W": W}))) == "it has no R"


def test_inputs_with_a_default_are_in_the_file(tmp_path: Path) -> None:
    """Before version 4 of the format all initialisers had to be inputs as well."""
    found = only(read(tmp_path, model_of([lstm_node()], weights(), ["X", "W", "R", "B"])))
    np.testing.assert_array_equal(found.arrays["weight_ih_l0"][:5], weights()["W"][0, :5])


# Where nodes lie in a file


def test_branches_see_what_is_around_them(tmp_path: Path) -> None:
    """If in If; W lies outermost, R in between, B innermost. Both branches have the same names."""
    first, second = weights(), weights(seed=1)
    innermost = branch([lstm_node("lstm", y="Y_in")], {"B": first["B"]}, "Y_in")
    other = branch([lstm_node("lstm", y="Y_in")], {"B": second["B"]}, "Y_in")
    inner = helper.make_node(
        "If", ["yes"], ["Y_mid"], "inner", then_branch=innermost, else_branch=other
    )
    middle = branch([inner], {"R": first["R"]}, "Y_mid")
    # Here W is another one, under the same name.
    apart = branch([lstm_node("lstm", y="Y_mid")], second, "Y_mid")
    outer = helper.make_node("If", ["yes"], ["Y"], "outer", then_branch=middle, else_branch=apart)
    model = model_of([outer], {"W": first["W"]}, ["X", "yes"])
    contents = read(tmp_path, model)
    layers = {found.name: found for found in contents.layers}
    assert sorted(layers) == [
        "outer/else_branch/lstm",
        "outer/then_branch/inner/else_branch/lstm",
        "outer/then_branch/inner/then_branch/lstm",
    ]
    then = layers["outer/then_branch/inner/then_branch/lstm"]
    assert_holds(then, parameters_of(first))
    mixed = parameters_of({**first, "B": second["B"]})
    assert_holds(layers["outer/then_branch/inner/else_branch/lstm"], mixed)
    assert_holds(layers["outer/else_branch/lstm"], parameters_of(second))
    assert [other.what for other in contents.others] == ["2 If nodes"]
    for found in contents.layers:
        assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


def test_shared_weights_are_shared(tmp_path: Path) -> None:
    """Many nodes of the same weights take the memory of one."""
    nodes = [lstm_node(f"lstm_{n}", y=f"Y_{n}") for n in range(300)]
    contents = read(tmp_path, model_of(nodes, weights(H=5), outputs=["Y_0"]))
    assert len(contents.layers) == 300
    assert len({id(found.arrays["weight_ih_l0"]) for found in contents.layers}) == 1


def test_shared_arrays_in_other_places_are_others(tmp_path: Path) -> None:
    other = helper.make_node("LSTM", ["X", "W", "R", "", "", "", "", "B"], ["Y_2"], "other")
    contents = read(tmp_path, model_of([lstm_node(), other], weights()))
    assert [found.name for found in contents.layers] == ["lstm"]
    assert [refused.reason for refused in contents.refused] == [
        "P has shape (1, 40), expected (1, 15)"
    ]


def test_loops_and_scans(tmp_path: Path) -> None:
    """What a body is given hides what is around it: there W is no constant."""
    for hidden in (False, True):
        body = branch([lstm_node("lstm", y="Y_in")], {}, "Y_in")
        names = ["number", "more"] + ["W"] * hidden
        body.input.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in names)
        loop = helper.make_node("Loop", ["count", "yes"], ["Y"], "loop", body=body)
        contents = read(tmp_path, model_of([loop], weights(), ["X", "count", "yes"]))
        if hidden:
            assert reason(contents).endswith("'W' is an input of the graph")
        else:
            assert only(contents).name == "lstm"
            assert_holds(only(contents), expected_arrays())


def test_functions_of_the_model(tmp_path: Path) -> None:
    """Called twice with other weights and attributes; one of the weights lies in the function."""
    inside = helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(weights()["B"]))
    lstm = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], "lstm", hidden_size=5)
    reference_to = lstm.attribute.add()
    reference_to.name, reference_to.ref_attr_name = "clip", "bound"
    reference_to.type = onnx.AttributeProto.FLOAT
    function = helper.make_function(
        "own",
        "Layer",
        ["x", "w", "r"],
        ["y"],
        [inside, lstm],
        [helper.make_opsetid("", 17)],
        attributes=["bound"],
    )
    calls = [
        helper.make_node("Layer", ["X", "W", "R"], ["Y"], "first", domain="own", bound=2.0),
        helper.make_node("Layer", ["X", "W_2", "R"], ["Y_2"], "second", domain="own"),
    ]
    arrays = {**weights(), "W_2": weights(seed=1)["W"]}
    contents = read(tmp_path, model_of(calls, arrays, outputs=["Y", "Y_2"], functions=[function]))
    first, second = contents.layers
    assert [first.name, second.name] == ["first/Layer/lstm", "second/Layer/lstm"]
    assert first.options["clip"] == 2.0
    assert "clip" not in second.options
    assert_holds(first, expected_arrays())
    assert_holds(second, parameters_of({**weights(), "W": arrays["W_2"]}))
    for found in contents.layers:
        assert compare_with_original(tmp_path / "model.onnx", found) <= 1e-6


def test_names_are_unique(tmp_path: Path) -> None:
    names = ["lstm", "lstm", "", "", "lstm#2", "lstm"]
    nodes = [lstm_node(name, y=f"Y_{number}") for number, name in enumerate(names)]
    contents = read(tmp_path, model_of(nodes, weights(), outputs=["Y_0"]))
    made = [found.name for found in contents.layers]
    assert made[:5] == ["lstm", "lstm#3", "Y_2", "Y_3", "lstm#2"]
    assert len(set(made)) == 6


def test_others_are_counted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["X", "W"], [f"C_{n}"]) for n in range(12)]
    nodes += [helper.make_node("GRU", ["X", "W", "R"], ["G"]), lstm_node()]
    contents = read(tmp_path, model_of(nodes, weights()))
    assert contents.format == "ONNX"
    assert [(other.name, other.what) for other in contents.others] == [
        ("Conv", "12 Conv nodes"),
        ("GRU", "1 GRU node"),
    ]
