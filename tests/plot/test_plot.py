"""Pictures: the right numbers in their artists, and colours that keep their order in grey."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, Trace, explain, plot
from fastlstm._colours import LINES, SIZE, colour_map
from fastlstm.training import Epoch, GradientNorms, Score
from support.optional import require
from support.training_runs import make_trainer

require("matplotlib").use("Agg")

from matplotlib.figure import Figure  # noqa: E402  # where it is missing, nothing is tested

T, B, I, H = 12, 3, 4, 5
X = np.random.default_rng(0).normal(size=(T, B, I)).astype(np.float32)


def axes_of() -> Any:
    return Figure().subplots()


def traced(**options: Any) -> Trace:
    return BiLSTM(I, H, seed=1).trace(X, lengths=[12, 7, 9], **options)


def lightness(rgb: Any) -> Any:
    """CIELAB's L of sRGB (n, 3), by the definition of the luminance in IEC 61966-2-1."""
    coded = np.asarray(rgb, np.float64)
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


@pytest.mark.parametrize("name", ["amount", "signed"])
def test_maps_grow_lighter_evenly(name: str) -> None:
    shades = lightness(colour_map(name) / 255)
    assert (np.diff(shades) > -0.1).all()  # colours are rounded to 8 bits
    steps = np.diff(shades[::8])
    assert steps.min() > 0.7 * steps.mean()
    assert steps.max() < 1.3 * steps.mean()


def test_the_signed_map_is_grey_at_0() -> None:
    middle = colour_map("signed")[SIZE // 2 - 1 : SIZE // 2 + 1].astype(int)
    assert np.ptp(middle, axis=1).max() <= 3


def test_lines_differ_by_more_than_colour() -> None:
    for k in range(3):
        assert len({str(look[k]) for look in LINES}) == len(LINES)


def test_gates() -> None:
    trace = traced()
    axes = plot.gates(trace, X, row=1, sequence=1, names=["f", "c"], figure=Figure())
    assert [one.get_ylabel() for one in axes] == ["x", "f, by unit", "c, by unit"]
    for k, line in enumerate(axes[0].get_lines()):
        np.testing.assert_array_equal(line.get_ydata(), [*X[:7, 1, k], *[np.nan] * 5])  # no padding
    for panel, name in zip(axes[1:], "fc", strict=True):
        (image,) = panel.images
        drawn = np.ma.filled(image.get_array().astype(np.float64), np.nan)
        np.testing.assert_array_equal(drawn, getattr(trace, name)[1, :, 1].T)
    assert (axes[1].images[0].norm.vmin, axes[1].images[0].norm.vmax) == (0, 1)
    norm = axes[2].images[0].norm
    assert norm.vmin == -norm.vmax == -np.nanmax(np.abs(trace.c[1, :, 1]))
    f = trace.f[1, :7, 1]
    title = f"f of l0_reverse: open (above 0.9) {(f > 0.9).mean():.0%}, shut (below 0.1) "
    assert axes[1].get_title(loc="left") == title + f"{(f < 0.1).mean():.0%}"
    c = trace.c[1, :7, 1]
    t, unit = np.unravel_index(np.abs(c).argmax(), c.shape)
    assert axes[2].get_title(loc="left").endswith(f"{c[t, unit]:+.3g}, of unit {unit} at step {t}")


def test_gates_of_chosen_steps_and_units_have_their_numbers() -> None:
    trace = LSTM(I, H, seed=1).trace(X[:, 0], steps=slice(4, 12, 2), units=[1, 3])
    axes = plot.gates(trace, X[:, 0], figure=Figure())
    assert len(axes) == 7
    np.testing.assert_array_equal(axes[0].get_lines()[0].get_ydata(), X[4:12:2, 0, 0])
    assert axes[-1].xaxis.get_major_formatter()(1, None) == "6"
    assert [label.get_text() for label in axes[-1].get_yticklabels()] == ["1", "3"]


def test_gates_of_many_chosen_units_have_some_of_their_numbers() -> None:
    trace = LSTM(I, 40, seed=1).trace(X[:, 0], units=np.arange(1, 40, 2))
    axes = plot.gates(trace, figure=Figure())
    assert axes[-1].yaxis.get_major_formatter()(1, None) == "3"
    assert axes[-1].yaxis.get_major_formatter()(20, None) == ""


def test_memory() -> None:
    trace = traced()
    constants = trace.time_constants()
    ax = axes_of()
    assert plot.memory(trace, ax=ax) is ax
    for line, own in zip(ax.get_lines(), constants, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), np.sort(own))
    row, unit = np.unravel_index(constants.argmax(), constants.shape)
    where = f"unit {unit} of {trace.rows[row].name}"
    assert ax.get_title().startswith(f"{where} remembers longest: {constants.max():.3g} steps")
    assert len(plot.memory(trace, row=1, ax=axes_of()).get_lines()) == 1


