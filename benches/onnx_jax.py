"""An ONNX network as a JAX function, channels last, with its training step: so all networks have a JAX side.

Knows the operators of the networks of `networks.py`, and says which one it lacks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import lax
from onnx import numpy_helper

MOMENTUM = 0.9
SPATIAL = ("NHWC", "HWIO", "NHWC")


class Network:
    """Parameters, running statistics, and the function."""

    def __init__(self, path):
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self.input = graph.input[0].name
        self.shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        self.output = graph.output[0].name
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.constants, self.parameters, self.statistics = {}, {}, {}
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        for node in self.nodes:
            for slot, name in enumerate(node.input):
                if name not in values:
                    continue
                if node.op_type == "BatchNormalization" and slot > 2:
                    self.statistics[name] = jnp.asarray(values[name])
                elif node.op_type in ("Conv", "Gemm", "BatchNormalization"):
                    value = values[name]
                    if value.ndim == 4:
                        value = value.transpose(2, 3, 1, 0)
                    self.parameters[name] = jnp.asarray(value)
                else:
                    self.constants[name] = values[name]

    def __call__(self, parameters, statistics, x, training):
        """The output, and the next running statistics."""
        values, after = {self.input: x}, {}
        for node in self.nodes:
            if node.op_type == "Constant":
                continue
            at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

            def get(slot):
                name = node.input[slot] if slot < len(node.input) else ""
                for where in (values, parameters, statistics, self.constants):
                    if name in where:
                        return where[name]
                return None

            if node.op_type == "BatchNormalization":
                result = batch_norm(node, get, at, training, after)
            elif node.op_type in OPERATORS:
                result = OPERATORS[node.op_type](get, at, len(node.input))
            else:
                raise NotImplementedError(f"JAX side: operator {node.op_type}")
            values[node.output[0]] = result
        return values[self.output], after


def batch_norm(node, get, at, training, after):
    x, scale, bias, mean, var = (get(i) for i in range(5))
    if training:
        axes = tuple(range(x.ndim - 1))
        running = (mean, var)
        mean = x.mean(axes)
        var = (x * x).mean(axes) - mean * mean
        for name, old, new in zip(node.input[3:5], running, (mean, var)):
            after[name] = MOMENTUM * old + (1 - MOMENTUM) * new
    factor = scale * lax.rsqrt(var + at.get("epsilon", 1e-5))
    return x * factor + (bias - mean * factor)


def padding(at):
    pads = at.get("pads", [0, 0, 0, 0])
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def conv(get, at, _):
    x, bias = get(0), get(2)
    y = lax.conv_general_dilated(
        x, get(1), at.get("strides", [1, 1]), padding(at), rhs_dilation=at.get("dilations", [1, 1]),
        dimension_numbers=SPATIAL, feature_group_count=at.get("group", 1),
    )
    return y if bias is None else y + bias


def resize(get, at, _):
    if at["mode"] != b"nearest":
        raise NotImplementedError(f"JAX side: Resize of mode {at['mode']}")
    height, width = (int(scale) for scale in np.asarray(get(2))[2:])
    return get(0).repeat(height, 1).repeat(width, 2)


def pool(x, at, start, combine):
    window, strides = (1, *at["kernel_shape"], 1), (1, *at.get("strides", [1, 1]), 1)
    return lax.reduce_window(x, start, combine, window, strides, [(0, 0), *padding(at), (0, 0)])


def average_pool(get, at, _):
    return pool(get(0), at, 0.0, lax.add) / np.prod(at["kernel_shape"])


def clip(get, at, _):
    return jnp.clip(get(0), get(1), get(2))


def reduce_mean(get, at, count):
    x, axes = get(0), at.get("axes")
    axes = [int(a) % x.ndim for a in (axes if axes is not None else np.asarray(get(1)))]
    if x.ndim == 4:
        axes = [{0: 0, 1: 3, 2: 1, 3: 2}[a] for a in axes]
    return x.mean(tuple(axes), keepdims=bool(at.get("keepdims", 1)))


def flatten(get, at, _):
    x = get(0)
    return (jnp.transpose(x, (0, 3, 1, 2)) if x.ndim == 4 else x).reshape(x.shape[0], -1)


def gemm(get, at, _):
    w = get(1).T if at.get("transB", 0) else get(1)
    return get(0) @ w + get(2)


def concat(get, at, count):
    parts = [get(i) for i in range(count)]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts, at["axis"])  # Of constants: it must stay one.
    return jnp.concatenate(parts, 3 if parts[0].ndim == 4 else at["axis"])


OPERATORS = {
    "Conv": conv,
    "Resize": resize,
    "Relu": lambda get, at, _: jax.nn.relu(get(0)),
    "Sigmoid": lambda get, at, _: jax.nn.sigmoid(get(0)),
    "Mul": lambda get, at, _: get(0) * get(1),
    "Add": lambda get, at, _: get(0) + get(1),
    "Clip": clip,
    "Identity": lambda get, at, _: get(0),
    "MaxPool": lambda get, at, _: pool(get(0), at, -jnp.inf, lax.max),
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda get, at, _: get(0).mean((1, 2), keepdims=True),
    "ReduceMean": reduce_mean,
    "Flatten": flatten,
    "Gemm": gemm,
    "Concat": concat,
}


def step(path, training):
    """A function that makes one step and waits for it."""
    network = Network(path)
    n, c, h, w = network.shape
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((n, h, w, c), np.float32))
    if not training:
        infer = jax.jit(lambda p, s, x: network(p, s, x, False)[0])
        return lambda: infer(network.parameters, network.statistics, x).block_until_ready()
    output = jax.eval_shape(lambda x: network(network.parameters, network.statistics, x, False)[0], x)
    y = jnp.asarray(random.integers(0, output.shape[-1], output.shape[:-1]))

    def loss(p, s):
        logits, after = network(p, s, x, True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)
        return -chosen.mean(), after

    def update(p, v, s):
        (value, after), gradient = jax.value_and_grad(loss, has_aux=True)(p, s)
        v = jax.tree.map(lambda v, g: 0.9 * v + g, v, gradient)
        return jax.tree.map(lambda p, v: p - 1e-6 * v, p, v), v, {**s, **after}, value

    update = jax.jit(update, donate_argnums=(0, 1, 2))
    state = [network.parameters, jax.tree.map(jnp.zeros_like, network.parameters), network.statistics]

    def train():
        *state[:], value = update(*state)
        return float(value)

    return train
