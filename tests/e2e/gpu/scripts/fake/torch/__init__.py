"""In place of PyTorch: modules know how many values they have, and everything else does nothing.
It hangs in the phase of gpu-first that FAKE_TORCH_HANG names."""

import os
import time

from . import nn

if os.environ.get("FAKE_TORCH_HANG", "") == os.environ.get("GPU_FIRST_PHASE"):
    time.sleep(300)

__version__ = "0.0+fake"
bfloat16 = float32 = channels_last = None


class Nothing:
    """Any object: whatever it is asked for or called with, it is itself; its value is 1."""

    def __getattr__(self, name):
        return self

    def __call__(self, *words, **more):
        return self

    def __mul__(self, other):
        return self

    __sub__ = __mul__

    def __enter__(self):
        return self

    def __exit__(self, *what):
        return None

    def item(self):
        return 1.0


nothing = Nothing()
compiler = optim = nothing
rand = randint = autocast = manual_seed = set_float32_matmul_precision = nothing


class backends:
    class cudnn:
        version = staticmethod(lambda: 90000)


class cuda:
    is_available = staticmethod(lambda: True)
    get_device_name = staticmethod(lambda: "Fake GPU")
    synchronize = nothing

    class nccl:
        version = staticmethod(lambda: (2, 30, 7))


class version:
    cuda = "13.0"


def compile(function, **more):
    return function
