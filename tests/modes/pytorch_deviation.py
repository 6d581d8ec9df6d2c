"""How far PyTorch itself is from the references of the BatchNorm modes, in float32 and in float64.

    usage: pytorch_deviation.py ../fixtures > ../fixtures/modes/pytorch_deviation.csv

Every case of modes/NAME.npz is run for three steps by PyTorch's own operators, which follow the nodes of
dev/NAME.onnx, in ways that are the same but for rounding: samples in another order within their group, input
off by one unit in the last place, convolutions with and without oneDNN, one thread and two. (Channels last is not
among them: with it PyTorch 2.15 corrupts its heap on these small images.) The error of an array is the
largest over these runs, by the rule of the tests: in parts of the reference's largest magnitude, at least
1e-3. A row is written for each array whose error is more than a third of the tests' bound, 1e-4 in float32
and 1e-9 in float64: there rounding alone decides whether a correct run keeps the bound.

Needs torch and onnx.
"""

import pathlib
import sys

import numpy
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

BOUNDS = {"float32": 1e-4, "float64": 1e-9}
DRAWS = 8


class Network:
    """The nodes of an ONNX file and the initial parameters and statistics of its .npz."""

    def __init__(self, folder, name):
        self.graph = onnx.load(folder / "dev" / f"{name}.onnx").graph
        self.data = numpy.load(folder / "dev" / f"{name}.npz")
        self.initial = {k[5:]: self.data[k] for k in self.data.files if k.startswith("init/")}
        self.constants = {
            t.name: numpy_helper.to_array(t) for t in self.graph.initializer if t.name not in self.initial
        }

    def run(self, x, values, training):
        """The output; with `training`, batch statistics normalise and running statistics are updated in place."""
        tensors = {self.graph.input[0].name: x, **values}
        tensors |= {k: torch.from_numpy(v.copy()) for k, v in self.constants.items()}
        for node in self.graph.node:
            a = [tensors[i] for i in node.input]
            at = {b.name: helper.get_attribute_value(b) for b in node.attribute}
            tensors[node.output[0]] = operator(node.op_type, a, at, training)
        return tensors[self.graph.output[0].name]


def operator(kind, a, at, training):
    match kind:
        case "Conv":
            return functional.conv2d(
                *a, stride=at["strides"], padding=at["pads"][:2], dilation=at["dilations"], groups=at["group"]
            )
        case "BatchNormalization":
            x, scale, bias, mean, var = a
            momentum, eps = (float(numpy.format_float_positional(numpy.float32(v))) for v in (
                at["momentum"], at["epsilon"]))
            return functional.batch_norm(x, mean, var, scale, bias, training, 1 - momentum, eps)
        case "MaxPool":
            return functional.max_pool2d(a[0], at["kernel_shape"], at["strides"], at["pads"][:2])
        case "ReduceMean":
            return a[0].mean(tuple(a[1].tolist()), keepdim=True)
        case "Reshape":
            return a[0].reshape(a[0].shape[0], -1)
        case "Gemm":
            return functional.linear(a[0], *a[1:])
        case "Relu":
            return torch.relu(a[0])
        case "Sigmoid":
            return torch.sigmoid(a[0])
        case "Add":
            return a[0] + a[1]
        case "Mul":
            return a[0] * a[1]
    raise ValueError(kind)


