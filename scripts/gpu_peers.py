"""Training steps of the timed networks in PyTorch, channels_last, eager and with torch.compile."""

import statistics
import time

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

WARM_UP = 10
STEPS = 30


def available():
    return torch is not None and torch.cuda.is_available()


def conv_bn(c_in, c_out, kernel, stride=1):
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(c_out))


def syncbnnet(width=32, blocks=(2, 2, 2), classes=10):
    """The residual network of Conv, BatchNorm and SiLU: a 3x3 stem, stages that double the width, a linear head."""

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


def network(name):
    """A network that is timed, with the shape of a sample and the number of classes; None where there is none."""
    if name == "syncbnnet":
        return syncbnnet(), (3, 32, 32), 10
    if name == "resnet50":
        try:
            import torchvision
        except ImportError:
            return None
        return torchvision.models.resnet50(), (3, 224, 224), 1000
    return None


def milliseconds(name, batch, precision, compiled):
    """The median time of a training step with SGD; None where PyTorch or the network is not there."""
    found = network(name) if available() else None
    if found is None or precision not in ("tf32", "bf16"):
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    module, shape, classes = found
    module = module.cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(batch, *shape, device="cuda").to(memory_format=torch.channels_last)
    target = torch.randint(0, classes, (batch,), device="cuda")
    forward = torch.compile(module) if compiled else module

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = nn.functional.cross_entropy(forward(x), target)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()

    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    torch.cuda.empty_cache()
    return statistics.median(times)
