"""The classifier and the regressor: what they take, what they give, and how often the same."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from support.optional import require

require("sklearn")  # before what needs it
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.experimental import enable_halving_search_cv  # noqa: E402, F401
from sklearn.metrics import accuracy_score  # noqa: E402
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score  # noqa: E402
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402

import fastlstm  # noqa: E402
from fastlstm.sklearn import LSTMClassifier, LSTMRegressor  # noqa: E402
from fastlstm.training import Network  # noqa: E402

GIVEN: dict[str, Any] = {"hidden_size": 8, "epochs": 8, "random_state": 0}


def sequences(ragged: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, 60) if ragged else [9] * 60
    x: Any = [rng.normal(size=(n, 2)) for n in lengths]
    y = np.array(["up" if each[:, 0].sum() > 0 else "down" for each in x])
    return (x if ragged else np.array(x)), y


def as_pictures(x: Any) -> Any:
    return x.reshape(-1, 8, 8)


def test_learns_digits_row_by_row() -> None:
    x, y = load_digits(return_X_y=True)
    x = as_pictures(x)
    model = LSTMClassifier(32, epochs=8, random_state=0).fit(x[:1200], y[:1200])
    assert model.score(x[1200:], y[1200:]) > 0.85
    assert model.n_features_in_ == 8
    assert model.classes_.tolist() == list(range(10))
    assert len(model.loss_curve_) == model.n_iter_ == model.best_epoch_ == 8


@pytest.mark.parametrize("model", [LSTMClassifier(**GIVEN), LSTMRegressor(**GIVEN)])
def test_list_of_sequences_is_what_an_array_is(model: Any) -> None:
    x, names = sequences()
    y = names if isinstance(model, LSTMClassifier) else x[:, :, 0].sum(axis=1)
    of_array = clone(model).fit(x, y)
    of_list = clone(model).fit(list(x), y)
    np.testing.assert_array_equal(of_array.predict(x), of_list.predict(list(x)))
    np.testing.assert_array_equal(of_array.network_.parameters, of_list.network_.parameters)


def test_two_axes_are_one_feature() -> None:
    x, y = sequences()
    flat, deep = x[..., 0], x[..., :1]
    one, other = LSTMClassifier(**GIVEN).fit(flat, y), LSTMClassifier(**GIVEN).fit(deep, y)
    np.testing.assert_array_equal(one.predict_proba(flat), other.predict_proba(deep))
    assert (one.n_features_in_, other.n_features_in_) == (9, 1)
    with pytest.raises(ValueError, match=r"Expected 2D array, got 3D array instead"):
        one.predict(np.zeros((2, 4, 9)))


def test_data_frames_keep_names() -> None:
    pandas = require("pandas")
    x, y = sequences(ragged=True)
    frames = [pandas.DataFrame(each, columns=["a", "b"]) for each in x]
    model = LSTMClassifier(**GIVEN).fit(frames, y)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert model.network_.features == ("a", "b")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict([frame.rename(columns={"b": "c"}) for frame in frames])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(x)


@pytest.mark.parametrize("ragged", [False, True])
def test_answer_at_each_step(ragged: bool) -> None:
    x, _ = sequences(ragged)
    truth: Any = [np.cumsum(each[:, 0]) for each in x]
    labels: Any = [np.where(each > 0, "p", "n") for each in truth]
    if not ragged:
        truth, labels = np.array(truth), np.array(labels)
    given = {**GIVEN, "epochs": 60, "each_step": True}
    regressor = LSTMRegressor(**given).fit(x, truth, np.ones(60))
    classifier = LSTMClassifier(**given, class_weight="balanced").fit(x, labels)
    assert regressor.score(x, truth) > 0.8
    assert classifier.score(x, labels) > 0.8
    for answers in (regressor.predict(x), classifier.predict(x)):
        assert [each.shape for each in answers] == [each.shape for each in truth]
    flat = np.concatenate(list(classifier.predict(x))), np.concatenate(list(labels))
    assert classifier.score(x, labels) == accuracy_score(*flat)


def test_labels_of_which_any_may_apply() -> None:
    x, _ = sequences()
    y = (x.sum(axis=1) > 0).astype(int)  # (N, 2)
    model = LSTMClassifier(16, epochs=80, random_state=0).fit(x, y)
    assert model.predict(x).shape == model.predict_proba(x).shape == y.shape
    assert model.score(x, y) > 0.8  # all labels right


def test_several_answers() -> None:
    x, _ = sequences()
    y = x.sum(axis=1) * [1, 100]
    model = LSTMRegressor(16, epochs=60, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.8
    assert MultiOutputRegressor(LSTMRegressor(**GIVEN)).fit(x, y).predict(x).shape == y.shape
    names = np.array([["a", "b"], ["c", "d"]])[[0, 1], (y > 0).astype(int)]
    each = MultiOutputClassifier(LSTMClassifier(**GIVEN)).fit(x, names)
    assert each.predict(x).shape == names.shape


def test_weights_of_zero_leave_out() -> None:
    x, y = sequences(ragged=True)
    weights = np.ones(60)
    weights[40:] = 0
    given = {**GIVEN, "early_stopping": True}
    weighted = LSTMClassifier(**given).fit(x, y, weights)
    plain = LSTMClassifier(**given).fit(x[:40], y[:40])
    np.testing.assert_array_equal(weighted.network_.parameters, plain.network_.parameters)


def test_early_stopping_keeps_the_best() -> None:
    x, y = sequences()
    noise = np.random.default_rng(1).permutation(y)
    model = LSTMClassifier(
        16, epochs=200, early_stopping=True, n_iter_no_change=4, random_state=0
    ).fit(x, noise)
    losses = model.validation_loss_curve_
    assert model.n_iter_ == len(losses) == model.best_epoch_ + 4 < 200
    assert int(np.argmin(losses)) == model.best_epoch_ - 1


def test_goes_on_where_it_was() -> None:
    x, y = sequences()
    model = LSTMClassifier(**GIVEN, warm_start=True).fit(x, y)
    first = model.loss_curve_[0]
    model.fit(x, y)
    assert model.n_iter_ == 16
    assert model.loss_curve_[8] < first
    with pytest.raises(ValueError, match=r"y contains classes \['sideways'\]"):
        model.fit(x, np.where(y == "up", "sideways", y))
    parts = LSTMClassifier(**GIVEN)
    for _ in range(30):
        parts.partial_fit(x[:30], y[:30], classes=["down", "up"]).partial_fit(x[30:], y[30:])
    assert parts.n_iter_ == 60
    assert parts.score(x, y) > 0.9
    again = LSTMClassifier(**GIVEN).partial_fit(x, y).loss_curve_
    assert again == LSTMClassifier(**{**GIVEN, "epochs": 1}).fit(x, y).loss_curve_


@pytest.mark.slow  # starts processes
def test_search_gives_the_same_bits_in_two_processes() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:150], y[:150]
    pipeline = make_pipeline(
        StandardScaler(), FunctionTransformer(as_pictures), LSTMClassifier(**GIVEN)
    )
    grid = {"lstmclassifier__hidden_size": [4, 8], "lstmclassifier__learning_rate": [0.01, 0.03]}
    searches = [GridSearchCV(pipeline, grid, cv=2, n_jobs=n).fit(x, y) for n in (1, 2)]
    one, two = (search.best_estimator_[-1].network_.parameters for search in searches)
    np.testing.assert_array_equal(one, two)
    scores = [search.cv_results_["mean_test_score"] for search in searches]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(*(search.predict_proba(x) for search in searches))


def test_fits_into_what_scikit_learn_has() -> None:
    require("pandas")
    x, y = sequences(ragged=True)
    assert cross_val_score(LSTMClassifier(**{**GIVEN, "epochs": 40}), x, y, cv=3).mean() > 0.7
    halving = HalvingGridSearchCV(
        LSTMClassifier(**GIVEN), {"hidden_size": [2, 4, 8]}, cv=2, random_state=0
    )
    assert halving.fit(x, y).best_params_["hidden_size"] in (2, 4, 8)
    series = np.random.default_rng(0).normal(size=(40, 6))
    pipeline = make_pipeline(StandardScaler(), LSTMRegressor(**GIVEN)).set_output(
        transform="pandas"
    )
    pipeline.fit(series, series.sum(axis=1))
    assert pipeline[-1].feature_names_in_.tolist() == [f"x{i}" for i in range(6)]


def test_threads_are_put_back_and_do_not_change_bits() -> None:
    x, y = sequences()
    before = fastlstm.get_num_threads()
    models = [LSTMClassifier(**GIVEN, n_jobs=n).fit(x, y) for n in (None, 2, -1)]
    assert fastlstm.get_num_threads() == before
    for model in models[1:]:
        np.testing.assert_array_equal(model.network_.parameters, models[0].network_.parameters)


def test_pickles_and_saves(tmp_path: Any) -> None:
    x, y = sequences(ragged=True)
    model = LSTMClassifier(**GIVEN).fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        np.array(again.predict_proba(x)), np.array(model.predict_proba(x))
    )
    model.network_.save(tmp_path / "model.npz")
    network = Network.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(network.predict(x), model.predict(x))  # by their names


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = sequences()
    LSTMClassifier(4, epochs=2, verbose=True, early_stopping=True, random_state=0).fit(x, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert "loss = " in lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, r"'hidden_size' parameter of LSTMClassifier must be an int"),
        ({"epochs": 2.5}, r"'epochs' parameter"),
        ({"learning_rate": 0}, r"'learning_rate' parameter"),
        ({"pooling": "sum"}, r"'pooling' parameter"),
        ({"class_weight": {"left": 2}}, r"are not in class_weight"),
    ],
)
def test_parameters_are_checked_in_fit(change: dict[str, Any], message: str) -> None:
    x, y = sequences()
    with pytest.raises(ValueError, match=message):
        LSTMClassifier(**{**GIVEN, **change}).fit(x, y)


def test_bad_input() -> None:
    x, y = sequences(ragged=True)
    model = LSTMClassifier(**GIVEN).fit(x, y)
    wide = [np.zeros((4, 3))]
    with pytest.raises(ValueError, match="X has 3 features, but LSTMClassifier is expecting 2"):
        model.predict(wide)
    with pytest.raises(ValueError, match=r"X\[1\] has shape \(4, 3\)"):
        model.predict([x[0], *wide])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict([np.full((3, 2), np.nan)])
    with pytest.raises(ValueError, match=r"X\[1\] with 0 step"):
        model.predict([x[0], np.zeros((0, 2))])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        model.predict([])
    with pytest.raises(ValueError, match="0 sample"):
        model.predict(np.zeros((0, 5, 2)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(x, y[:-1])
    with pytest.raises(ValueError, match=r"y\[0\] has shape \(1,\)"):
        LSTMClassifier(**GIVEN, each_step=True).fit(x, [["a"]] * 60)
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(5,\), .*take each_step=True"):
        LSTMRegressor(**GIVEN).fit(x[:2], [np.zeros(3), np.zeros(5)])
    with pytest.raises(ValueError, match="Negative values"):
        model.fit(x, y, -np.ones(60))
    with pytest.raises(ValueError, match="not supported for partial_fit"):
        LSTMClassifier(**GIVEN, class_weight="balanced").partial_fit(x, y)


def test_classes_stay_those_of_the_first_part() -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 4, 2)), np.arange(20) % 2
    model = LSTMClassifier(4, random_state=0).partial_fit(x, y, classes=[1, 0])
    model.partial_fit(x, y, classes=[0, 1])
    before = model.network_.parameters.copy()
    with pytest.raises(ValueError, match=r"`classes=\[0, 1, 2\]` is not the same"):
        model.partial_fit(x, y, classes=[0, 1, 2])
    np.testing.assert_array_equal(model.network_.parameters, before)


def test_series_of_one_feature_may_happen_to_be_as_long() -> None:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=length) for length in (5, 7, 5, 6)]
    model = LSTMRegressor(4, epochs=1, random_state=0).fit(x, np.arange(4.0))
    expected = model.predict(x)
    np.testing.assert_array_equal(model.predict(x[:1]), expected[:1])
    np.testing.assert_array_equal(model.predict([x[0], x[2]]), expected[[0, 2]])
    np.testing.assert_array_equal(model.predict([x[0].tolist()]), expected[:1])


def test_training_goes_on_at_the_rate_that_is_asked_for() -> None:
    """A schedule that fell to nothing doesn't keep the next run from learning."""
    x = np.random.default_rng(0).normal(size=(64, 5, 2))
    model = LSTMRegressor(8, epochs=5, schedule="cosine", warm_start=True, random_state=0)
    model.fit(x, x[..., 0].sum(1))
    first = model.network_.parameters.copy()
    model.fit(x, x[..., 0].sum(1))
    assert np.abs(model.network_.parameters - first).max() > 0.01
    second = model.network_.parameters.copy()
    model.set_params(learning_rate=1e-9).partial_fit(x, x[..., 0].sum(1))
    assert np.abs(model.network_.parameters - second).max() < 1e-6
    for name, value in {"hidden_size": 9, "bidirectional": True, "pooling": "mean"}.items():
        with pytest.raises(ValueError, match=f"{name}: got {value!r}, expected .* the fit before"):
            clone(model).fit(x, x[..., 0].sum(1)).set_params(**{name: value}).fit(x, x[:, 0, 0])


