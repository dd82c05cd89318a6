"""Arithmetic v1: the same bytes on every machine, for every cut into blocks and threads."""

import hashlib
import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from ckptmerge.domain.weights import MergeWeights
from ckptmerge.formats.tensors import as_bytes
from ckptmerge.merging.combine import Scratch, combine, rounded_weights

WEIGHTS = MergeWeights.of(0.1, -0.25, 0.7, 0.45)

# Inputs come from integer arithmetic: a generator's stream may change with a release.
GOLDEN = """
import hashlib, json, sys, torch
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.formats.tensors import as_bytes
from ckptmerge.merging.combine import Scratch, combine

BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16,
        torch.float32: torch.int32, torch.float64: torch.int64}
TOP = {torch.bfloat16: 0x3FFF, torch.float16: 0x3FFF, torch.float32: 0x3FFFFFFF,
       torch.float64: 0x3FFFFFFFFFFFFFFF}

def numbers(dtype, seed, count=10007):
    # All bit patterns of magnitude below two, denormals and zeros of both signs included.
    index = torch.arange(count, dtype=torch.int64) + 1
    mixed = index * 6364136223846793005 + seed * 1442695040888963407
    mixed = (mixed ^ (mixed >> 29)) * 2862933555777941757
    width = BITS[dtype].itemsize * 8
    magnitude = (mixed >> max(63 - width, 0)) & TOP[dtype]
    magnitude[:: 7] = index[:: 7] % 64
    sign = ((mixed >> 62) & 1) << (width - 1)
    raw = magnitude | sign
    if width < 64:
        raw = raw - ((raw >> (width - 1)) << width)
    return raw.to(BITS[dtype]).view(dtype)

def digest(inner, outer, weights, block):
    parts = [numbers(inner, seed) for seed in range(len(weights))]
    out = torch.empty_like(parts[0], dtype=outer)
    combine(parts, weights, out=out, scratch=Scratch(block=block))
    assert out.isfinite().all()
    return hashlib.sha256(as_bytes(out)).hexdigest()[:16]

def table(block):
    found = {}
    for inner in BITS:
        for outer in BITS:
            weights = MergeWeights.of(0.1, -0.25, 0.7, 0.45)
            found[f"{inner} to {outer}"] = digest(inner, outer, weights, block)
    return found
"""
namespace: dict[str, object] = {}
exec(GOLDEN, namespace)  # noqa: S102 - the same text also runs in other processes, below

DIGESTS: dict[str, str] = json.loads("""{
    "torch.bfloat16 to torch.bfloat16": "bcf082e9fe8faa68",
    "torch.bfloat16 to torch.float16": "0ba004bafc28c4c9",
    "torch.bfloat16 to torch.float32": "1873b9b91732ee59",
    "torch.bfloat16 to torch.float64": "4e9275b80fcca50c",
    "torch.float16 to torch.bfloat16": "fcfc5b78f277e9f0",
    "torch.float16 to torch.float16": "e1cae7138f2be388",
    "torch.float16 to torch.float32": "5d0dea02ca985885",
    "torch.float16 to torch.float64": "2f588213a0645c7d",
    "torch.float32 to torch.bfloat16": "9abea2d11585221e",
    "torch.float32 to torch.float16": "a73ca44fd535d5fa",
    "torch.float32 to torch.float32": "2162c6023adf3379",
    "torch.float32 to torch.float64": "5dfa120b1eef615d",
    "torch.float64 to torch.bfloat16": "85bc5cc0dd211a1f",
    "torch.float64 to torch.float16": "3893f6fe375a58f7",
    "torch.float64 to torch.float32": "48c56aa31fbeabe5",
    "torch.float64 to torch.float64": "168100cf577e5f91"
}""")


def parts(dtype, count=4):
    return [namespace["numbers"](dtype, seed) for seed in range(count)]


def digest_of(tensor):
    return hashlib.sha256(as_bytes(tensor)).hexdigest()[:16]


def test_the_bytes_are_those_of_the_first_release():
    assert namespace["table"](None) == DIGESTS


@pytest.mark.parametrize("block", [1, 7, 64, 10006, 10007, 10**6])
def test_blocks_do_not_change_a_bit(block):
    dtype = torch.bfloat16
    got = namespace["digest"](dtype, dtype, WEIGHTS, block if block > 1 else 3)
    assert got == DIGESTS["torch.bfloat16 to torch.bfloat16"]


def test_neither_instruction_set_nor_threads_change_a_bit():
    """Plain and AVX2 kernels, one thread and three; this process runs the widest kernels."""
    code = GOLDEN + (
        "torch.set_num_threads(int(sys.argv[1]))\n"
        "print(json.dumps([torch.backends.cpu.get_cpu_capability(), table(None)]))"
    )
    ran_as = set()
    for capability, threads in (("default", 1), ("avx2", 3)):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(threads)],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            check=True,
            text=True,
        )
        actual, digests = json.loads(ran.stdout)
        ran_as.add(actual)
        assert digests == DIGESTS, actual
    assert "DEFAULT" in ran_as, "no process ran without vector instructions; nothing was compared"


