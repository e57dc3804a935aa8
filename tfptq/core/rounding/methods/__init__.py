"""The rounding methods. A new one is a file here: a function with ``@rounding_method``, and its options."""

import importlib
import pkgutil

from tfptq.core.rounding.registry import ROUNDING_METHODS

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = ["ROUNDING_METHODS"]
