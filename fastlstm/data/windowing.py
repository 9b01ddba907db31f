"""Windows of series in tables: what a network reads, and what it is to answer.

Letters: R rows, N windows, T steps of a window, F features, K targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from fastlstm._arguments import as_size
from fastlstm.data.options import WindowOptions, as_names
from fastlstm.data.panel import Panel, as_panel, group_lengths, listed
from fastlstm.data.preparing import Prepared, prepare
from fastlstm.data.seasons import find_season
from fastlstm.data.splitting import PARTS, Parts, split_rows
from fastlstm.data.tables import Float64, Table, Times
from fastlstm.data.times import Rows
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.losses import LossName, OwnLoss
from fastlstm.training.network import Network
from fastlstm.training.scaling import Scaling
from fastlstm.training.sequences import Sequences

#: Under which a network's metadata hold what `Windows.describe` returns.
KEY = "windows"


class Windows:
    """What `windows` makes of a table.

    Attributes
    ----------
    options : WindowOptions
        As given to `windows`.
    features, targets : tuple of str
        F names of what each step of a window holds, and K of its answers. A future input is
        called "name+horizon", an indicator "name missing".
    length, horizon : int
        T, and how many steps are answered.
    starts : (N,) int
        Rows of the prepared series at which windows begin.
    training, validation, test : Sequences
        For `fastlstm.training.Trainer`, with ``batch_first``, and answers (N, horizon * K), the K
        targets of one step after those of the step before. They gather a batch when it is asked
        for. Without a split all windows are in training, and what there is no part for is None.
    training_rows, validation_rows, test_rows : (n,) int
        Which of the N windows these are.
    scaling : Scaling
        Means and scales of what a network reads and answers, of the rows of training.
    """

    def __init__(
        self, panel: Panel, prepared: Prepared, options: WindowOptions, stride: int, parts: Parts
    ) -> None:
        self.options, self._panel, self._prepared, self._parts = options, panel, prepared, parts
        self.features, self.targets = options.features, options.targets
        self.length, self.horizon = options.length, options.horizon
        constants, horizon = prepared.constants, options.horizon
        self.scaling = Scaling(
            constants.x_mean,
            constants.x_scale,
            np.tile(constants.y_mean, horizon),
            np.tile(constants.y_scale, horizon),
        )
        self.starts = _starts(panel, prepared, options, stride)
        T = self.length
        everything = len(prepared.x) - T - horizon + 1
        self._x = sliding_window_view(prepared.x, T, axis=0)[:everything].swapaxes(1, 2)
        answers = sliding_window_view(prepared.y[T:], horizon, axis=0).swapaxes(1, 2)
        self._y = answers.reshape(everything, -1)  # a view, for rows of y lie one behind the other
        # A share of the views, in which every row begins a window.
        sequences = Sequences(self._x, self._y, lengths=T, batch_first=True)
        # All answers of a window lie in one part.
        first, last = parts.of_row[self.starts + T], parts.of_row[self.starts + T + horizon - 1]
        rows = [np.flatnonzero((first == part) & (last == part)) for part in range(3)]
        self.training_rows, self.validation_rows, self.test_rows = rows
        cut: list[Sequences | None] = []
        for part, (name, which) in enumerate(zip(PARTS, rows, strict=True)):
            if part < parts.number and not len(which):
                raise ValueError(
                    f"split: no window has all its answers in the {name} part, expected some"
                )
            subset = sequences.subset(self.starts[which]) if part < parts.number else None
            cut.append(subset)
        training, self.validation, self.test = cut
        assert training is not None
        self.training: Sequences = training

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        return (
            f"Windows({len(self)} of {self.length} steps and {self.horizon} to come, "
            f"features={list(self.features)}, targets={list(self.targets)})"
        )

    @property
    def x(self) -> Float64:
        """(N, T, F): a view of one array where windows begin at equal distances, else a copy.

        It is scaled already: a network is called with it. `Network.predict` and `evaluate` would
        scale it again, as they take what is in the table.
        """
        return self._of_windows(self._x)

    @property
    def y(self) -> Float64:
        """(N, horizon, K): likewise."""
        return self._of_windows(self._y).reshape(len(self), self.horizon, -1)

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the horizon * K numbers of an answer: "target+1", the next row, and so on."""
        steps = range(1, self.horizon + 1)
        return tuple(f"{name}+{h}" for h in steps for name in self.targets)

    def network(
        self, lstm: LSTM | BiLSTM, *, loss: LossName | OwnLoss = "mse", seed: Any = None
    ) -> Network:
        """Return a network to train on these windows, which keeps what it has to know of them.

        That are the names of features and answers, the scaling, so that ``predict`` takes and gives
        what is in the table, with ``difference`` the changes of it, and what `describe` says, for
        `fastlstm.data.forecast`.

        Parameters
        ----------
        lstm : LSTM or BiLSTM
            With ``batch_first``, and F as its input size.
        loss, seed
            As of `Network`.
        """
        return Network(
            lstm,
            loss=loss,
            each_step=False,
            seed=seed,
            targets=self.answers,
            features=self.features,
            scaling=self.scaling,
            metadata=self.describe(),
        )

    def describe(self) -> dict[str, Any]:
        """Return what `fastlstm.data.forecast` has to know of these windows, as JSON holds it.

        Of a network's metadata, all under the one name "windows".
        """
        step = self._panel.step
        return {
            KEY: {
                "options": self.options.as_mapping(),
                "means": self._prepared.constants.means,
                "distance": None if step is None else asdict(step),
            }
        }

    @property
    def time(self) -> Times | None:
        """(N, horizon): when each answer is, datetime64[us] or numbers; None without times."""
        if self._panel.time is None:
            return None
        ahead = sliding_window_view(self._panel.time[self.length :], self.horizon)
        return self._of_windows(ahead)

    @property
    def group(self) -> npt.NDArray[Any] | None:
        """(N,): which group each window is of; None without groups."""
        if self._panel.groups is None:
            return None
        which = np.searchsorted(self._panel.bounds, self.starts, side="right") - 1
        return np.array(self._panel.groups)[which]

    def inverse(self, z: npt.ArrayLike, rows: npt.ArrayLike | None = None) -> Float64:
        """Return answers in the unit of the table.

        Parameters
        ----------
        z : array_like (n, horizon * K) or (n, horizon, K)
            Of a network, or y.
        rows : array_like of int (n,), optional
            Which windows they answer; all by default. Differences are added to what each window
            knows.

        Returns
        -------
        float64 (n, horizon, K)

        Raises
        ------
        ValueError
            If shapes don't fit.
        """
        starts = self.starts if rows is None else self.starts[np.asarray(rows)]
        K = len(self.targets)
        answers = np.asarray(z, np.float64)
        if answers.shape not in ((len(starts), self.horizon * K), (len(starts), self.horizon, K)):
            raise ValueError(
                f"z: got shape {answers.shape}, expected {(len(starts), self.horizon, K)}"
            )
        answers = answers.reshape(len(starts), self.horizon, K)
        return undone(answers, self._prepared, self.options, starts + self.length)

    def last_known(
        self, season: int = 1, rows: npt.ArrayLike | None = None, *, moved: bool = False
    ) -> Float64:
        """Return what is forecast by repeating the last season: (n, horizon, K).

        Persistence with a season of 1: the last values that the window knows. Where one is missing,
        what ``missing`` put there; NaN where a group has not begun yet.

        Parameters
        ----------
        season : int
            Rows after which the series repeat.
        rows : array_like of int (n,), optional
            Which windows; all by default.
        moved : bool
            Whether to add by how much the last value is above that of a season ago.
        """
        starts = self.starts if rows is None else self.starts[np.asarray(rows)]
        season = as_size("season", season)
        origins = starts[:, np.newaxis] + self.length
        repeated = self._levels(origins + np.arange(self.horizon) % season - season, starts)
        if not moved:
            return repeated
        since = self._levels(origins - 1, starts) - self._levels(origins - 1 - season, starts)
        return repeated + since

    def _levels(self, rows: Rows, starts: Rows) -> Float64:
        """Return targets at rows (n, h) in their own unit, NaN before a window's group begins."""
        groups = np.searchsorted(self._panel.bounds, starts, side="right") - 1
        inside = rows >= self._panel.bounds[groups][:, np.newaxis]
        levels = self._prepared.levels[np.maximum(rows, 0)]
        return np.where(inside[..., np.newaxis], levels, np.nan)

    def mean(self, target: int = 0) -> float:
        """Return the mean of a target in training."""
        return self._prepared.constants.means[self.targets[target]]

    def season(self, target: int = 0) -> int | None:
        """Return after how many rows a target repeats in training, or None if it does not.

        It is looked for in the longest group, see `fastlstm.data.seasons.find_season`.
        """
        bounds = self._panel.bounds
        longest = int(np.diff(bounds).argmax())
        rows = slice(bounds[longest], bounds[longest + 1])
        early = self._parts.of_row[rows] == 0
        return find_season(self._panel.values[self.targets[target]][rows][early])

    def _of_windows(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        distances = np.diff(self.starts)
        if len(distances) and not (distances == distances[0]).all():
            return array[self.starts]
        step = int(distances[0]) if len(distances) else 1
        return array[self.starts[0] : self.starts[-1] + 1 : step]


def windows(
    frame: Any,
    *,
    targets: Any,
    inputs: Any = None,
    length: int,
    horizon: int = 1,
    step: int = 1,
    group: Any = None,
    time: Any = None,
    future: Any = (),
    split: Any = None,
    missing: str = "error",
    indicator: bool = False,
    resample: str | None = None,
    aggregate: str | Mapping[str, str] = "mean",
    difference: int = 0,
    scaling: bool = True,
) -> Windows:
    """Cut series in a table into windows of what is known and what is to be forecast.

    A window is `length` rows of the inputs, and the `horizon` rows of the targets that follow.

    Parameters
    ----------
    frame : table or array_like
        A DataFrame of pandas or polars, a table of pyarrow, a mapping of names to columns, a
        structured array, or an array (R, C) whose columns are called 0, 1, ... What masked arrays
        hide is missing.
    targets : str or list of str
        K columns that are forecast.
    inputs : str or list of str, optional
        Columns that are read. By default all but those of time, group and future.
    length : int
        T, rows that are read.
    horizon : int
        Rows that are forecast, from the one that follows the last that is read.
    step : int
        Rows from the beginning of one window to that of the next.
    group : str, optional
        The column that tells which series a row is of. No window reaches over two.
    time : str, optional
        The column of times: dates, ISO 8601 in text, or numbers. They have to be in order in each
        group, and at equal distances, in days or months or any unit. By default the index of a
        table of pandas, where it holds times; else rows count. Times with a zone are taken in UTC.
    future : str or list of str
        Columns that are known ahead, such as holidays or planned prices. A step reads them
        `horizon` rows ahead, so that the last one has seen all up to the last answer; ``length``
        has to be as long as the horizon for that. Rows at the end of a group that have them, but
        no target, belong to the future.
    split : float or time, or two of them, optional
        The share of the time, above 0 and below 1, that is for training; or the first time that is
        for validation, of dates perhaps a year, 2019. What follows a second one, a share of all
        time, too, is for a test. All groups are cut at the same time.
    missing : {"error", "drop", "ffill", "interpolate", "mean"}
        What to do about missing values of what is read: refuse them, leave out the windows that
        read one, repeat the last value, draw a line from it to the next, or take the mean of
        training. Targets are never made up: windows without one of them are left out, except with
        "error".
    indicator : bool
        Whether each input has another beside it, 1 where its value was missing, else 0.
    resample : str, optional
        Put rows together whose times lie in the same step of the calendar: a number and one of s,
        min, h, D, W (from Monday on), M, Q, Y, as in "15min". Its time is that of its beginning.
        The first and the last step of a group hold the rows that there are, fewer perhaps than the
        others: a sum is then smaller than theirs.
    aggregate : {"mean", "sum", "min", "max", "first", "last"} or mapping of columns to these
        How they are put together.
    difference : int
        Forecast the change of targets from so many rows before, and read that of targets among the
        inputs, in place of their values: a trend or a season that training has not seen goes away.
        0 for none. `Windows.inverse` adds it up again.
    scaling : bool
        Whether columns get a mean of 0 and a standard deviation of 1, over the rows of training.

    Returns
    -------
    Windows

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; a column is missing, or holds something else than
        numbers; times are not in order, come twice, or are not at equal distances; a group is
        empty, or shorter than a window; a value is missing where none may be. The message names
        the column and the row.

    Notes
    -----
    Nothing is known from the future: a window of training has its last answer before the split, and
    one of validation its first behind it; those that a split cuts are in no part. Means and
    scales are of the rows before the split. Windows that end in a gap that was filled with the help
    of a later row are left out: they would read what they are to answer, or what is behind the
    split.

    No window is copied: they are views of one array of all rows.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.data import windows
    >>> table = {"level": np.sin(np.arange(100) / 5), "day": np.arange(100)}
    >>> data = windows(table, targets="level", time="day", length=20, horizon=5, split=0.8)
    >>> data.x.shape, data.y.shape, len(data.training), len(data.validation)
    ((76, 20, 1), (76, 5, 1), 56, 16)
    """
    table = Table(frame)
    wanted, ahead = as_names("targets", targets), as_names("future", future)
    if inputs is None:
        others = {*ahead, *(str(name) for name in (group, time) if name is not None)}
        inputs = [name for name in table.names if name not in others]
    options = WindowOptions(
        wanted, inputs, ahead, length, horizon, group, time, resample,
        aggregate if isinstance(aggregate, str) else dict(aggregate),
        missing, indicator, difference, scaling,
    )  # fmt: skip
    stride = as_size("step", step)
    panel = as_panel(
        table, options.columns, options.group, options.time, options.rule, options.aggregate
    )
    _check_lengths(panel, options)
    parts = split_rows(panel, split, options)
    prepared = prepare(panel, options, parts.of_row > 0)
    return Windows(panel, prepared, options, stride, parts)


def undone(answers: Float64, prepared: Prepared, options: WindowOptions, origins: Rows) -> Float64:
    """Return scaled answers (n, horizon, K) from rows (n,) on in the unit of the table."""
    constants, lag = prepared.constants, options.difference
    answers = answers * constants.y_scale + constants.y_mean
    for h in range(options.horizon if lag else 0):
        # What was so many rows before is known, or was forecast just now.
        base = answers[:, h - lag] if h >= lag else prepared.levels[origins + h - lag]
        answers[:, h] += base
    return answers


def _check_lengths(panel: Panel, options: WindowOptions) -> None:
    """Raise a ValueError if a window is longer than a series."""
    needed = options.length + options.horizon + options.difference
    short = group_lengths(panel) < needed
    if not short.any():
        return
    parts = [f"length {options.length}", f"horizon {options.horizon}"]
    parts += [f"difference {options.difference}"] if options.difference else []
    text = f"a window takes {needed} rows ({', '.join(parts)})"
    if panel.groups is None:
        raise ValueError(f"length: {text}, but there are {int(panel.bounds[-1])}")
    names = [name for name, is_short in zip(panel.groups, short, strict=True) if is_short]
    rows = int(group_lengths(panel)[short][0])
    raise ValueError(
        f"length: {text}, but group {names[0]!r} has {rows}; groups that are too short: "
        f"{len(names)} of {len(short)}, {listed(names)}"
    )


def _starts(panel: Panel, prepared: Prepared, options: WindowOptions, stride: int) -> Rows:
    """Return where windows begin that have all they need (N,)."""
    T, horizon = options.length, options.horizon
    first = panel.bounds[:-1] + options.difference
    counts = np.maximum((prepared.ends - first - T - horizon) // stride + 1, 0)
    behind = np.cumsum(counts)
    begin = np.repeat(first - stride * (behind - counts), counts)
    starts: Rows = begin + stride * np.arange(int(behind[-1]))
    lacking = np.concatenate([[0], np.cumsum(~prepared.known)])
    unanswered = np.concatenate([[0], np.cumsum(~prepared.answered)])
    kept = lacking[starts + T] == lacking[starts]
    kept &= unanswered[starts + T + horizon] == unanswered[starts + T]
    kept &= ~prepared.ahead[starts + T - 1]
    if not kept.any():
        raise ValueError(
            "frame: every window lacks a value, in what it reads or in its targets; "
            'missing="ffill", "interpolate" or "mean" fills inputs, a shorter length= needs fewer'
        )
    return np.asarray(starts[kept])
