#!/usr/bin/env python3
"""Writes blocks.txt: random blocks of formats that candle cannot check for us, with what they stand for.

A line is a format's name, the block's bytes and its values' (little-endian singles), in hexadecimal. Values are from the
`gguf` package, llama.cpp's own Python, but for Q1_0, which it only measures: those are from ggml's `dequantize_row_q1_0`
in the wheel `xllamacpp`. Where both know a format they are compared; compilers may contract ggml's multiplications and
subtractions, so a last place is allowed to differ.

    pip install gguf xllamacpp && python make_blocks.py
"""

import ctypes
import pathlib

import numpy as np
import xllamacpp
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Where a block's half-precision numbers are.
HALVES = {Type.Q1_0: [0], Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.IQ4_NL: [0], Type.IQ4_XS: [0]}
BLOCKS = 3

ggml = ctypes.CDLL(str(pathlib.Path(xllamacpp.__file__).parent / "xllamacpp.abi3.so"))


def by_ggml(kind, data, count):
    values = np.empty(count, np.float32)
    function = getattr(ggml, "dequantize_row_" + kind.name.replace("Q1", "q1").replace("IQ", "iq").replace("Q", "q")
                       .replace("_NL", "_nl").replace("_XS", "_xs"))
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function.restype = None
    function(data.ctypes.data, values.ctypes.data, count)
    return values


rng = np.random.default_rng(15)
lines = []
for kind, halves in HALVES.items():
    length, size = GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (BLOCKS, size), np.uint8)
    for at in halves:
        # Clears the exponent's top bit: finite, of both signs, subnormal numbers included.
        data[:, at + 1] &= 0xBF
    for block in data:
        theirs = by_ggml(kind, np.ascontiguousarray(block), length)
        values = theirs if kind == Type.Q1_0 else dequantize(block.reshape(1, -1), kind).reshape(-1)
        assert values.dtype == np.float32 and np.isfinite(values).all()
        off = np.abs(theirs - values).max()
        print(f"{kind.name}: {off:.1e} between the two, {(theirs != values).sum()} of {length} differ")
        assert off <= 1e-6 * np.abs(values).max()
        lines.append(f"{kind.name} {block.tobytes().hex()} {values.tobytes().hex()}\n")
pathlib.Path(__file__).with_name("blocks.txt").write_text("".join(lines))
