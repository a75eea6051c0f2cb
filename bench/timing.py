"""Processor times of several functions, measured so that their ratios can be compared."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def interleaved_medians(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median processor seconds of each function.

    The repetitions of all functions are interleaved, so that other load on the machine affects
    all of them alike; a first round is a warm-up and does not count.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            if repeat:
                found[name].append(time.process_time() - started)
    return {name: median(values) for name, values in found.items()}
