"""Training steps of a network in PyTorch, channels_last, for comparison with those of a compiled executable.

    python3 gpu_peers.py NAME BATCH PRECISION MODE [WARM_UP STEPS]

prints one JSON object: `ms`, the median time of a step, and `parameters`, the number of trained values; or `reason`,
if there is nothing to measure. MODE is eager, compile (torch.compile) or reduce-overhead (torch.compile with CUDA
graphs). Without arguments it names PyTorch's version and the GPU.

A step does what `bench` of an executable does: forward, loss, backward, the loss read back, and SGD's update enqueued.
Its inputs lie on the GPU already.
"""

import json
import statistics
import sys
import time

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

MODES = ("eager", "compile", "reduce-overhead")
PRECISIONS = ("tf32", "bf16")
NETWORKS = ("syncbnnet", "resnet50")


def syncbnnet(width=32, blocks=(2, 2, 2), classes=10):
    """The residual network of Conv, BatchNorm and SiLU: a 3x3 stem, stages that double the width, a linear head."""

    def conv_bn(c_in, c_out, kernel, stride=1):
        convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(c_out))

    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.main = nn.Sequential(conv_bn(c_in, c_out, 3, stride), nn.SiLU(), conv_bn(c_out, c_out, 3))
            same = stride == 1 and c_in == c_out
            self.shortcut = nn.Identity() if same else conv_bn(c_in, c_out, 1, stride)
            self.act = nn.SiLU()

        def forward(self, x):
            return self.act(self.main(x) + self.shortcut(x))

    layers, c_in = [conv_bn(3, width, 3), nn.SiLU()], width
    for stage, count in enumerate(blocks):
        for i in range(count):
            layers.append(Block(c_in, width << stage, 2 if stage > 0 and i == 0 else 1))
            c_in = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, classes))


def resnet50(classes=1000):
    """ResNet-50 as torchvision has it, which need not be installed: strides stand in the 3x3 convolutions."""

    def conv_bn(c_in, c_out, kernel, stride=1):
        convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(c_out)]

    class Bottleneck(nn.Module):
        def __init__(self, c_in, width, stride):
            super().__init__()
            first = [*conv_bn(c_in, width, 1), nn.ReLU(inplace=True)]
            second = [*conv_bn(width, width, 3, stride), nn.ReLU(inplace=True)]
            self.main = nn.Sequential(*first, *second, *conv_bn(width, 4 * width, 1))
            same = stride == 1 and c_in == 4 * width
            self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(c_in, 4 * width, 1, stride))
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.main(x) + self.shortcut(x))

    layers, c_in = [*conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for i in range(count):
            layers.append(Bottleneck(c_in, 64 << stage, 2 if stage > 0 and i == 0 else 1))
            c_in = 4 * (64 << stage)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, classes))


def network(name):
    """A network, the shape of a sample and the number of classes."""
    if name == "syncbnnet":
        return syncbnnet(), (3, 32, 32), 10
    return resnet50(), (3, 224, 224), 1000


def measured(name, batch, precision, mode, warm_up, steps):
    """What is printed for one measurement."""
    torch.manual_seed(0)
    # Convolutions take tf32 by default. The newer flags stay as they are: torch.compile refuses a mixture with this.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    module, shape, classes = network(name)
    module = module.cuda().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9, weight_decay=0.0, fused=True)
    x = (torch.rand(batch, *shape, device="cuda") * 2 - 1).to(memory_format=torch.channels_last)
    target = torch.randint(0, classes, (batch,), device="cuda")

    def loss_of(x, target):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            return nn.functional.cross_entropy(module(x), target)

    if mode != "eager":
        extra = {} if mode == "compile" else {"mode": mode}
        loss_of = torch.compile(loss_of, dynamic=False, **extra)

    def step():
        if mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, target)
        loss.backward()
        value = loss.item()
        optimizer.step()
        return value

    for _ in range(warm_up):
        step()
    torch.cuda.synchronize()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = step()
        times.append((time.perf_counter() - start) * 1e3)
    values = sum(parameter.numel() for parameter in module.parameters())
    return {"ms": statistics.median(times), "parameters": values, "loss": loss}


def main(words):
    if torch is None or not torch.cuda.is_available():
        return {"reason": "no PyTorch" if torch is None else "PyTorch finds no GPU"}
    if not words:
        return {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    if len(words) not in (4, 6) or words[0] not in NETWORKS or words[2] not in PRECISIONS or words[3] not in MODES:
        sys.exit(__doc__)
    warm_up, steps = (int(word) for word in words[4:] or (10, 30))
    return measured(words[0], int(words[1]), words[2], words[3], warm_up, steps)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