def test_attributions_over_series() -> None:
    found = explain.gradients(LSTM(I, H, seed=1), X, 2, lengths=[12, 7, 9])
    ax = plot.attributions(found, X[:7, 1, 0], sequence=1, ax=axes_of())
    shares = found.values[:7, 1].sum(axis=1)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], shares)
    (line,) = ax.figure.axes[1].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), X[:7, 1, 0])
    t = np.abs(shares).argmax()
    assert ax.get_title().startswith(f"step {t} gives most: {shares[t]:+.3g}, all together")
    ax = plot.attributions(found, sequence=1, feature=2, ax=axes_of())
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], found.values[:7, 1, 2])


def test_attributions_of_a_mask_are_at_their_steps() -> None:
    mask = np.zeros((T, B), bool)
    mask[[1, 2, 5, 8], 0] = True
    found = explain.gradients(LSTM(I, H, seed=1), X, 2, mask=mask)
    ax = plot.attributions(found, X[mask[:, 0], 0, 0], ax=axes_of())
    shares = found.values[:, 0].sum(axis=1)
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in ax.patches],
                               [1, 2, 5, 8])  # fmt: skip
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], shares[mask[:, 0]])
    assert list(ax.figure.axes[1].get_lines()[0].get_xdata()) == [1, 2, 5, 8]
    t = np.abs(shares).argmax()
    assert ax.get_title().startswith(f"step {t} gives most: {shares[t]:+.3g}, all together")
    ax = plot.attributions(found, tokens="abcd", ax=axes_of())
    assert f"(step {t}) gives most" in ax.get_title()
    with pytest.raises(ValueError, match="sequence: got 1, which has no step that exists"):
        plot.attributions(found, sequence=1)


def test_attributions_over_text() -> None:
    words = ["it", "is", "not", "bad", "at", "all", "although", "what", "is", "told", "comes"]
    words += ["rather", "late", "and", "ends", "before", "its", "time"]
    shares = np.linspace(-1, 0.5, len(words))
    ax = plot.attributions(shares, tokens=words, ax=axes_of())
    assert [text.get_text() for text in ax.texts] == words
    shades = lightness([bar.get_facecolor()[:3] for bar in ax.patches])
    assert (np.diff(shades) > 0).all()  # as the shares do
    assert len({text.get_position()[1] for text in ax.texts}) == 2  # lines
    assert ax.get_title() == f"'it' (step 0) gives most: -1, all together {shares.sum():+.3g}"


def test_forecast() -> None:
    truth, answers = np.array([1.0, 2, 3, np.nan]), np.array([np.nan, 2.5, 2, 4])
    interval = "80%", answers - 0.6, answers + 0.6
    ax = plot.forecast(answers, truth=truth, naive=("last", [0, 1, 2, 3]), interval=interval,
                       ax=axes_of())  # fmt: skip
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_array_equal(drawn["model"], answers)
    np.testing.assert_array_equal(drawn["truth"], truth)
    np.testing.assert_array_equal(drawn["last"], [0, 1, 2, 3])
    assert ax.collections[0].get_label() == "80%, holds 50%"
    assert ax.get_title() == f"RMSE {np.sqrt((0.25 + 1) / 2):.3g} over 2 steps"


