"""What a peer's process does: it makes a step, warms it up, and then measures whenever it is told to.

    worker.py PEER NETWORK MODE THREADS BATCH PIXELS MODEL.onnx

It prints {"first_s": seconds of the first step, compilation included}, then for each line "SECONDS LEAST" of standard
input the milliseconds of as many steps, and at the end of input {"peak_bytes": peak resident memory}.
"""

import json
import os
import resource
import sys
import time


def torch_step(peer, network, training, threads, batch, pixels, _):
    import torch

    import networks

    torch.set_num_threads(threads)
    model = networks.make(network)
    x, y = networks.batch_of(network, batch, pixels)
    if "channels_last" in peer:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    model.train(training)
    if "compile" in peer:
        if not training:
            import torch._inductor.config

            torch._inductor.config.freezing = True
        forward = torch.compile(model)
    else:
        forward = model
    if not training:

        def infer():
            with torch.no_grad():
                return forward(x)

        return infer
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, foreach=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def jax_step(_, network, training, threads, batch, pixels, path):
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import onnx_jax

    return onnx_jax.step(path, training)


def onnxruntime_step(_, network, training, threads, batch, pixels, path):
    import onnxruntime

    import numpy

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = numpy.random.default_rng(0).standard_normal((batch, 3, pixels, pixels), numpy.float32)
    return lambda: session.run(None, {"x": x})


def openvino_step(_, network, training, threads, batch, pixels, path):
    import numpy
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
    x = numpy.random.default_rng(0).standard_normal((batch, 3, pixels, pixels), numpy.float32)
    request.set_input_tensor(openvino.Tensor(x))
    return request.infer


def main():
    # Libraries may print; what is said to the parent goes where standard output was.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer, network, mode, threads, batch, pixels, path = sys.argv[1:]
    makers = {"jax": jax_step, "onnxruntime": onnxruntime_step, "openvino": openvino_step}
    make = makers.get(peer, torch_step)
    start = time.perf_counter()
    step = make(peer, network, mode == "train", int(threads), int(batch), int(pixels), path)
    step()
    print(json.dumps({"first_s": time.perf_counter() - start}), file=out)
    step()
    for line in sys.stdin:
        seconds, least = line.split()
        step()
        times, end = [], time.perf_counter() + float(seconds)
        while len(times) < int(least) or time.perf_counter() < end:
            begin = time.perf_counter()
            step()
            times.append((time.perf_counter() - begin) * 1e3)
        print(json.dumps(times), file=out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak}), file=out)
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
