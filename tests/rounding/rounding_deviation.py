"""How far training is from the references when operands and activations are rounded as the GPU target rounds them.

    usage: rounding_deviation.py ../fixtures > ../fixtures/rounding/deviation.csv

Every network of dev/ is trained for three steps by PyTorch in float64, on the nodes of dev/NAME.onnx, and rounds at
these places alone:

- tf32: both operands of every product on tensor cores, in all three directions, to nearest with ties away from
  zero; what is stored in memory, to float32.
- bf16: both operands of every product, to bfloat16; activations and their gradients as they are stored, to bfloat16.
  What BatchNorm's normalisation, a residual and an activation compute together is stored once. Parameters, what
  BatchNorm keeps of a channel, logits and loss are float32.

Products on tensor cores are convolutions without groups, and linear layers whose channels are multiples of 4. (In bf16
those are multiples of 8, but what other products read is stored in bfloat16 too.) In inference BatchNorm is folded into
the convolution before it.

Rounding is discontinuous, so that one run's error is a draw. The runs differ in what float32 arithmetic leaves
open: samples in another order, and stored values off by one unit in the last place of float32. The error of an array is
the largest over these runs, by the rule of the tests: in parts of the reference's largest magnitude, at least 1e-3.
A group of arrays, such as `grad`, has a row of its own: the root of the squared errors of all its values in parts of
that of the squared references. One sign that rounding changes before a ReLU moves it less than the largest error.

Needs torch and onnx.
"""

import pathlib
import sys

import numpy
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

DRAWS = 32
ULP = 2.0**-23
STATISTICS = ("running_mean", "running_var")


class Rounding:
    """Where a precision rounds, and which draw this is: 0 is the plain one."""

    def __init__(self, precision, draw):
        self.precision = precision
        self.generator = torch.Generator().manual_seed(draw) if draw > 0 else None

    def operand(self, x):
        """An operand of a product on tensor cores."""
        x = x.float()
        if self.precision == "bf16":
            return x.bfloat16().double()
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32).double()

    def single(self, x):
        """What float32 arithmetic leaves in a register."""
        if self.generator is not None:
            x = x * (1 + ULP * torch.randint(-1, 2, x.shape, generator=self.generator))
        return x.float().double()

    def activation(self, x):
        """What is stored of an activation or its gradient."""
        x = self.single(x)
        return x.bfloat16().double() if self.precision == "bf16" else x


class Stored(torch.autograd.Function):
    """An activation in memory; so is the sum of its gradients."""

    @staticmethod
    def forward(ctx, x, rounding):
        ctx.rounding = rounding
        return rounding.activation(x)

    @staticmethod
    def backward(ctx, dy):
        return ctx.rounding.activation(dy), None


class Read(torch.autograd.Function):
    """An activation as an operator reads it: the gradient that the operator makes is stored."""

    @staticmethod
    def forward(ctx, x, rounding):
        ctx.rounding = rounding
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return ctx.rounding.activation(dy), None


class Product(torch.autograd.Function):
    """A bilinear function of x and w whose operands are rounded."""

    @staticmethod
    def forward(ctx, x, w, function, rounding):
        x, w = rounding.operand(x), rounding.operand(w)
        ctx.save_for_backward(x, w)
        ctx.function, ctx.rounding = function, rounding
        return function(x, w)

    @staticmethod
    def backward(ctx, dy):
        x, w = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            y = ctx.function(x, w)
        return *torch.autograd.grad(y, (x, w), ctx.rounding.operand(dy)), None, None