def test_labels_of_other_numbers_leave_everything_as_it_was() -> None:
    x, y = np.random.default_rng(0).normal(size=(8, 4, 2)), np.eye(2, dtype=int)[[0, 1] * 4]
    model = LSTMClassifier(4, epochs=1, random_state=0).fit(x, y)
    expected = model.predict_proba(x)
    with pytest.raises(ValueError, match="y has label 2, expected 0 and 1"):
        model.fit(x, 2 * y)
    np.testing.assert_array_equal(model.predict_proba(x), expected)


@pytest.mark.filterwarnings("ignore::fastlstm.training.UnscaledWarning")
def test_a_fit_that_fails_leaves_nothing_behind() -> None:
    x, y = np.random.default_rng(0).normal(size=(8, 4, 2)), np.arange(8.0)
    model = LSTMRegressor(4, epochs=1, random_state=0, scaling=False)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        model.fit(x, y * 1e300)
    assert not hasattr(model, "network_")
    assert not hasattr(model, "n_features_in_")
    expected = model.fit(x, y).predict(x)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        model.fit(x[..., :1], y * 1e300)
    np.testing.assert_array_equal(model.predict(x), expected)


def test_what_has_no_weight_has_no_part_in_the_scaling() -> None:
    x, _ = sequences()
    x[:20, :, 1] = 0.1
    weights = np.repeat([1.0, 0.0], [20, 40])
    some = LSTMRegressor(**GIVEN).fit(x[:20], np.full(20, 0.1))
    weighted = LSTMRegressor(**GIVEN).fit(x, np.where(weights, 0.1, 9.0), weights)
    for model in (some, weighted):
        assert model.network_.scaling.x_scale[1] == model.network_.scaling.y_scale[0] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("loss", "mae"), ("dropout", 0.5), ("scaling", False), ("lstm_params", {"peepholes": True})],
)
def test_a_fit_that_goes_on_has_the_parameters_that_it_began_with(name: str, value: Any) -> None:
    x, _ = sequences()
    model = LSTMRegressor(**GIVEN).fit(x, x[:, 0, 0])
    with pytest.raises(ValueError, match=f"{name}: got .*, expected .* as in the fit before"):
        model.set_params(**{name: value}).partial_fit(x, x[:, 0, 0])