def test_answers_without_a_neighbour_are_seen() -> None:
    """A line has no point where both neighbours are missing: one answer after a past, say."""
    nan = np.nan
    ax = plot.forecast([nan, nan, nan, 4], truth=[1, 2, nan, 3], naive=("last", [1, nan, 2, 2]),
                       ax=axes_of())  # fmt: skip
    truth, model, naive = (
        next(line for line in ax.get_lines() if line.get_label() == name)
        for name in ("truth", "model", "last")
    )
    for line, alone in ((truth, [3]), (model, [3]), (naive, [0])):
        assert line.get_marker() == "o"
        assert line.get_markevery() == alone
    whole = plot.forecast(np.arange(3.0), ax=axes_of()).get_lines()[0]
    assert whole.get_marker() == "None"


def test_an_interval_without_an_end_holds_nothing_and_misses_nothing() -> None:
    ends = [0.0, np.nan, -np.inf, 5], [1.0, 9, 3, np.nan]
    ax = plot.forecast(np.ones(4), truth=np.full(4, 2.0), interval=("80%", *ends), ax=axes_of())
    assert ax.collections[0].get_label() == "80%, holds 50%"


def test_predicted_over_true() -> None:
    ax = plot.predicted_over_true([1, 2], [1, 4], ax=axes_of())
    assert ax.get_lines()[1].get_xydata().tolist() == [[1, 1], [2, 4]]
    assert ax.get_title() == f"RMSE {np.sqrt(2):.3g} of 2 answers"


def test_confusion_matrix() -> None:
    ax = plot.confusion_matrix([[3, 1], [0, 0]], ["a", "b"], ax=axes_of())
    assert ax.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]
    assert [text.get_text() for text in ax.texts] == ["3", "1", "0", "0"]
    assert ax.get_title() == "accuracy 0.75\nmost often a taken for b: 1"


def test_confusion_matrix_without_answers() -> None:
    assert plot.confusion_matrix(np.zeros((2, 2)), ax=axes_of()).get_title() == "no answers"


def test_dollars_are_no_formulas() -> None:
    """Of `$` in pairs matplotlib would set what is between, and fail where it is no formula."""
    names = np.array(["$\\x$", "a$_$"])  # as scikit-learn has classes: an array
    for ax in (
        plot.confusion_matrix([[1, 2], [3, 4]], names, ax=axes_of()),
        plot.label_scores({"F1": [0.5, 1]}, names, ax=axes_of()),
        plot.attributions([1.0, -1], tokens=names.tolist(), ax=axes_of()),
    ):
        ax.figure.canvas.draw()
        texts = [text.get_text() for text in (*ax.get_yticklabels(), *ax.texts)]
        assert set(names) <= set(texts)


def test_label_scores() -> None:
    ax = plot.label_scores({"recall": [0.25, np.nan]}, ["a", "b"], ax=axes_of())
    assert [bar.get_width() for bar in ax.patches] == [0.25, 0]


def test_learning_curves() -> None:
    run = make_trainer()
    run.fit()
    other = [Epoch(Score(1.0, 3.0), None), Epoch(Score(1.0, 2.0), None)]
    ax = plot.learning_curves({"one": run, "two": other}, unit="squared metres", ax=axes_of())
    drawn = {line.get_label(): line for line in ax.get_lines()}
    log = run.log
    np.testing.assert_array_equal(drawn["one: training"].get_ydata(), log["training_loss"])
    np.testing.assert_array_equal(drawn["one: validation"].get_ydata(), log["validation_loss"])
    assert drawn["two: training"].get_xydata().tolist() == [[1, 3], [2, 2]]
    looks = {
        (line.get_color(), line.get_linestyle()) for name, line in drawn.items() if "tr" in name
    }
    assert len(looks) == 2
    assert (ax.get_ylabel(), ax.get_yscale()) == ("squared metres", "log")
    least = log["validation_loss"].min()
    assert ax.get_title() == f"least validation loss {least:.4g}, epoch {run.best_epoch}, one"


