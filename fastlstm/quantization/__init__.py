"""Layers in 8, 16 and 24 bits made of float32 ones, and what that costs and gains on data."""

from fastlstm.quantization.layers import quantize
from fastlstm.quantization.plot import plot_report
from fastlstm.quantization.report import QuantizationReport, quantization_report

__all__ = ["QuantizationReport", "plot_report", "quantization_report", "quantize"]