def train(network, case, dtype, draw):
    """All arrays of a case, in the way `draw` of rounding."""
    mode, counts = case.split("/")
    counts = [int(n) for n in counts.split(",")]
    k = int(mode[6:]) if mode.startswith("group=") else 1
    groups = [sum(counts[i : i + k]) for i in range(0, len(counts), k)]
    if mode == "frozen":
        groups = [sum(counts)]
    random = numpy.random.default_rng(draw)
    x = network.data["x"].astype(dtype)
    if draw > 0:
        x = x * (1 + random.choice([-1, 0, 1], x.shape) * numpy.finfo(dtype).eps).astype(dtype)
    x, target = torch.from_numpy(x), torch.from_numpy(network.data["target"])
    order = [numpy.arange(n) if draw == 0 else random.permutation(n) for n in groups]
    values = {k: torch.from_numpy(v.astype(dtype)) for k, v in network.initial.items()}
    constant = [k for k in values if "running" in k]
    if mode == "frozen":
        layers = {k.rsplit(".", 1)[0] for k in constant}
        constant += [k for k in values if k.rsplit(".", 1)[0] in layers and k not in constant]
    trained = [k for k in values if k not in constant]
    velocity, arrays, losses = {}, {}, []
    for step in (1, 2, 3):
        leaves = {k: v.detach().clone().requires_grad_(k in trained) for k, v in values.items()}
        loss, logits, begin = 0, [], 0
        for group, n in enumerate(groups):
            # Running statistics are those of group 0.
            seen = leaves if group == 0 else {
                k: v.clone() if "running" in k else v for k, v in leaves.items()}
            part = begin + torch.from_numpy(order[group])
            y = network.run(x[part], seen, mode != "frozen")
            loss = loss + functional.cross_entropy(y, target[part], reduction="sum") / sum(groups)
            logits.append(y.detach()[torch.from_numpy(numpy.argsort(order[group]))])
            begin += n
        loss.backward()
        losses.append(loss.item())
        for k in constant:
            values[k] = leaves[k].detach()
        with torch.no_grad():
            for k in trained:
                d = leaves[k].grad + 1e-4 * leaves[k]
                velocity[k] = d if step == 1 else 0.9 * velocity[k] + d
                values[k] = leaves[k] - 0.1 * velocity[k]
        if step == 1:
            arrays["train_logits"] = torch.cat(logits)
            arrays |= {f"grad/{k}": leaves[k].grad for k in trained}
            arrays |= {f"stats1/{k}": values[k] for k in constant if "running" in k}
    arrays |= {f"stats3/{k}": values[k] for k in constant if "running" in k}
    arrays |= {f"param3/{k}": v for k, v in values.items() if "running" not in k}
    arrays["loss"] = torch.tensor(losses, dtype=torch.float64)
    with torch.no_grad():
        arrays["eval_after"] = network.run(x, values, False)
    return {k: v.double().numpy() for k, v in arrays.items()}


def error(found, reference):
    return numpy.abs(found - reference).max() / max(1e-3, numpy.abs(reference).max())


def main():
    folder = pathlib.Path(sys.argv[1])
    # Its transforms round more than a plain convolution in float32.
    torch.backends.nnpack.set_flags(False)
    print("precision,network,case,array,error")
    for name in ("mlp_bn1d", "resnet18_narrow", "syncbnnet_w4"):
        network = Network(folder, name)
        references = numpy.load(folder / "modes" / f"{name}.npz")
        cases = sorted({"/".join(k.split("/")[:2]) for k in references.files})
        for case in cases:
            for dtype, bound in BOUNDS.items():
                worst = {}
                for draw in range(DRAWS):
                    torch.backends.mkldnn.enabled = draw % 2 == 0
                    torch.set_num_threads(1 + draw // 2 % 2)
                    for key, found in train(network, case, dtype, draw).items():
                        reference = references[f"{case}/{key}"]
                        assert found.shape == reference.shape, key
                        worst[key] = max(worst.get(key, 0), error(found, reference))
                missing = {k for k in references.files if k.startswith(f"{case}/")} - {
                    f"{case}/{k}" for k in worst}
                assert not missing, missing
                for key, found in sorted(worst.items()):
                    if found > bound / 3:
                        print(f'{dtype},{name},"{case}",{key},{found:.2e}')
                top = max(worst, key=worst.get)
                print(f"{name} {case} {dtype}: {top} {worst[top]:.1e}", file=sys.stderr)


main()
