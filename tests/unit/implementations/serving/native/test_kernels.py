"""Each native kernel beside the same in float64."""

import ctypes
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from app.implementations.serving.kernels import Shape, Span
from app.implementations.serving.kv_cache import Cached, KvCache
from app.implementations.serving.lora_weights import AdapterPart, AdapterWeights, Group
from app.implementations.serving.native.build import NotBuilt, load
from app.implementations.serving.native.kernels import FEW, FEW_PRODUCTS, NativeKernels

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    try:
        return load(tmp_path_factory.mktemp("kernels"))
    except NotBuilt as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=DTYPES, ids=str)
def kernels(library: ctypes.CDLL, request: pytest.FixtureRequest) -> NativeKernels:
    torch.manual_seed(3)
    return NativeKernels(library, request.param)


@pytest.fixture
def dtype(kernels: NativeKernels, request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.node.callspec.params["kernels"]
    return found


def close(found: Tensor, expected: Tensor, steps: float = 1.0) -> None:
    """Within so many roundings of its precision."""
    one = {torch.float32: 3e-6, torch.bfloat16: 2**-8}[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=steps * one, atol=steps * one)


@pytest.mark.parametrize("size", [3, 576])
def test_norm(kernels: NativeKernels, dtype: torch.dtype, size: int) -> None:
    rows, more = torch.randn(2, 5, size, dtype=torch.float64).to(dtype)
    weight = torch.randn(size).to(dtype)
    added = (rows + more).double()
    found = kernels.norm(rows, more, weight, 1e-5)
    assert torch.equal(rows.double(), added)
    close(found, functional.rms_norm(added, (size,), weight.double(), 1e-5), steps=2)
    close(kernels.norm(rows, None, weight, 1e-5), found.double())


@pytest.mark.parametrize("size", [3, 1000])
def test_gate(kernels: NativeKernels, dtype: torch.dtype, size: int) -> None:
    both = torch.cat([10 * torch.randn(4, size), torch.randn(4, size)], dim=1).to(dtype)
    both[0, 0], both[1, 0], both[2, 0] = 200, -200, float("nan")
    first, second = both.double().chunk(2, dim=1)
    found = kernels.gate(both)
    assert bool(found[2, 0].isnan())
    found[2, 0] = first[2, 0] = 0
    close(found, functional.silu(first) * second, steps=2)


@pytest.mark.parametrize("rows", [1, 3, FEW_PRODUCTS + 1])
@pytest.mark.parametrize("size", [7, 200])
def test_int8_linear(kernels: NativeKernels, dtype: torch.dtype, rows: int, size: int) -> None:
    weight = torch.randint(-127, 128, (9, size), dtype=torch.int8)
    scales, bias, given = torch.rand(9) / 100, torch.randn(9).to(dtype), torch.randn(rows, size).to(dtype)
    expected = given.double() @ (weight.double() * scales[:, None].double()).t()
    close(kernels.int8_linear(given, weight, scales, None), expected, steps=4)
    close(kernels.int8_linear(given, weight, scales, bias), expected + bias.double(), steps=4)


@pytest.mark.parametrize("size", [6, 64, 128])
def test_attention(kernels: NativeKernels, dtype: torch.dtype, size: int) -> None:
    """Sequences of one token, of few and of many more, after none and after some."""
    shape = Shape(heads=6, kv_heads=2, size=size, scale=size**-0.5)
    caches = KvCache(3, 2, size, dtype, 2**28)
    spans, expected, rows = [], [], []
    start = 0
    for before, new in ((0, 1), (70, 1), (9, FEW), (300, 1), (0, FEW + 9), (5, FEW + 40)):
        cached = Cached()
        caches.reserve(cached, before + new)
        cached.length = before
        assert cached.slab is not None
        for kept in (cached.slab.keys, cached.slab.values):
            kept[1, cached.place, :, :before] = torch.randn(2, before, size)
        mixed = torch.randn(new, 10, size).to(dtype)
        spans.append(Span(cached, start, start + new))
        rows.append(mixed)
        start += new
    angles = torch.randn(start, size // 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    found = kernels.attention(shape, spans, cos, sin)(1, torch.cat(rows).view(start, -1))
    for span, mixed in zip(spans, rows, strict=True):
        before, at = span.cached.length, slice(span.start, span.end)
        slab, place = span.cached.slab, span.cached.place
        assert slab is not None
        first, second = mixed[:, :8].double().chunk(2, dim=2)
        c, s = cos[at, None].double(), sin[at, None].double()
        turned = torch.cat([first * c - second * s, second * c + first * s], dim=2).to(dtype)
        kept = slab.keys[1, place, :, before : before + len(mixed)].transpose(0, 1)
        close(kept, turned[:, 6:].double(), steps=2)
        assert torch.equal(slab.values[1, place, :, before : before + len(mixed)].transpose(0, 1), mixed[:, 8:])
        seen = before + len(mixed)
        keys, values = (k[1, place, :, :seen].double().repeat_interleave(3, 0) for k in (slab.keys, slab.values))
        mask = torch.arange(seen) <= before + torch.arange(len(mixed))[:, None]
        attended = functional.scaled_dot_product_attention(
            turned[:, :6].double().transpose(0, 1), keys, values, attn_mask=mask, scale=shape.scale
        )
        expected.append(attended.transpose(0, 1).reshape(len(mixed), -1))
    close(found, torch.cat(expected), steps=8)  # the scores of the longer spans are rounded, too


def test_lora(kernels: NativeKernels, dtype: torch.dtype) -> None:
    """Two adapters over tokens here and there, a run of many, tokens without; a group that one leaves alone."""
    group = Group(2, 40, (200, 70, 5))
    first = AdapterWeights("1", 3, {"g": part(group, 3, dtype)})
    second = AdapterWeights("2", 8, {"g": part(group, 8, dtype), "h": part(group, 8, dtype)})
    owners = [first, None, second, first, *[second] * 40, None, *[first] * 30, second]
    rows, out = torch.randn(len(owners), 40).to(dtype), torch.randn(len(owners), 275).to(dtype)
    batch = kernels.lora_bank({"g": group, "h": group}, dtype).batch(owners)
    assert batch is not None
    for name in ("g", "h"):
        expected = out.double()
        for row, owner in enumerate(owners):
            if owner is not None and name in owner.parts:
                hidden = torch.einsum("rmi,i->rm", owner.parts[name].down[1].double(), rows[row].double())
                ups = owner.parts[name].up[1].double().split(group.outs, dim=1)
                expected[row] += torch.cat([hidden[:, m] @ up for m, up in enumerate(ups)])
        found = out.clone()
        batch.add(name, 1, rows, found, None)
        close(found, expected, steps=40)
    assert kernels.lora_bank({"g": group}, dtype).batch([None, None]) is None


def part(group: Group, rank: int, dtype: torch.dtype) -> AdapterPart:
    down = torch.randn(group.layers, rank, len(group.outs), group.ins).to(dtype)
    return AdapterPart(down, torch.randn(group.layers, rank, sum(group.outs)).to(dtype))


def test_what_was_compiled_is_used_again(tmp_path: Path, library: ctypes.CDLL) -> None:
    load(tmp_path)
    (compiled,) = tmp_path.iterdir()
    written = compiled.stat().st_mtime_ns
    load(tmp_path)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [written]


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo no room >&2; exit 1", "no room"), ("exit 0", "has made nothing"), (None, "compiler")],
)
def test_a_compiler_that_fails_or_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, reason: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CXX", raising=False)
    if script is not None:
        compiler = tmp_path / "compiler"
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(NotBuilt, match=reason):
        load(tmp_path / "kept")
    assert not list(tmp_path.glob("kept/*"))