def test_class_weights_of_a_fit_that_goes_on() -> None:
    x, y = sequences()
    model = LSTMClassifier(**GIVEN, class_weight={"up": 2.0}).fit(x, y).partial_fit(x, y)
    with pytest.raises(ValueError, match=r"class_weight: got .*, expected"):
        model.set_params(class_weight={"up": 3.0}).partial_fit(x, y)


def test_weight_decay_of_a_fit_that_goes_on_is_that_of_now() -> None:
    x, _ = sequences()
    model = LSTMRegressor(**GIVEN).fit(x, x[:, 0, 0])
    norm = np.linalg.norm(model.network_.parameters)
    model.set_params(weight_decay=90.0).partial_fit(x, x[:, 0, 0])  # times a rate of 0.01
    assert np.linalg.norm(model.network_.parameters) < 0.2 * norm


@pytest.mark.filterwarnings("ignore::fastlstm.training.UnscaledWarning")
def test_a_part_that_fails_leaves_the_network_as_it_was() -> None:
    x, _ = sequences()
    y = x[:, 0, 0]
    given: dict[str, Any] = {**GIVEN, "batch_size": 8}
    model, other = (LSTMRegressor(**given).fit(x, y) for _ in range(2))
    late = x.copy()
    late[40] = 1e300  # in one batch of eight
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        model.partial_fit(late, y)
    np.testing.assert_array_equal(model.network_.parameters, other.network_.parameters)
    model.partial_fit(x, y)
    other.partial_fit(x, y)
    np.testing.assert_array_equal(model.network_.parameters, other.network_.parameters)


