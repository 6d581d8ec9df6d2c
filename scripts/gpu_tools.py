"""NVIDIA's tools for developers, which some machines have and cannot use."""

# What ncu or compute-sanitizer write there, and what it means.
SIGNS = {
    "ERR_NVGPUCTRPERM": "this user may not read the GPU's counters",
    "Failed to initialize the profiler": "the profiler cannot be initialised",
    "LibraryNotLoaded": "the profiler's library cannot be loaded",
    "Device not supported": "the tool does not support this GPU",
    "Profiling is not supported": "the tool does not support this GPU",
}


def unable(text):
    """Why a tool that wrote `text` can do nothing on this machine, or None."""
    line = next((line for line in text.splitlines() if any(sign in line for sign in SIGNS)), None)
    if line is None:
        return None
    meaning = next(meaning for sign, meaning in SIGNS.items() if sign in line)
    return f"{meaning}: {line.strip('= ')[:150]}"
