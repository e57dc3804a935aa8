"""Calibration and evaluation over many samples, shared out over processes or machines.

>>> from tfptq import distributed
>>> with distributed.Processes(4) as runner:
...     result = distributed.quantize(model, "shards", runner=runner)
...     print(distributed.evaluate(result, "test_shards", runner=runner))
"""

from tfptq.distributed.beam import Beam
from tfptq.distributed.evaluation import evaluate
from tfptq.distributed.quantization import quantize
from tfptq.distributed.runners import InProcess, Processes, Runner
from tfptq.distributed.trials import TriedConfig, try_configs

__all__ = ["Beam", "InProcess", "Processes", "Runner", "TriedConfig", "evaluate", "quantize", "try_configs"]