def test_a_fused_multiply_add_would_be_seen():
    """A negative control: adding with ``alpha``, as most merges do, can give other bytes."""
    one, two = parts(torch.float32, 2)
    out = torch.empty_like(one)
    combine([one, two], MergeWeights.of(0.3, 0.7), out=out)
    exact = one.double() * float(np.float32(0.3)) + two.double() * float(np.float32(0.7))
    assert not torch.equal(out, exact.float()), "these inputs could not tell one rounding from two"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_a_product_and_a_sum_in_float32_each_rounded(dtype):
    """Against numpy, which has no fused multiply-add."""
    inputs = parts(dtype)
    total = None
    for part, weight in zip(inputs, WEIGHTS.values, strict=True):
        term = part.float().numpy() * np.float32(weight)
        total = term if total is None else total + term
    out = torch.empty(len(inputs[0]), dtype=torch.float32)
    combine(inputs, WEIGHTS, out=out)
    assert out.numpy().tobytes() == total.tobytes()


def test_float64_is_merged_in_float64():
    inputs = parts(torch.float64)
    total = inputs[0].numpy() * 0.1
    for part, weight in zip(inputs[1:], WEIGHTS.values[1:], strict=True):
        total = total + part.numpy() * weight
    out = torch.empty(len(inputs[0]), dtype=torch.float64)
    combine(inputs, WEIGHTS, out=out)
    assert out.numpy().tobytes() == total.tobytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float64_is_rounded_once(dtype):
    """A number just above the middle of two neighbours, which float32 would make the middle."""
    step = torch.finfo(dtype).eps
    above = 1 + Fraction(step) / 2 + Fraction(1, 2**40)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    values = [float(above), -float(above), 1 + step / 2, 1 + 3 * step / 2, tiny / 2, tiny * 0.51]
    expected = [1 + step, -(1 + step), 1.0, 1 + 2 * step, 0.0, tiny]
    out = torch.empty(len(values), dtype=dtype)
    combine([torch.tensor(values, dtype=torch.float64)], MergeWeights.of(1.0), out=out)
    assert out.double().tolist() == expected


def test_a_checkpoint_without_weight_leaves_no_trace():
    """Not even a NaN of it, and not the sign of a zero."""
    kept = torch.tensor([-0.0, 0.0, 1.5, 1e-40])
    out = torch.empty_like(kept)
    lost = torch.full_like(kept, float("nan"))
    combine([lost, kept, lost], MergeWeights.of(0.0, 1.0, -0.0), out=out)
    assert digest_of(out) == digest_of(kept)


def test_a_weight_that_rounds_to_zero_counts_as_zero():
    assert rounded_weights(MergeWeights.of(1.0, 1e-60), torch.float32) == [1.0, 0.0]
    assert rounded_weights(MergeWeights.of(1.0, 1e-60), torch.float64) == [1.0, 1e-60]


def test_neighbouring_weights_stay_apart_in_bfloat16():
    """0.6 and 0.601 are one number in bfloat16; two candidates must not become one merge."""
    inputs = [torch.linspace(-1, 1, 999).bfloat16(), torch.linspace(1, -1, 999).bfloat16()]
    outs = [torch.empty_like(inputs[0]) for _ in range(2)]
    combine(inputs, MergeWeights.of(0.6, 0.4), out=outs[0])
    combine(inputs, MergeWeights.of(0.601, 0.399), out=outs[1])
    assert not torch.equal(*outs)


def test_rounding_first_and_widening_after_equals_what_a_file_would_hold():
    inputs = parts(torch.bfloat16)
    stored, live = torch.empty_like(inputs[0]), torch.empty(len(inputs[0]))
    combine(inputs, WEIGHTS, out=stored)
    combine(inputs, WEIGHTS, out=live, rounded_to=torch.bfloat16)
    assert torch.equal(stored.float(), live)


def test_as_many_parts_as_weights():
    one = torch.ones(3)
    with pytest.raises(ValueError, match="zip"):
        combine([one], MergeWeights.of(0.5, 0.5), out=torch.empty(3))


def test_scratch_is_used_again():
    scratch = Scratch(block=64)
    first = scratch.of("term", torch.float32, 64).data_ptr()
    assert scratch.of("term", torch.float32, 10).data_ptr() == first
    assert scratch.of("total", torch.float32, 10).data_ptr() != first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["torch.bfloat16", "torch.float16", "torch.float32"])
def test_a_gpu_gives_the_same_bytes(name):
    dtype = getattr(torch, name.removeprefix("torch."))
    inputs = [part.cuda() for part in parts(dtype)]
    out = torch.empty_like(inputs[0])
    combine(inputs, WEIGHTS, out=out)
    assert digest_of(out.cpu()) == DIGESTS[f"{name} to {name}"]
