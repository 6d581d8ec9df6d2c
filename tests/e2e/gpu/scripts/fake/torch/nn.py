"""Modules that know their parameters only, or that FAKE_TORCH_VALUES is how many values they have."""

import os


class Module:
    def __init__(self):
        self.counts = []

    def parameters(self):
        named = os.environ.get("FAKE_TORCH_VALUES")
        return [Parameter(int(named))] if named else self.own_parameters()

    def own_parameters(self):
        yield from map(Parameter, getattr(self, "counts", []))
        for value in self.__dict__.values():
            if isinstance(value, Module):
                yield from value.own_parameters()

    def cuda(self):
        return self

    def to(self, **more):
        return self

    def train(self):
        return self

    def __call__(self, x):
        return x


class Parameter:
    def __init__(self, count):
        self.count = count

    def numel(self):
        return self.count


class Sequential(Module):
    def __init__(self, *modules):
        super().__init__()
        self.__dict__.update({str(i): module for i, module in enumerate(modules)})


class Conv2d(Module):
    def __init__(self, c_in, c_out, kernel, stride, padding, bias):
        self.counts = [c_in * c_out * kernel * kernel] + [c_out] * bias


class BatchNorm2d(Module):
    def __init__(self, channels):
        self.counts = [channels, channels]


class Linear(Module):
    def __init__(self, c_in, c_out):
        self.counts = [c_in * c_out, c_out]


class _Plain(Module):
    def __init__(self, *words, **more):
        super().__init__()


ReLU = SiLU = Identity = MaxPool2d = AdaptiveAvgPool2d = Flatten = _Plain


class functional:
    @staticmethod
    def cross_entropy(x, target):
        return x
