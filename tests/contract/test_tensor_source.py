"""What every source and every sink of tensors must do."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ckptmerge.domain.checkpoint import TensorSpec
from ckptmerge.formats.sink import FolderSink
from ckptmerge.formats.source import SafetensorsSource
from ckptmerge.formats.tensors import (
    MemorySink,
    MemorySource,
    TensorSink,
    TensorSource,
    as_bytes,
    spec_of,
)

TENSORS = {
    "z.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.weight": torch.linspace(-1, 1, 7, dtype=torch.bfloat16),
    "half": torch.linspace(-1, 1, 3, dtype=torch.float16),
    "wide": torch.tensor(0.1, dtype=torch.float64),
    "count": torch.tensor([1, 2], dtype=torch.int64),
    "mask": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
}


def in_memory(_):
    return MemorySource(TENSORS)


def one_file(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    return SafetensorsSource(tmp_path)


def sharded(tmp_path):
    homes = {name: f"{index % 2}.safetensors" for index, name in enumerate(TENSORS)}
    for home in set(homes.values()):
        save_file({n: TENSORS[n] for n in TENSORS if homes[n] == home}, tmp_path / home)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    return SafetensorsSource(tmp_path)


@pytest.mark.parametrize("make", [in_memory, one_file, sharded])
class TestTensorSource:
    @pytest.fixture
    def source(self, make, tmp_path):
        source = make(tmp_path)
        yield source
        if isinstance(source, SafetensorsSource):
            source.close()

    def test_it_is_a_source(self, source):
        assert isinstance(source, TensorSource)
        assert source.label

    def test_specs_are_sorted_and_true(self, source):
        assert list(source.specs) == sorted(TENSORS)
        assert source.specs == {name: spec_of(name, t) for name, t in TENSORS.items()}

    def test_tensors_read_back_bit_for_bit(self, source):
        for name, tensor in TENSORS.items():
            read = source.read(name)
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
            assert bytes(as_bytes(read)) == bytes(as_bytes(tensor))

    def test_what_was_read_is_the_readers_own(self, source):
        source.read("z.weight").zero_()
        assert torch.equal(source.read("z.weight"), TENSORS["z.weight"])

    def test_pieces_read_like_the_whole(self, source):
        whole = bytes(as_bytes(TENSORS["z.weight"]))
        piece = memoryview(bytearray(9))
        source.read_into("z.weight", 7, piece)
        assert bytes(piece) == whole[7:16]

    def test_an_unknown_name_is_a_key_error(self, source):
        with pytest.raises(KeyError):
            source.read("nothing")

    def test_nothing_has_changed(self, source):
        source.require_unchanged()


SPECS = tuple(spec_of(name, tensor) for name, tensor in TENSORS.items())


@pytest.fixture(params=["memory", "folder", "folder of shards"])
def sink(request, tmp_path):
    if request.param == "memory":
        yield MemorySink(SPECS)
    else:
        size = 10 if "shards" in request.param else 10**9
        with FolderSink(tmp_path / "out", SPECS, metadata={}, shard_size=size) as folder:
            yield folder


class TestTensorSink:
    def test_it_is_a_sink_and_orders_every_tensor_once(self, sink):
        assert isinstance(sink, TensorSink)
        assert sorted(sink.order) == sorted(SPECS)

    def test_tensors_come_in_pieces_and_arrive_whole(self, sink, tmp_path):
        for spec in sink.order:
            content = as_bytes(TENSORS[spec.name])
            for start in range(0, max(len(content), 1), 8):
                piece = content[start : start + 8]
                view = sink.lend(len(piece))
                view[:] = piece
                sink.write(spec.name, view)
        if isinstance(sink, MemorySink):
            source = MemorySource(sink.tensors())
        else:
            sink.publish({}, {})
            source = SafetensorsSource(tmp_path / "out")
        for name, tensor in TENSORS.items():
            assert torch.equal(source.read(name), tensor)

    def test_a_tensor_out_of_turn_is_refused(self, sink):
        with pytest.raises(ValueError, match="was due"):
            sink.write(sink.order[1].name, sink.lend(1))

    def test_too_many_bytes_are_refused(self, sink):
        first: TensorSpec = sink.order[0]
        with pytest.raises(ValueError, match="was due"):
            sink.write(first.name, sink.lend(first.bytes + 1))
