"""Calibration data of any kind as named batches."""

from tfptq.data.calibration import CalibrationData, calibration_data
from tfptq.data.errors import DataError

__all__ = ["CalibrationData", "DataError", "calibration_data"]