@pytest.mark.parametrize("each_step", [False, True])
def test_balanced_classes_count_by_weights(each_step: bool) -> None:
    """A weight of 2 is what the sequence twice is."""
    x, y = sequences(ragged=True)
    answers: Any = [np.where(each[:, 0] > 0.5, "up", "down") for each in x] if each_step else y
    weights = np.random.default_rng(1).integers(0, 3, 60)
    rows = np.repeat(np.arange(60), weights)
    model = LSTMClassifier(
        **GIVEN, each_step=each_step, class_weight="balanced", dtype="float64", batch_size=999
    )
    weighted = clone(model).fit(x, answers, weights)
    twice = clone(model).fit([x[i] for i in rows], [answers[i] for i in rows])
    np.testing.assert_allclose(weighted.network_.parameters, twice.network_.parameters, atol=1e-9)


def test_what_masked_arrays_hide_is_no_number() -> None:
    x, y = sequences()
    mask = np.zeros(x.shape, bool)
    whole = LSTMClassifier(**GIVEN).fit(np.ma.masked_array(x, mask), y)
    np.testing.assert_array_equal(
        whole.network_.parameters, LSTMClassifier(**GIVEN).fit(x, y).network_.parameters
    )
    mask[3, 2, 1] = True
    for masked in (np.ma.masked_array(x, mask), list(np.ma.masked_array(x, mask))):
        with pytest.raises(ValueError, match="X contains NaN"):
            LSTMClassifier(**GIVEN).fit(masked, y)
        with pytest.raises(ValueError, match="X contains NaN"):
            whole.predict(masked)
    hidden = np.arange(60) == 7
    with pytest.raises(ValueError, match="y contains NaN"):
        LSTMRegressor(**GIVEN).fit(x, np.ma.masked_array(np.arange(60), hidden))
    with pytest.raises(ValueError, match="got a masked array of <U4 that hides some"):
        LSTMClassifier(**GIVEN).fit(x, np.ma.masked_array(y, hidden))
    with pytest.raises(ValueError, match="sample_weight contains NaN"):
        LSTMClassifier(**GIVEN).fit(x, y, np.ma.masked_array(np.ones(60), hidden))
