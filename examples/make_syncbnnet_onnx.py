"""Writes syncbnnet_digits.onnx: a small Conv-BatchNorm-SiLU residual network for 8x8 digits.

The graph is laid out as PyTorch's exporter (dynamo=True, optimize=False, cleaned up) lays it out, with the
names of PyTorch's state_dict. It holds no weights: every parameter and running statistic is a graph input
without an initializer, which `syncbn-compile --init` turns into a parameter. Needs the `onnx` package.

    stem     3x3 convolution, BatchNorm, SiLU                       1 -> 16, 8x8
    stage 0  residual block                                        16 -> 16, 8x8
    stage 1  residual block, stride 2, 1x1 projection shortcut     16 -> 32, 4x4
    stage 2  residual block, stride 2, 1x1 projection shortcut     32 -> 64, 2x2
    head     mean over the image, linear layer                     64 -> 10
"""

import os

import onnx
from onnx import TensorProto, helper

STEM = 16
STAGES = (16, 32, 64)
CLASSES = 10


class Graph:
    """The nodes so far, and the graph inputs that stand for parameters and running statistics."""

    def __init__(self):
        self.nodes = []
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])]
        self.initializers = []

    def parameter(self, name, shape):
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, name, values):
        self.initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name="node_" + output, **attributes))
        return output

    def conv_bn(self, x, prefix, c_in, c_out, kernel, stride):
        weight = self.parameter(prefix + ".conv.weight", [c_out, c_in, kernel, kernel])
        y = self.node(
            "Conv",
            [x, weight],
            prefix + ".conv",
            auto_pad="NOTSET",
            dilations=[1, 1],
            group=1,
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
        )
        vectors = ("weight", "bias", "running_mean", "running_var")
        vectors = [self.parameter(f"{prefix}.bn.{v}", [c_out]) for v in vectors]
        return self.node("BatchNormalization", [y, *vectors], prefix + ".bn", epsilon=1e-5, momentum=0.9)

    def silu(self, x, prefix):
        return self.node("Mul", [x, self.node("Sigmoid", [x], prefix + ".sigmoid")], prefix + ".silu")

    def residual_block(self, x, prefix, c_in, c_out, stride):
        y = self.silu(self.conv_bn(x, prefix + ".conv1", c_in, c_out, 3, stride), prefix + ".conv1")
        y = self.conv_bn(y, prefix + ".conv2", c_out, c_out, 3, 1)
        if stride != 1 or c_in != c_out:
            x = self.conv_bn(x, prefix + ".shortcut", c_in, c_out, 1, stride)
        return self.silu(self.node("Add", [y, x], prefix + ".add"), prefix)


def main():
    graph = Graph()
    x = graph.silu(graph.conv_bn("x", "stem", 1, STEM, 3, 1), "stem")
    c_in = STEM
    for stage, c_out in enumerate(STAGES):
        x = graph.residual_block(x, f"stages.{stage}", c_in, c_out, 1 if stage == 0 else 2)
        c_in = c_out
    x = graph.node(
        "ReduceMean", [x, graph.constant("pool.axes", [-1, -2])], "pool", keepdims=1, noop_with_empty_axes=0
    )
    x = graph.node("Reshape", [x, graph.constant("flatten.shape", [-1, c_in])], "flatten", allowzero=1)
    head = [graph.parameter("fc.weight", [CLASSES, c_in]), graph.parameter("fc.bias", [CLASSES])]
    graph.node("Gemm", [x, *head], "logits", alpha=1.0, beta=1.0, transA=0, transB=1)

    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "syncbnnet_digits", graph.inputs, [logits], graph.initializers),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "syncbnnet_digits.onnx")
    with open(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
