"""What the benchmark runs: the grid, the numbers of a cell, and an adapter for each peer."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from fastlstm.bench import grid, peers, problem
from fastlstm.bench.grid import Cell
from fastlstm.bench.peers import numpy_reference, ours
from support.benchmark_fakes import FakeClock, in_float64
from support.optional import missing

TINY = Cell(T=3, B=2, I=5, H=4)
TRAINING = replace(TINY, training=True)
PROJECTED = replace(TINY, options=(("proj_size", 2),))
PEEPHOLES = replace(TINY, options=(("peepholes", True),))
COUPLED = replace(TINY, options=(("coupled_gates", True),))
RAGGED = Cell(T=50, B=3, I=5, H=4, ragged="lengths")
PATH_OF_PEERS = "fastlstm.bench.peers."


# --- the grid -------------------------------------------------------------------------------


def test_flops_of_one_layer_by_hand() -> None:
    # 16 rows of weights over 5 + 4 columns, a multiply and an add each, 3 steps of 2 sequences
    assert TINY.flops == 16 * 9 * 2 * 3 * 2 == 1728


def test_flops_of_stacked_bilstm_by_hand() -> None:
    # per direction: layer 0 reads 5 numbers, layer 1 the 8 of both directions below
    first, second = 16 * (5 + 4) * 2 * 3 * 2, 16 * (8 + 4) * 2 * 3 * 2
    assert replace(TINY, L=2, D=2).flops == 2 * (first + second) == 8064


def test_recurrent_bytes_by_hand() -> None:
    assert TINY.recurrent_bytes == 3 * (16 * 4) * 4
    assert replace(TINY, L=2, D=2, dtype="float64").recurrent_bytes == 3 * 4 * (16 * 4) * 8


def test_flops_of_training_by_hand() -> None:
    # dG (4H) times W and U gives dx and dh, dG times x and h gives dW and dU: as much again, twice
    assert TRAINING.flops == 1728 + 2 * (16 * 9 * 2 * 3 * 2)


def test_work_of_variants_by_hand() -> None:
    # A projection multiplies 4 numbers with 2 rows; U has the columns of 2 numbers.
    assert PROJECTED.flops == 2 * 3 * 2 * (16 * (5 + 2) + 2 * 4)
    assert PROJECTED.recurrent_bytes == 3 * (16 * 2 + 2 * 4) * 4
    assert replace(PROJECTED, L=2).flops == PROJECTED.flops + 2 * 3 * 2 * (16 * (2 + 2) + 2 * 4)
    assert COUPLED.flops == 1728 * 3 // 4
    assert PEEPHOLES.flops == TINY.flops, "elementwise work is not counted"
    assert RAGGED.flops == 2 * sum(RAGGED.lengths) * 16 * (5 + 4)
    assert RAGGED.recurrent_bytes == max(RAGGED.lengths) * (16 * 4) * 4


def test_lengths_are_always_the_same_and_differ_from_each_other() -> None:
    assert RAGGED.lengths == replace(RAGGED, H=9, ragged="offsets").lengths
    assert len(set(RAGGED.lengths)) == 3
    assert all(10 <= n <= 500 for n in replace(RAGGED, T=500, B=1000).lengths)
    assert TINY.lengths == (3, 3)
    assert TINY.rows_of_steps == (2, 2, 2)
    rows = RAGGED.rows_of_steps
    assert rows == tuple(sorted(rows, reverse=True))
    assert (rows[0], rows[-1], sum(rows)) == (3, 1, sum(RAGGED.lengths))


def test_vanilla_cell_has_as_much_work() -> None:
    assert TINY.vanilla is None
    assert PEEPHOLES.vanilla == COUPLED.vanilla == TINY
    mean = round(sum(RAGGED.lengths) / 3)
    assert RAGGED.vanilla == Cell(T=mean, B=3, I=5, H=4)
    # 16 * (5 + 2) + 2 * 4 = 120 multiply-adds a step: 4 * 3 * (5 + 3) = 96, 4 * 4 * (5 + 4) = 144,
    # and the first of two that are equally near.
    assert PROJECTED.vanilla == replace(TINY, H=3)
    large = Cell(T=100, B=1, I=128, H=256, options=(("proj_size", 64),))
    assert large.vanilla == Cell(T=100, B=1, I=128, H=175)


@pytest.mark.parametrize("name", grid.GRIDS)
def test_names_and_cells_are_unique(name: str) -> None:
    cells = grid.GRIDS[name]
    assert len({c.name for c in cells}) == len(cells)
    assert len({replace(c, note="") for c in cells}) == len(cells)
    for cell in cells:
        assert re.fullmatch(r"[\w-]+", cell.name), "a name needs no quotes in a shell"


def test_name_says_everything_that_differs() -> None:
    cell = Cell(T=80, B=16, I=9, H=256, L=2, D=2, dtype="float64")
    assert cell.name == "bilstm-T80-B16-I9-H256-L2-f64"
    assert Cell(T=1, B=1, I=16, H=16).name == "lstm-T1-B1-H16"
    assert TRAINING.name == "train-lstm-T3-B2-I5-H4"
    assert replace(TRAINING, D=2).name == "train-bilstm-T3-B2-I5-H4"
    assert PEEPHOLES.name == "lstm-T3-B2-I5-H4-peepholes"
    assert replace(PROJECTED, dtype="float64").name == "lstm-T3-B2-I5-H4-f64-proj_size_2"
    dropped = replace(TRAINING, options=(("zoneout_h", 0.1),))
    assert dropped.name == "train-lstm-T3-B2-I5-H4-zoneout_h_0p1"
    last = replace(RAGGED, options=(("return_sequences", False),))
    assert last.name == "lstm-T50-B3-I5-H4-return_sequences_False-lengths"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("T", 0),
        ("B", -1),
        ("I", 0),
        ("H", 0),
        ("L", 0),
        ("D", 3),
        ("dtype", "float16"),
        ("ragged", "masks"),
    ],
)
def test_cell_names_the_bad_argument(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        replace(TINY, **{field: value})


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (replace(TINY, options=(("return_sequences", False),)), "return_sequences"),
        (replace(TINY, D=2, options=(("merge_mode", "sum"),)), "merge_mode"),
        (replace(RAGGED, ragged="offsets"), "offsets"),
    ],
)
def test_cells_with_another_y_do_not_train_here(cell: Cell, why: str) -> None:
    with pytest.raises(ValueError, match=rf"^training must be False with another y, by {why}$"):
        replace(cell, training=True)


def test_variants_have_grids_of_their_own() -> None:
    for name, cells in grid.GRIDS.items():
        if name != "torch":  # a few of every kind
            assert any(cell.variant for cell in cells) == name.endswith("variants")
    assert all(cell.variant for cell in grid.GRIDS["training-variants"])
    assert len(grid.select("variants", ["*-lengths", "*-offsets"])) == 12


def test_select_by_name_and_pattern_keeps_the_order_of_the_grid() -> None:
    names = [c.name for c in grid.select("full", ["*-f64", "LSTM-t1-b1-h16"])]
    everything = [c.name for c in grid.GRIDS["full"]]
    assert names == [n for n in everything if n.endswith("-f64") or n == "lstm-T1-B1-H16"]
    assert len(names) == 7
    assert grid.select("short") == list(grid.GRIDS["short"])


def test_training_has_grids_of_its_own() -> None:
    for name, cells in grid.GRIDS.items():
        if name != "torch":
            assert all(cell.training == name.startswith("training") for cell in cells)
        assert all(cell.name.startswith("train-") == cell.training for cell in cells)
    assert len(grid.select("training", ["*-f64"])) == 3


# --- the numbers of a cell, and the check that results agree ----------------------------------


def test_problem_is_reproducible_and_nothing_in_it_is_zero_or_shared() -> None:
    cell = Cell(T=3, B=2, I=5, H=4, L=2, D=2)
    one, two = problem.make_problem(cell), problem.make_problem(cell)
    arrays = {"x": one.x, "h_0": one.h_0, "c_0": one.c_0, **one.parameters}
    again = {"x": two.x, "h_0": two.h_0, "c_0": two.c_0, **two.parameters}
    assert one.x.shape == (3, 2, 5)
    assert one.h_0.shape == one.c_0.shape == (4, 2, 4)
    assert one.parameters["weight_ih_l1_reverse"].shape == (16, 8)
    assert len(one.parameters) == 4 * 4
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert np.all(array != 0)
        np.testing.assert_array_equal(array, again[name])
    assert not np.any(one.h_0 == one.c_0)
    assert not np.array_equal(one.x, problem.make_problem(cell, seed=1).x)


def test_swapped_states_do_not_pass_for_rounding() -> None:
    p = problem.make_problem(TINY)
    base = in_float64(p)
    swapped = in_float64(replace(p, h_0=p.c_0, c_0=p.h_0))
    assert problem.agrees(problem.difference(base, base), TINY)
    assert not problem.agrees(problem.difference(swapped, base), TINY)


def test_gradients_of_the_results_are_reproducible_and_none_is_zero() -> None:
    cell = replace(TRAINING, L=2, D=2)
    dy, (dh_n, dc_n) = problem.result_gradients(cell)
    assert dy.shape == (3, 2, 8)
    assert dh_n.shape == dc_n.shape == (4, 2, 4)
    assert not np.any(dh_n == dc_n)
    again, (dh_again, dc_again) = problem.result_gradients(cell)
    for array, same in ((dy, again), (dh_n, dh_again), (dc_n, dc_again)):
        assert array.dtype == np.float32
        assert np.all(array != 0)
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("index", range(10))
def test_a_wrong_gradient_does_not_pass_for_rounding(index: int) -> None:
    base = in_float64(problem.make_problem(TRAINING))
    got = list(base)
    got[index] = got[index] * 1.001
    assert len(got) == 10
    assert not problem.agrees(problem.difference(tuple(got), base), TRAINING)


def test_tolerance_of_training_leaves_room_for_long_sums() -> None:
    assert problem.tolerance(TINY) == 1e-5
    assert problem.tolerance(TRAINING) == pytest.approx(1e-4)
    assert problem.tolerance(replace(TRAINING, dtype="float64")) == pytest.approx(1e-11)


def test_difference_is_relative_to_the_scale_of_each_array() -> None:
    base = tuple(np.array([1.0, scale]) for scale in (10.0, 100.0, 1000.0))
    got = (base[0], base[1] + np.array([0.0, 5.0]), base[2] - np.array([20.0, 0.0]))
    assert problem.difference(got, base) == pytest.approx(0.05)


def test_nan_and_wrong_shape_never_agree() -> None:
    good = (np.ones(3), np.ones(3), np.ones(3))
    bad = (np.ones(3), np.array([1.0, np.nan, 1.0]), np.ones(3))
    assert not problem.agrees(problem.difference(bad, good), TINY)
    assert not problem.agrees(problem.difference(good, bad), TINY)
    assert problem.difference((np.ones(2), np.ones(3), np.ones(3)), good) == float("inf")


# --- adapters -------------------------------------------------------------------------------

ODD = [
    Cell(T=1, B=1, I=5, H=7),
    Cell(T=6, B=3, I=7, H=11),
    Cell(T=5, B=1, I=13, H=19, D=2),
    Cell(T=4, B=2, I=3, H=5, L=2),
    Cell(T=7, B=3, I=9, H=6, L=3, D=2),
    Cell(T=5, B=2, I=6, H=9, L=2, D=2, dtype="float64"),
]
ODD += [replace(cell, training=True) for cell in ODD]
ODD += [
    PROJECTED,
    replace(PROJECTED, L=2, D=2, dtype="float64"),
    PEEPHOLES,
    replace(PEEPHOLES, L=2, D=2),
    COUPLED,
    replace(TINY, options=(("cell_clip", 1),)),
    replace(TINY, options=(("output_activation", "identity"),)),
    replace(TINY, options=(("return_sequences", False),)),
    replace(TINY, D=2, options=(("merge_mode", "sum"),)),
    RAGGED,
    replace(RAGGED, D=2),
    replace(RAGGED, ragged="offsets"),
    *(
        replace(cell, training=True)
        for cell in (
            replace(PROJECTED, L=2, D=2, dtype="float64"),
            replace(PEEPHOLES, L=2),
            COUPLED,
            replace(TINY, options=(("layer_norm", True),)),
            replace(TINY, options=(("gate_activation", "hard_sigmoid"),)),
            replace(TINY, L=2, D=2, options=(("zoneout_h", 0.1), ("zoneout_c", 0.3))),
            replace(TINY, L=2, options=(("recurrent_dropout", 0.25), ("dropout", 0.5))),
            RAGGED,
            replace(RAGGED, options=(("zoneout_h", 0.25),)),
        )
    ),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("cell", ODD, ids=lambda c: c.name)
@pytest.mark.parametrize("name", ["fastlstm", "numpy", *peers.PEERS])
def test_adapter_agrees_with_the_reference(name: str, cell: Cell) -> None:
    known = {"fastlstm": peers.OURS, "numpy": peers.REFERENCE, **peers.PEERS}
    if known[name].missing:
        missing(", ".join(known[name].missing))
    p = problem.make_problem(cell)
    if cell.training and name in ("onnxruntime", "openvino"):
        with pytest.raises(peers.UnsupportedError, match=r"^does not train here$"):
            known[name].build(p, 1)
        return
    can = known[name].variants
    if can is not None and not set(cell.variant) <= set(can):
        with pytest.raises(peers.UnsupportedError, match=f"^has no {cell.variant[0]} here$"):
            known[name].build(p, 1)
        return
    try:
        runner = known[name].build(p, 1)
    except peers.UnsupportedError:
        assert cell.dtype == "float64"
        assert name in ("onnxruntime", "openvino")
        return
    base = in_float64(p)
    got = runner.arrays()
    assert [a.shape for a in got] == [a.shape for a in base]
    assert all(a.dtype == cell.dtype for a in got)
    limit = {"float32": 3e-6, "float64": 1e-13}[cell.dtype]
    assert problem.difference(got, base) < limit
    # Calls in between leave no state behind.
    runner()
    runner()
    assert problem.difference(runner.arrays(), got) == 0.0


def test_repacking_leaves_the_layer_as_it_was() -> None:
    runner = ours.build(problem.make_problem(TRAINING), 1)
    assert hasattr(runner, "repack")
    before = runner.arrays()
    runner.repack()
    assert problem.difference(runner.arrays(), before) == 0.0


def test_unknown_peer_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown peer 'tensorflow'.*torch.*jax"):
        peers.select("torch,tensorflow")


def test_peers_not_installed_are_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = peers.Contestant("ghost", "ghost", ("no_such_module_at_all",), "nothing")
    monkeypatch.setitem(peers.PEERS, "ghost", ghost)
    installed, missing = peers.select("ghost")
    assert (installed, missing) == ([], [ghost])
    assert peers.select("") == ([], [])


@pytest.mark.parametrize("cell", [TINY, TRAINING], ids=lambda c: c.name)
def test_reference_is_skipped_where_it_would_take_too_long(
    monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    monkeypatch.setattr(numpy_reference, "LONGEST_CALL", 0.0)
    with pytest.raises(peers.UnsupportedError, match="skipped"):
        peers.REFERENCE.build(problem.make_problem(cell), 1)


def test_expected_time_is_extrapolated_from_a_few_steps() -> None:
    clock = FakeClock()
    asked: list[int] = []

    def steps(count: int) -> None:
        asked.append(count)
        clock.now += 0.5 * count

    assert numpy_reference.expected_seconds(steps, 100, clock) == pytest.approx(50.0)
    assert asked == [1, 4]
