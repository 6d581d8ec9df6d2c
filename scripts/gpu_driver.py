"""Asks the CUDA driver of its GPU, without an executable: prints one JSON object, or an error that names the call."""

import ctypes
import json
import os
import sys

LIBRARY = "libcuda.so.1"
# As in crates/runtime/src/gpu/cuda/driver.rs: what names the library or its folder, and the folders after the loader's.
VARIABLE = "SYNCBN_CUDA_LIBRARY"
FOLDERS = (
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
)
ATTRIBUTES = {"capability_major": 75, "capability_minor": 76, "multiprocessors": 16}


def opened():
    """The driver's library and its path."""
    named = os.environ.get(VARIABLE)
    if named:
        paths = [os.path.join(named, LIBRARY) if os.path.isdir(named) else named]
    else:
        paths = [LIBRARY, *(os.path.join(folder, LIBRARY) for folder in FOLDERS)]
    causes = []
    for path in paths:
        try:
            return ctypes.CDLL(path), path
        except OSError as cause:
            causes.append(str(cause))
    sys.exit(causes[0])


def number(library, name, *arguments):
    found = ctypes.c_int()
    status = getattr(library, name)(ctypes.byref(found), *arguments)
    if status:
        sys.exit(f"{name}: error {status}")
    return found.value


def main():
    library, path = opened()
    status = library.cuInit(0)
    if status:
        sys.exit(f"cuInit: error {status} ({path})")
    found = {"library": path, "driver": number(library, "cuDriverGetVersion")}
    found["gpus"] = number(library, "cuDeviceGetCount")
    if found["gpus"]:
        device = number(library, "cuDeviceGet", 0)
        name = ctypes.create_string_buffer(256)
        status = library.cuDeviceGetName(name, len(name), device)
        if status:
            sys.exit(f"cuDeviceGetName: error {status}")
        found["name"] = name.value.decode(errors="replace")
        for attribute, code in ATTRIBUTES.items():
            value = ctypes.c_int()
            status = library.cuDeviceGetAttribute(ctypes.byref(value), code, device)
            found[attribute] = value.value if status == 0 else None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
