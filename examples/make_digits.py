"""Writes digits_train.npz and digits_val.npz from the digits that scikit-learn ships.

Needs numpy and scikit-learn. DATA.md names the data's source and licence and describes the split.
The files are committed, so this script runs only to make them again; it gives the same bytes each time.
"""

import io
import os
import zipfile

import numpy
from sklearn.datasets import load_digits

VALIDATION_PER_CLASS = 36


def write_npz(path, arrays):
    """Like numpy.savez_compressed, with a fixed date so that the bytes depend on the arrays only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            numpy.lib.format.write_array(buffer, array, allow_pickle=False)
            info = zipfile.ZipInfo(name + ".npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue(), compresslevel=9)


def main():
    digits = load_digits()
    images = (digits.images / 16.0).astype(numpy.float32).reshape(-1, 1, 8, 8)
    target = digits.target.astype(numpy.int64)

    # RandomState's stream is frozen across numpy versions; default_rng's is not.
    order = numpy.random.RandomState(0).permutation(len(target))
    validation = numpy.zeros(len(target), dtype=bool)
    for digit in range(10):
        validation[order[target[order] == digit][:VALIDATION_PER_CLASS]] = True

    folder = os.path.dirname(os.path.abspath(__file__))
    for name, chosen in (("digits_train.npz", ~validation), ("digits_val.npz", validation)):
        arrays = {"x": images[chosen], "target": target[chosen]}
        write_npz(os.path.join(folder, name), arrays)
        counts = numpy.bincount(arrays["target"], minlength=10).tolist()
        print(f"{name}: {len(arrays['target'])} images, per class {counts}")


if __name__ == "__main__":
    main()
