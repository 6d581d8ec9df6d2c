"""How far the arrays of a network may be from their float64 references: the rule of tests/e2e/gpu/rounding.rs.

f32 keeps 1e-4 everywhere. In tf32 and bf16, outputs, loss and statistics of the first step keep a bound of the
precision; gradients and later steps keep a multiple of what a float64 evaluation that rounds the same operands deviates
by (deviation.csv, which tests/rounding/rounding_deviation.py computes).
"""

import csv

import numpy as np

F32_LIMIT = 1e-4
FIRST_STEP = {"tf32": 2e-3, "bf16": 3e-2}
FACTOR = 3.0
# Arrays of the first step whose deviation exceeds the bound in that evaluation already.
EXCEPTIONS = {("tf32", "resnet18_narrow", "train_logits"), ("bf16", "resnet18_narrow", "train_logits")}


class Bounds:
    """The bounds of a network's arrays in a precision."""

    def __init__(self, path, network, precision):
        self.network, self.precision, self.deviations = network, precision, None
        if precision != "f32":
            with open(path, newline="") as lines:
                rows = [row for row in csv.DictReader(lines) if row["network"] == network]
            self.deviations = {row["array"]: float(row[precision]) for row in rows}

    def array(self, key):
        """The bound of an array of the references; `loss1` is the loss of the first step."""
        if self.deviations is None:
            return F32_LIMIT
        first = key in ("eval_before", "train_logits", "loss1") or key.startswith("stats1/")
        if first and (self.precision, self.network, key) not in EXCEPTIONS:
            return FIRST_STEP[self.precision]
        return max(F32_LIMIT, FACTOR * self.deviations[key])

    def group(self, group):
        """The least and the largest spread of a group of arrays: gradients show that the precision rounds."""
        if self.deviations is None:
            return 0.0, F32_LIMIT
        least = F32_LIMIT if group == "grad" else 0.0
        return least, max(F32_LIMIT, FACTOR * self.deviations[group])


def error(found, reference):
    """The largest error of an array, in parts of the reference's largest magnitude (at least 1e-3)."""
    if found is None:
        return float("inf")
    found, reference = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - reference).max(initial=0) / max(np.abs(reference).max(initial=0), 1e-3))


def spread(pairs):
    """The root of the squared errors of all arrays in parts of that of the squared references."""
    errors = squares = 0.0
    for found, reference in pairs:
        if found is None or found.shape != reference.shape:
            return float("inf")
        errors += float(((found - reference) ** 2).sum())
        squares += float((reference**2).sum())
    ratio = float(np.sqrt(errors / squares))
    return ratio if np.isfinite(ratio) else float("inf")
