"""Packs single-operator cases of the ONNX backend tests, one file a case.

usage: pack_node_cases.py CASES_FOLDER INDEX.json OUTPUT_FOLDER

CASES_FOLDER holds CASE/model.onnx and CASE/test_data_set_0/{input,output}_i.pb. Each packed model has its
inputs as initializers and each expected output as an initializer named `expected:OUTPUT`.
"""
import json
import pathlib
import sys

import onnx

OPERATORS = """Add AveragePool BatchNormalization Cast CastLike Clip Concat ConstantOfShape Conv Div Dropout Erf
Expand Flatten Gelu Gemm GlobalAveragePool HardSigmoid HardSwish Identity LeakyRelu MatMul MaxPool Mul Neg Pad
ReduceMean Reciprocal ReduceSum Relu Reshape Resize Sigmoid Slice Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Upsample""".split()
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
LIMIT = 30_000
# Batch statistics and random masks are no part of an imported (inference) graph; sequences, empty tensors and
# products of other ranks than 2 have no counterpart. Padding is with zeros, and resampling reads the nearest element
# or is linear.
EXCLUDED = (
    "training_mode training_dropout sequence _empty_set zero_size allowzero_reordered start_out_of_bounds "
    "matmul_1d matmul_3d matmul_4d matmul_bcast neg_steps constant_pad cubic antialias crop_and_resize not_larger "
    "not_smaller"
).split()


def tensor(path):
    value = onnx.TensorProto()
    value.ParseFromString(path.read_bytes())
    return value


def pack(case, folder):
    model = onnx.load(folder / case["name"] / "model.onnx")
    if any(word in case["name"] for word in EXCLUDED):
        return None
    if set(case["ops"]) - set(OPERATORS) or case["functions"]:
        return None
    data = folder / case["name"] / "test_data_set_0"
    try:
        inputs = [tensor(data / f"input_{i}.pb") for i in range(len(model.graph.input))]
        outputs = [tensor(data / f"output_{i}.pb") for i in range(len(model.graph.output))]
    except Exception:
        return None
    if not inputs or any(t.data_type not in FLOATS for t in (inputs[0], outputs[0])):
        return None
    for value, info in zip(inputs, model.graph.input):
        value.name = info.name
        model.graph.initializer.append(value)
    for value, info in zip(outputs, model.graph.output):
        value.name = "expected:" + info.name
        model.graph.initializer.append(value)
    return model.SerializeToString()


def main(cases, index, out):
    cases, out, packed = pathlib.Path(cases), pathlib.Path(out), []
    for case in sorted(json.loads(pathlib.Path(index).read_text()), key=lambda c: c["name"]):
        model = pack(case, cases)
        if model is not None and len(model) < LIMIT:
            (out / f"{case['name']}.onnx").write_bytes(model)
            packed.append({k: case[k] for k in ("name", "rtol", "atol")})
    lines = ",\n".join(json.dumps(c) for c in packed)
    (out / "index.json").write_text(f"[\n{lines}\n]\n")


main(*sys.argv[1:])
