"""One option for each kernel, with the least total error within budgets of bytes and latency.

A multiple-choice knapsack with two constraints, solved by Lagrange multipliers: for prices ``p`` of a byte and ``q`` of
a unit of time each kernel takes the option with the least ``error + p * bytes + q * latency``, and the prices rise
until both budgets are kept. What the prices leave over, single kernels use up afterwards. For the few hundred kernels
of a network with a handful of options each that takes a fraction of a second.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Prices that are tried for each constraint, where errors and uses span 1 each.
_PRICES = np.array([0.0, *np.geomspace(1e-6, 1e6, 48)])


@dataclass(frozen=True)
class Option:
    """One way to store a kernel.

    Attributes:
        bits: width of its codes.
        bytes: what it takes in the file.
        latency: what it takes at run time, in any unit.
        error: what it adds to the error of the network, in any unit.
    """

    bits: int
    bytes: float
    latency: float
    error: float


def choose_options(
    options: Sequence[Sequence[Option]], *, most_bytes: float = np.inf, most_latency: float = np.inf
) -> list[Option]:
    """Choose one option for each kernel.

    Args:
        options: for each kernel what there is to choose from.
        most_bytes: budget of all kernels together.
        most_latency: the same for latency.

    Raises:
        ValueError: no choice keeps the budgets.
    """
    table = _Table(options)
    choice = table.solve(most_bytes, most_latency)
    if choice is None:  # prices miss budgets that few choices keep: begin with the smallest of these
        smallest = table.with_bytes_as_errors().solve(np.inf, most_latency)
        if smallest is None or table.totals(smallest)[0] > most_bytes:
            least = "" if smallest is None else f" (the smallest widths take {table.totals(smallest)[0]:g})"
            raise ValueError(
                f"no choice of widths keeps the budgets: {most_bytes:g} bytes{least} and a latency of "
                f"{most_latency:g}; raise one of them"
            )
        choice = table.improved(smallest, most_bytes, most_latency)
    return [each[at] for each, at in zip(options, choice, strict=True)]


def fewest_bytes(options: Sequence[Sequence[Option]], *, most_latency: float = np.inf) -> list[Option]:
    """Choose the option of each kernel so that all together take the fewest bytes.

    Raises:
        ValueError: no choice keeps the budget.
    """
    choice = _Table(options).with_bytes_as_errors().solve(np.inf, most_latency)
    if choice is None:
        raise ValueError(f"no choice of widths keeps a latency of {most_latency:g}; raise it")
    return [each[at] for each, at in zip(options, choice, strict=True)]


class _Table:
    """Options as arrays ``[kernels, most options]``; places without an option cost infinitely much."""

    def __init__(self, options: Sequence[Sequence[Option]]):
        width = max(map(len, options), default=1)
        self.bytes, self.latency, self.error = (
            np.array(
                [[*(getattr(option, field) for option in each), *[np.inf] * (width - len(each))] for each in options],
                dtype=np.float64,
            ).reshape(len(options), width)
            for field in ("bytes", "latency", "error")
        )

    def with_bytes_as_errors(self) -> "_Table":
        """The same options, of which the smallest is the best."""
        table = copy.copy(self)
        table.error = self.bytes
        return table

    def solve(self, most_bytes: float, most_latency: float) -> np.ndarray | None:
        """Index of the option of each kernel, or None where no prices lead to a choice that keeps the budgets."""
        best, best_error = None, np.inf
        for latency_price in _PRICES if np.isfinite(most_latency) else (0.0,):
            for byte_price in _PRICES if np.isfinite(most_bytes) else (0.0,):
                choice = self.cheapest(byte_price, latency_price)
                used_bytes, latency, _ = self.totals(choice)
                if used_bytes <= most_bytes and latency <= most_latency:
                    choice = self.improved(choice, most_bytes, most_latency)
                    error = self.totals(choice)[2]
                    if error < best_error:
                        best, best_error = choice, error
                    break  # higher prices only make errors larger
        return best

    def cheapest(self, byte_price: float, latency_price: float) -> np.ndarray:
        """Index of the option of each kernel at these prices."""
        cost = _in_spans(self.error) + byte_price * _in_spans(self.bytes) + latency_price * _in_spans(self.latency)
        return np.where(np.isfinite(self.error), cost, np.inf).argmin(axis=1)

    def totals(self, choice: np.ndarray) -> tuple[float, float, float]:
        """Bytes, latency and error of a choice."""
        rows = np.arange(len(choice))
        used_bytes, latency, error = (
            float(part[rows, choice].sum()) for part in (self.bytes, self.latency, self.error)
        )
        return used_bytes, latency, error

    def improved(self, choice: np.ndarray, most_bytes: float, most_latency: float) -> np.ndarray:
        """The choice with kernels changed one by one, the largest gain of error first, while the budgets last."""
        choice, rows = choice.copy(), np.arange(len(choice))
        while len(choice):
            used_bytes, latency, _ = self.totals(choice)
            gain = self.error[rows, choice][:, None] - self.error
            fits = used_bytes - self.bytes[rows, choice][:, None] + self.bytes <= most_bytes
            fits &= latency - self.latency[rows, choice][:, None] + self.latency <= most_latency
            gain = np.where(fits, gain, 0.0)
            kernel, option = np.unravel_index(gain.argmax(), gain.shape)
            if gain[kernel, option] <= 0.0:
                break
            choice[kernel] = option
        return choice


def _in_spans(values: np.ndarray) -> np.ndarray:
    """Values in units of the span that they have, 0 where there is none."""
    there = np.isfinite(values)
    low, span = values[there].min(initial=0.0), np.ptp(values[there]) if there.any() else 0.0
    return np.where(there, values - low, 0.0) / (span or 1.0)
