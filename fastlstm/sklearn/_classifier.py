"""The classifier."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_array, column_or_1d

from fastlstm.sklearn._answers import as_weights, check_given, flat, unflat
from fastlstm.sklearn._base import SequenceEstimator, repeated, store
from fastlstm.sklearn._inputs import Array, Inputs, as_inputs, lengths_of


class LSTMClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """An LSTM that tells the class of a sequence, or of each of its steps.

    Parameters
    ----------
    hidden_size : int
        H, of each layer and direction.
    num_layers : int
    bidirectional : bool
        Whether the sequence is read from its end, too.
    dropout : float
        Share of numbers dropped between layers in training.
    each_step : bool
        Whether y has an answer for each step, or one for the sequence.
    pooling : {"last", "mean", "max"}
        What one answer for a sequence is read from: the final states, or the mean or the largest of
        each number over the steps.
    epochs : int
        Times that the sequences are gone through, at most.
    batch_size : int
    learning_rate : float
        Of `fastlstm.optim.AdamW`.
    weight_decay : float
    schedule : {"constant", "cosine"}
        How the learning rate goes on.
    clip : float
        Largest norm of a gradient; infinity for none.
    early_stopping : bool
        Whether to hold out ``validation_fraction`` of the sequences, of each class alike where
        there is one for a sequence, stop when their loss has not got better for
        ``n_iter_no_change`` epochs, and keep the weights of the best.
    validation_fraction : float
    n_iter_no_change : int
    scaling : bool
        Whether features get a mean of 0 and a standard deviation of 1, over all steps of training.
    warm_start : bool
        Whether `fit` goes on from the weights, the optimiser's state and the scaling of the fit
        before, at the `learning_rate` of now. Parameters of the network must not have changed.
    class_weight : dict, "balanced" or None
        Of the classes in the loss: {class: weight}, or by how rare they are, counted by
        ``sample_weight`` where there is one. Not for labels.
    lstm_params : dict or None
        Further arguments of `fastlstm.LSTM`.
    dtype : {"float32", "float64"}
    random_state : int, RandomState or None
        For first weights, order, dropping and the validation part: an int gives the same bits each
        time, whatever ``n_jobs`` is.
    n_jobs : int or None
        Threads, as joblib counts them: None is 1 outside of ``joblib.parallel_config``, -1 all. In
        a process of a search with ``n_jobs`` of its own each has one, so that processors aren't
        oversubscribed.
    verbose : bool
        Whether to print a line for each epoch.

    Attributes
    ----------
    classes_ : array (K,)
    network_ : fastlstm.training.Network
        What was trained: takes sequences in their own unit, saves itself.
    n_features_in_ : int
        F; of a two-dimensional X its columns, which are steps.
    feature_names_in_ : array of str
        Where X had them.
    n_iter_, best_epoch_ : int
        Epochs, and after which of them the weights were taken.
    loss_curve_, validation_loss_curve_ : list of float
        Mean losses of the epochs; the latter only with ``early_stopping``.

    Notes
    -----
    A y of 0 and 1 with two axes (N, K) is taken for K labels of which any may apply, as
    scikit-learn does.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMClassifier
    >>> rng = np.random.default_rng(0)
    >>> x = [rng.normal(size=(n, 2)) for n in rng.integers(5, 20, 60)]  # (T_i, F)
    >>> y = ["up" if each[:, 0].mean() > 0 else "down" for each in x]
    >>> model = LSTMClassifier(hidden_size=8, epochs=30, random_state=0).fit(x, y)
    >>> model.score(x, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SequenceEstimator._parameter_constraints,
        "class_weight": [dict, str, None],
    }
    _standardises_y: ClassVar[bool] = False
    _labels: bool

    def __init__(
        self,
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        each_step: bool = False,
        pooling: str = "last",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        clip: float = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        scaling: bool = True,
        warm_start: bool = False,
        class_weight: Any = None,
        lstm_params: dict[str, Any] | None = None,
        dtype: str = "float32",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        store(self, locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go through some sequences once, from the weights and the optimiser's state of before.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`. The scaling is that of the first of them.
        classes : array_like (K,), optional
            All that will come; needed in the first call unless that has all of them, and the same
            in later ones.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As from `fit`.
        """
        fresh = not hasattr(self, "network_")
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight {self.class_weight!r} is not supported for partial_fit, which does "
                "not see all of y; pass the weights as a dict"
            )
        self._train(X, y, sample_weight, fresh=fresh, epochs=1, classes=classes, whole=True)
        return self

    def predict(self, X: Any) -> Any:
        """Return the likeliest class of each sequence (N,), or step (N, T) or N of (T_i,).

        Of labels whether each applies, 0 or 1: (N, K).
        """
        _, likely = self._answers(X, "predict_proba")
        if self._labels:
            labels: Array = (likely > 0.5).astype(int)
            return labels
        if isinstance(likely, list):
            return [self.classes_[each.argmax(axis=-1)] for each in likely]
        return self.classes_[likely.argmax(axis=-1)]

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities (N, K) of the classes or labels; of steps as `predict`."""
        return self._answers(X, "predict_proba")[1]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of right answers, of sequences or with ``each_step`` of steps."""
        predicted = self.predict(X)
        if self.each_step:
            x = as_inputs(self, X, reset=False)
            check_given(self, x, y)
            weights = repeated(as_weights(x, sample_weight), np.array(lengths_of(x)))
            return float(accuracy_score(flat(self, x, y), flat(self, x, predicted),
                                        sample_weight=weights))  # fmt: skip
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _learnt(
        self, x: Inputs, y: Any, weights: Array | None, fresh: bool, classes: Any
    ) -> tuple[Any, dict[str, Any]]:
        labels = not self.each_step and type_of_target(y, input_name="y") == "multilabel-indicator"
        if not fresh and labels != self._labels:
            raise ValueError("y has classes in one call and several labels in another")
        self._labels = labels
        if labels:
            y = check_array(y, accept_sparse=False, dtype=np.float64, input_name="y")
            return self._learnt_labels(y, fresh)
        rows = flat(self, x, y) if self.each_step else y
        rows = check_array(rows, ensure_2d=False, dtype=None, input_name="y", estimator=self)
        rows = column_or_1d(rows, warn=True)
        check_classification_targets(rows)
        if fresh:
            self.classes_ = unique_labels(rows if classes is None else classes)
        elif classes is not None and not np.array_equal(unique_labels(classes), self.classes_):
            raise ValueError(
                f"`classes={classes!r}` is not the same as in the fit before, which had "
                f"{self.classes_.tolist()}"
            )
        if unknown := sorted(set(np.unique(rows).tolist()) - set(self.classes_.tolist())):
            raise ValueError(
                f"y contains classes {unknown} that are not in {self.classes_.tolist()}, "
                f"{'`classes`' if fresh else 'those of the fit before'}"
            )
        numbers = np.searchsorted(self.classes_, rows)
        head: dict[str, Any] = {"loss": "cross_entropy", "outputs": len(self.classes_)}
        if self.classes_.dtype.kind in "biufU":
            head["classes"] = self.classes_.tolist()
        if fresh and self.class_weight is not None:
            counted = rows
            shares = repeated(weights, np.array(lengths_of(x))) if self.each_step else weights
            if shares is not None:
                counted, shares = rows[shares > 0], shares[shares > 0]
            of_class = self.classes_ if classes is not None else np.unique(counted)
            known = compute_class_weight(self.class_weight, classes=of_class, y=counted)
            if shares is not None and isinstance(self.class_weight, str):  # "balanced"
                totals = np.array([shares[counted == each].sum() for each in of_class])
                known = shares.sum() / (len(of_class) * totals)
            by_class = dict(zip(of_class.tolist(), known.tolist(), strict=True))
            head["class_weights"] = [by_class.get(each, 1.0) for each in self.classes_.tolist()]
        return unflat(x, numbers) if self.each_step else numbers, head

    def _learnt_labels(self, y: Array, fresh: bool) -> tuple[Any, dict[str, Any]]:
        if self.class_weight is not None:
            raise ValueError("class_weight is not supported for multilabel y")
        if (wrong := y[(y != 0) & (y != 1)]).size:
            raise ValueError(f"y has label {wrong[0]:g}, expected 0 and 1")
        if fresh:
            self.classes_ = np.arange(y.shape[1])
        elif y.shape[1] != len(self.classes_):
            raise ValueError(f"y has {y.shape[1]} labels, expected {len(self.classes_)}")
        return y, {"loss": "binary_cross_entropy", "outputs": y.shape[1]}

    def _strata(self, targets: Any, rows: Array) -> Array | None:
        return None if self.each_step or self._labels else targets[rows]


__all__ = ["LSTMClassifier"]
