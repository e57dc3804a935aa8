"""The registry of rounding methods."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfptq.core.rounding.problem import RoundingProblem

#: Codes ``[G, P, K]`` of a problem, with an options object of the method.
Codes = Callable[[RoundingProblem, Any], np.ndarray]
_Function = TypeVar("_Function", bound=Codes)


@dataclass(frozen=True)
class NoOptions:
    """Options of a method that has none."""


@dataclass(frozen=True)
class RoundingMethod:
    """A way of rounding weights to codes."""

    name: str
    options: type  # frozen dataclass; ``config.Rounding`` has a field for each of its fields
    codes: Codes
    learns: bool  # from the layer's inputs and outputs; else from the weights alone

    @property
    def option_names(self) -> tuple[str, ...]:
        """Fields of the options."""
        return tuple(field.name for field in dataclasses.fields(self.options))

    def checked(self, options: Any) -> Any:
        """Options of this method; None stands for its defaults."""
        if options is not None and not isinstance(options, self.options):
            raise ValueError(
                f"options of rounding {self.name!r} are a {type(options).__name__}; pass {self.options.__name__}"
            )
        return self.options() if options is None else options


#: Name -> method.
ROUNDING_METHODS: dict[str, RoundingMethod] = {}


def rounding_method(name: str, options: type = NoOptions, *, learns: bool = True) -> Callable[[_Function], _Function]:
    """Register a function as a rounding method.

    TensorFlow, where a method learns with it, is to be imported inside of the function: configs read the registry.

    Raises:
        TypeError: the options are no frozen dataclass with defaults, or the function does not take what methods take.
        ValueError: the name is taken.
    """

    def register(codes: _Function) -> _Function:
        if not (dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise TypeError(f"options of rounding {name!r} are {options!r}; give a frozen dataclass")
        required = [field.name for field in dataclasses.fields(options) if _has_no_default(field)]
        if required:
            raise TypeError(f"options of rounding {name!r} have no default for {', '.join(required)}; give them one")
        if len(inspect.signature(codes).parameters) != 2:
            raise TypeError(f"{codes.__name__} of rounding {name!r} must take a problem and its options")
        if name in ROUNDING_METHODS:
            raise ValueError(f"there is a rounding method {name!r} already; give this one another name")
        ROUNDING_METHODS[name] = RoundingMethod(name, options, codes, learns)
        return codes

    return register


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
