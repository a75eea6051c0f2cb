"""Options of every command: frozen groups that define name, default, reader and help text once.

The Python API takes them as keyword arguments, the command line as flags; both read values with
the same functions. This package does not import torch.
"""

from audit.options.evaluation import EvaluationOptions
from audit.options.generator import GeneratorFileOptions, GeneratorOptions
from audit.options.hardening import HardenConfig
from audit.options.loading import LoadOptions
from audit.options.option import Option, keyword_options, options_from, suggestion
from audit.options.reading import ReadOptions
from audit.options.scanning import ScanConfig
from audit.options.training import TrainConfig
from audit.options.verdict import VerdictOptions

SCAN = (ScanConfig, GeneratorOptions, LoadOptions, ReadOptions, VerdictOptions)
"""Groups of options of a scan."""

HARDEN = (HardenConfig, EvaluationOptions, GeneratorFileOptions, LoadOptions, ReadOptions)
"""Groups of options of hardening."""

TRAIN = (TrainConfig, LoadOptions, ReadOptions)
"""Groups of options of the training of a generator."""

INSPECT = (LoadOptions, ReadOptions)
"""Groups of options of an inspection."""

__all__ = [
    "HARDEN",
    "INSPECT",
    "SCAN",
    "TRAIN",
    "EvaluationOptions",
    "GeneratorFileOptions",
    "GeneratorOptions",
    "HardenConfig",
    "LoadOptions",
    "Option",
    "ReadOptions",
    "ScanConfig",
    "TrainConfig",
    "VerdictOptions",
    "keyword_options",
    "options_from",
    "suggestion",
]
