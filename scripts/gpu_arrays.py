"""Copies arrays from one npz file to another without numpy, which need not be there where packs are made."""

import array
import ast
import struct
import zipfile

MAGIC = b"\x93NUMPY"
# Before the header's text: magic number, version, length.
PREFIX = "<6sBBH"


def copy(source, destination, kept):
    """Copies the arrays that `kept` says by name, float64 as float32, not compressed."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(destination, "w") as copied:
        for member in archive.namelist():
            if kept(member.removesuffix(".npy")):
                copied.writestr(zipfile.ZipInfo(member), narrowed(archive.read(member)))


def narrowed(data):
    """An npy file with its float64 values as float32; others stay as they are."""
    magic, major, minor, length = struct.unpack_from(PREFIX, data)
    if magic != MAGIC or major != 1:
        raise ValueError("no npy file of version 1")
    start = struct.calcsize(PREFIX)
    header = ast.literal_eval(data[start : start + length].decode("latin-1"))
    if header["descr"] != "<f8":
        return data
    values = array.array("f", array.array("d", data[start + length :]))
    header["descr"] = "<f4"
    text = repr(header)
    # Values begin at a multiple of 64 bytes.
    text += " " * (-(start + len(text) + 1) % 64) + "\n"
    return struct.pack(PREFIX, MAGIC, major, minor, len(text)) + text.encode("latin-1") + values.tobytes()