class Network:
    """The nodes of an ONNX file and the initial parameters and statistics of its .npz."""

    def __init__(self, folder, name):
        graph = onnx.load(folder / f"{name}.onnx").graph
        self.nodes, self.input, self.output = graph.node, graph.input[0].name, graph.output[0].name
        self.references = numpy.load(folder / f"{name}.npz")
        self.initial = {k[5:]: self.references[k] for k in self.references.files if k.startswith("init/")}
        self.constants = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name not in self.initial
        }
        self.readers = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.producers = {name: node for node in self.nodes for name in node.output}

    def kind(self, value):
        return self.producers[value].op_type if value in self.producers else None

    def normalized(self, value):
        """Whether BatchNorm writes this value, alone or with what follows it in the same pass over memory."""
        return self.kind(value) == "BatchNormalization"

    def in_register(self, node):
        """Whether the only reader computes on with the output in the same pass over memory."""
        value, readers = node.output[0], self.readers.get(node.output[0], [])
        if node.op_type == "Sigmoid":
            return True
        kinds = [reader.op_type for reader in readers]
        activated = kinds in (["Relu"], ["Clip"], ["Sigmoid", "Mul"])
        if self.normalized(value):
            return activated or (kinds == ["Add"] and self.residual(readers[0]) == value)
        return node.op_type == "Add" and activated and self.residual(node) is not None

    def residual(self, add):
        """Which operand of an addition is normalised in the same pass over memory."""
        return next((i for i in add.input if self.normalized(i) and len(self.readers[i]) == 1), None)

    def run(self, x, values, training, rounding):
        """The output; with `training`, batch statistics normalise and running statistics are updated in place."""
        tensors = {self.input: rounding.activation(x), **values}
        tensors |= {k: torch.from_numpy(v.copy()) for k, v in self.constants.items()}
        stored = {self.input}
        for node in self.nodes:
            a = [Read.apply(tensors[i], rounding) if i in stored else tensors[i] for i in node.input]
            y = self.operator(node, a, values, training, rounding)
            if node.output[0] == self.output:
                y = rounding.single(y.detach()) + (y - y.detach())
            elif self.in_register(node):
                if node.op_type == "Add":
                    y = Read.apply(y, rounding)
            elif training or not self.folded(node):
                y = Stored.apply(y, rounding)
                stored.add(node.output[0])
            tensors[node.output[0]] = y
        return tensors[self.output]

    def folded(self, node):
        """Whether inference folds the BatchNorm that reads this node's output into it."""
        readers = self.readers.get(node.output[0], [])
        return node.op_type in ("Conv", "Gemm") and [r.op_type for r in readers] == ["BatchNormalization"]

    def operator(self, node, a, values, training, rounding):
        at = {b.name: helper.get_attribute_value(b) for b in node.attribute}
        match node.op_type:
            case "Conv" | "Gemm":
                w, b = a[1], a[2] if len(a) > 2 else None
                if not training and self.folded(node):
                    scale = self.scale(self.readers[node.output[0]][0], values)
                    w = w * scale.reshape(-1, *[1] * (w.dim() - 1))
                    b = None if b is None else b * scale
                y = product(node.op_type, at, a[0], w, rounding)
                return y if b is None else y + b.reshape(-1, *[1] * (y.dim() - 2))
            case "BatchNormalization":
                x, scale, bias, mean, var = a
                if not training and self.kind(node.input[0]) in ("Conv", "Gemm"):
                    if self.folded(self.producers[node.input[0]]):
                        shift = bias - mean * self.scale(node, values)
                        return x + shift.reshape(-1, *[1] * (x.dim() - 2))
                return functional.batch_norm(
                    x, mean, var, scale, bias, training, 1 - decimal(at["momentum"]), decimal(at["epsilon"])
                )
            case "MaxPool":
                return functional.max_pool2d(a[0], at["kernel_shape"], at["strides"], at["pads"][:2])
            case "AveragePool":
                return functional.avg_pool2d(a[0], at["kernel_shape"], at["strides"])
            case "GlobalAveragePool" | "ReduceMean":
                return a[0].mean((2, 3), keepdim=True)
            case "Reshape" | "Flatten":
                return a[0].reshape(a[0].shape[0], -1)
            case "Concat":
                return torch.cat(a, at["axis"])
            case "Clip":
                return functional.hardtanh(a[0], *(bound.item() for bound in a[1:]))
            case "Relu":
                return torch.relu(a[0])
            case "Sigmoid":
                return torch.sigmoid(a[0])
            case "Add":
                return a[0] + a[1]
            case "Mul":
                return a[0] * a[1]
        raise ValueError(node.op_type)

    def scale(self, norm, values):
        """What a BatchNorm multiplies with in inference."""
        epsilon = next(decimal(b.f) for b in norm.attribute if b.name == "epsilon")
        return values[norm.input[1]] / (values[norm.input[4]] + epsilon).sqrt()