def test_a_run_that_diverged_has_a_least_loss() -> None:
    nan = float("nan")
    run = [Epoch(Score(1.0, 3.0), Score(1.0, each)) for each in (2.0, 1.5, nan)]
    lost = [Epoch(Score(1.0, nan), Score(1.0, nan))]
    title = plot.learning_curves({"lost": lost, "run": run}, ax=axes_of()).get_title()
    assert title == "least validation loss 1.5, epoch 2, run"
    assert plot.learning_curves({"lost": lost}, ax=axes_of()).get_title() == ""


def test_gradient_norms() -> None:
    collected = GradientNorms()
    run = make_trainer(clip=1e-3, callbacks=[collected])
    assert np.isnan(run.gradient_norm)
    run.fit()
    assert len(collected.norms) == run.steps
    assert collected.norms[-1] == run.gradient_norm > 1e-3  # before it was clipped
    ax = plot.gradient_norms({"run": collected.norms}, clip=1e-3, ax=axes_of())
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), collected.norms)
    assert ax.get_lines()[0].get_label() == "run, longer than 0.001: 100%"
    step = int(np.argmax(collected.norms))
    assert ax.get_title() == f"longest gradient {collected.norms[step]:.3g}, step {step + 1}"
    again = GradientNorms()
    again.load_state_dict(collected.state_dict())
    assert again.norms == collected.norms


def test_figures_are_made_where_no_axes_are_given() -> None:
    from matplotlib import pyplot

    for ax in (plot.memory(traced()), plot.gates(traced())[0], plot.confusion_matrix(np.eye(2))):
        assert pyplot.fignum_exists(ax.figure.number)
        pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: plot.gates(X), TypeError, "trace: got ndarray, expected a Trace"),
        (lambda: plot.gates(traced(), row=2), ValueError, "row: got 2, expected 0 to 1"),
        (lambda: plot.gates(traced(), sequence=-1), ValueError, "sequence: got -1, expected 0 to"),
        (lambda: plot.gates(traced(), names=["z_i"]), ValueError, "names: 'z_i' was not kept"),
        (lambda: plot.gates(traced(), X[:5]), ValueError, r"x: got shape \(5, 3, 4\) of float32"),
        (lambda: plot.gates(traced(), features=[1]), ValueError, "features: got some, expected"),
        (lambda: plot.memory(traced(), ax=3), TypeError, "ax: got int, expected axes"),
        (lambda: plot.memory(traced(names="c")), ValueError, "names: 'f' was not kept"),
        (lambda: plot.attributions(np.ones((2, 2, 2))), ValueError, "found: got shape"),
        (lambda: plot.attributions([1.0, np.nan]), ValueError, "found: holds NaN or infinity"),
        (lambda: plot.attributions([1.0, 2], tokens=["a"]), ValueError, "tokens: got 1, expected"),
        (lambda: plot.attributions([1.0], feature=1), ValueError, "feature: got 1, but found has"),
        (lambda: plot.forecast([1.0, 2], truth=[1.0]), ValueError, "truth: got 1, expected 2"),
        (lambda: plot.forecast([[1.0]]), ValueError, r"answers: got shape \(1, 1\), expected 1"),
        (lambda: plot.confusion_matrix(np.ones((2, 3))), ValueError, r"found: got shape \(2, 3\)"),
        (lambda: plot.confusion_matrix(np.eye(2), ["a"]), ValueError, "classes: got 1, expected 2"),
        (lambda: plot.label_scores(3), TypeError, "found: got 3, expected an Evaluation"),
        (lambda: plot.learning_curves([]), TypeError, "runs: got list, expected a mapping"),
        (lambda: plot.learning_curves({}), ValueError, "runs: got none, expected one"),
        (lambda: plot.learning_curves({"a": []}), ValueError, r"runs\['a'\]: has no epoch"),
        (lambda: plot.learning_curves({"a": [1]}), TypeError, r"runs\['a'\]: got 1, expected epo"),
        (lambda: plot.gradient_norms({"a": [1.0]}, clip=-1), ValueError, "clip: got -1, expected"),
        (lambda: plot.gradient_norms({"a": [np.nan]}), ValueError, r"runs\['a'\]: holds NaN alone"),
    ],
)  # fmt: skip
def test_mistakes(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
