"""Reference integer executor: runs an emitted file in the integers that an NPU would compute with."""

from tfptq.npu.executor import Executor, LayerComparison, LayerRun, compare_with_stock, stock_codes

__all__ = ["Executor", "LayerComparison", "LayerRun", "compare_with_stock", "stock_codes"]