def decimal(value):
    """The shortest decimal that rounds to a float32."""
    return float(numpy.format_float_positional(numpy.float32(value)))


def product(kind, at, x, w, rounding):
    if kind == "Gemm":
        function = functional.linear
        on_tensor_cores = all(n % 4 == 0 for n in w.shape)
    else:
        groups = at["group"]
        on_tensor_cores = groups == 1

        def function(x, w):
            return functional.conv2d(x, w, None, at["strides"], at["pads"][:2], at["dilations"], groups)

    if on_tensor_cores or rounding.precision == "bf16":
        return Product.apply(x, w, function, rounding)
    return function(x, w)


def train(network, precision, draw):
    """All arrays, in the way `draw` of rounding."""
    rounding = Rounding(precision, draw)
    data = network.references
    order = numpy.random.default_rng(draw).permutation(len(data["x"])) if draw > 0 else slice(None)
    back = numpy.argsort(order) if draw > 0 else slice(None)
    x = torch.from_numpy(data["x"][order].astype(numpy.float64))
    target = torch.from_numpy(data["target"][order])
    values = {k: torch.from_numpy(v.astype(numpy.float64)) for k, v in network.initial.items()}
    statistics = [k for k in values if k.endswith(STATISTICS)]
    trained = [k for k in values if k not in statistics]
    velocity, arrays, losses = {}, {}, []
    with torch.no_grad():
        arrays["eval_before"] = network.run(x, values, False, rounding)[back]
    for step in (1, 2, 3):
        leaves = {k: v.detach().clone().requires_grad_(k in trained) for k, v in values.items()}
        logits = network.run(x, leaves, True, rounding)
        loss = functional.cross_entropy(logits, target)
        loss.backward()
        losses.append(loss.item())
        values |= {k: rounding.single(leaves[k].detach()) for k in statistics}
        gradients = {k: rounding.single(leaves[k].grad) for k in trained}
        for k in trained:
            d = gradients[k] + 1e-4 * values[k]
            velocity[k] = (d if step == 1 else 0.9 * velocity[k] + d).float().double()
            values[k] = (values[k] - 0.1 * velocity[k]).float().double()
        if step == 1:
            arrays["train_logits"] = logits.detach()[back]
            arrays |= {f"grad/{k}": v for k, v in gradients.items()}
        if step != 2:
            arrays |= {f"param{step}/{k}": values[k] for k in trained}
            arrays |= {f"stats{step}/{k}": values[k] for k in statistics}
    arrays["loss"] = torch.tensor(losses, dtype=torch.float64)
    with torch.no_grad():
        arrays["eval_after"] = network.run(x, values, False, rounding)[back]
    return {k: v.numpy() for k, v in arrays.items()}


def error(found, reference):
    return numpy.abs(found - reference).max() / max(1e-3, numpy.abs(reference).max())


def deviation(network, precision):
    """The largest error of every array over all draws."""
    worst = {}
    for draw in range(DRAWS):
        squares = {}
        for key, found in train(network, precision, draw).items():
            reference = network.references[key]
            assert found.shape == reference.shape, key
            worst[key] = max(worst.get(key, 0), error(found, reference))
            if "/" in key:
                sums = squares.setdefault(key.split("/")[0], [0, 0])
                sums[0] += numpy.square(found - reference).sum()
                sums[1] += numpy.square(reference).sum()
        for group, (difference, whole) in squares.items():
            worst[group] = max(worst.get(group, 0), numpy.sqrt(difference / whole))
    return worst


def main():
    folder = pathlib.Path(sys.argv[1]) / "dev"
    # One order of summation, so that the table does not depend on the number of processors.
    torch.set_num_threads(1)
    print("network,array,tf32,bf16")
    for file in sorted(folder.glob("*.onnx")):
        network = Network(folder, file.stem)
        tf32, bf16 = (deviation(network, precision) for precision in ("tf32", "bf16"))
        for key in sorted(tf32):
            print(f"{file.stem},{key},{tf32[key]:.2e},{bf16[key]:.2e}")
        for precision, worst in (("tf32", tf32), ("bf16", bf16)):
            text = ", ".join(f"{key} {found:.1e}" for key, found in sorted(worst.items()) if "/" not in key)
            print(f"{file.stem} {precision}: {text}", file=sys.stderr)


main()
