"""Hostile texts: indices that lead elsewhere, configuration that names code, absurd documents."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping

from tests.torture.hostile_file import Hostile, Place
from tests.torture.hostile_weights import FORMAT

DOCUMENTS = "held-out-set"

_GOOD_MAP = {"a": "a.safetensors", "b": "b.safetensors"}


def index_of(homes: object, **further: object) -> bytes:
    """Write an index that says in which file each tensor is."""
    return json.dumps({"metadata": {"total_size": 16}, "weight_map": homes, **further}).encode()


def _leading_to(place: str) -> Callable[[], bytes]:
    return lambda: index_of({**_GOOD_MAP, "b": place})


_INDICES: Mapping[str, Callable[[], bytes]] = {
    "index to ../../secret": _leading_to("../../secret.safetensors"),
    "index to /etc/passwd": _leading_to("/etc/passwd"),
    "index to a name with NUL": _leading_to("b.safetensors\0"),
    "index to a file beneath": _leading_to("sub/b.safetensors"),
    "index to ./b": _leading_to("./b.safetensors"),
    "index to a Windows path": _leading_to("..\\..\\b.safetensors"),
    "index to a URL": _leading_to("http://127.0.0.1:9/b.safetensors"),
    "index to a pickle": _leading_to("pytorch_model.bin"),
    "index to a shard that is missing": _leading_to("c.safetensors"),
    "index to no text": lambda: index_of({**_GOOD_MAP, "b": ["b.safetensors"]}),
    "index to half a surrogate pair": _leading_to("\ud800.safetensors"),
    "index with a tensor twice": lambda: (
        b'{"weight_map":{"a":"a.safetensors","b":"b.safetensors","a":"b.safetensors"}}'),
    "index with a tensor in the wrong shard": lambda: index_of(
        {"a": "b.safetensors", "b": "a.safetensors"}),
    "index without a tensor": lambda: index_of({"a": "a.safetensors", "c": "b.safetensors"}),
    "index with a tensor too many": lambda: index_of({**_GOOD_MAP, "c": "b.safetensors"}),
    "index of nothing": lambda: index_of({}),
    "index that is a list": lambda: b"[]",
    "index without a map": lambda: b'{"metadata":{}}',
    "index of another map": lambda: index_of([["a", "a.safetensors"]]),
    "index that is not JSON": lambda: b"weights: a",
    "index of bad UTF-8": lambda: b'{"weight_map":{"\xff":"a.safetensors"}}',
    "index of a depth bomb": lambda: b'{"weight_map":' + b"[" * 1_000_000,
    "index of 30 MB": lambda: index_of(_GOOD_MAP).ljust(30_000_000),
    "index of a million tensors": lambda: index_of(
        {str(n): "a.safetensors" for n in range(600_000)}),
}  # fmt: skip

_CONFIG = {"model_type": "llama", "hidden_size": 8, "architectures": ["LlamaForCausalLM"]}


def _config(**changes: object) -> Callable[[], bytes]:
    return lambda: json.dumps({**_CONFIG, **changes}).encode()


_CONFIGS: Mapping[str, Callable[[], bytes]] = {
    "config with auto_map": _config(auto_map={"AutoModelForCausalLM": "evil.Model"}),
    "config with auto_map deep within": _config(text_config={"x": [{"auto_map": {"A": "e.M"}}]}),
    "config with trust_remote_code": _config(trust_remote_code=True),
    "config with trust_remote_code within": _config(text_config={"trust_remote_code": 1}),
    "config with model_file": _config(model_file="evil.py"),
    "config with custom_generate": _config(custom_generate="evil/generate"),
    "config with a kernel": _config(_attn_implementation="evil/kernel"),
    "config with a kernel of a version": _config(attn_implementation="evil/kernel@v1:flash"),
    "config with a kernel inside out": _config(_attn_implementation_internal="evil/kernel"),
    "config with a kernel within": _config(text_config={"_attn_implementation": "evil/kernel"}),
    "config with kernels by part": _config(_attn_implementation={"": "eager", "x": "evil/k"}),
    "config with a kernel of experts": _config(_experts_implementation="evil/kernel"),
    "config with a kernel in a list": _config(_attn_implementation=["evil/kernel"]),
    "config of bad UTF-8": lambda: b'{"model_type":"\xff"}',
    "config of UTF-16": lambda: json.dumps(_CONFIG).encode("utf-16"),
    "config of NUL": lambda: bytes(100),
    "config that is a list": lambda: b"[]",
    "config that is a number": lambda: b"1",
    "config that is empty": lambda: b"",
    "config cut short": lambda: json.dumps(_CONFIG).encode()[:-1],
    "config with a number of 5000 digits": lambda: b'{"hidden_size":' + b"9" * 5000 + b"}",
    "config of a depth bomb": lambda: b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "config of lists without end": lambda: b'{"a":' + b"[" * 7_000_000,
    "config of a million names": lambda: json.dumps({str(n): n for n in range(600_000)}).encode(),
    "config of 50 MB": lambda: json.dumps(_CONFIG).encode().ljust(50_000_000),
}  # fmt: skip

_OTHER_SIDES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "tokenizer configuration with auto_map": (
        "tokenizer_config.json",
        lambda: b'{"auto_map":{"AutoTokenizer":["evil.Tokenizer",null]}}'),
    "generation configuration with custom_generate": (
        "generation_config.json", lambda: b'{"custom_generate":"evil/generate"}'),
    "tokenizer of bad UTF-8": ("tokenizer.json", lambda: b'{"version":"\xfe"}'),
    "tokenizer of a depth bomb": ("tokenizer.json", lambda: b'{"a":' + b"[" * 10_000_000),
    "tokenizer of 70 MB": ("tokenizer.json", lambda: b"{}".ljust(70_000_000)),
    "vocabulary of bad UTF-8": ("vocab.json", lambda: b'{"\xff":1}'),
    "added tokens that are a list": ("added_tokens.json", lambda: b"[]"),
}  # fmt: skip

_LEGAL_SIDES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "config that trusts nothing": ("config.json", _config(trust_remote_code=False)),
    "config with an implementation of transformers": (
        "config.json", _config(_attn_implementation="flash_attention_2")),
    "config of no model that exists": ("config.json", _config(model_type="../../evil")),
    "config with markup": ("config.json", _config(_name_or_path="<script>alert(1)</script>")),
    "config of a giant": ("config.json", _config(hidden_size=10**9)),
    "template that asks for the system": (
        "chat_template.jinja", lambda: b"{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "licence that is no text": ("LICENSE", lambda: bytes(range(256))),
}  # fmt: skip
"""Stored as they are and never run; what the model cannot be built from fails its task."""

_STRANGERS: Mapping[str, str] = {
    "a pickle called .bin": "pytorch_model.bin",
    "a pickle called .pt": "model.pt",
    "a pickle called .pth": "consolidated.00.pth",
    "a pickle called .ckpt": "model.ckpt",
    "a pickle called .pkl": "model.pkl",
    "Python beside nothing": "modeling_evil.py",
    "a msgpack": "flax_model.msgpack",
    "an adapter": "adapter_config.json",
}

_SENTENCE = "Snow covered the tracks of the hare number {n}, and of {n} foxes."


def _documents(count: int = 200) -> list[dict[str, object]]:
    return [{"text": _SENTENCE.format(n=n), "domain": "web"} for n in range(count)]


def good_documents() -> bytes:
    """Write documents that nothing is wrong with."""
    return _lines()


def _lines(*further: bytes) -> bytes:
    good = (json.dumps(document).encode() for document in _documents())
    return b"\n".join([*good, *further]) + b"\n"


def _with(**document: object) -> Callable[[], bytes]:
    return lambda: _lines(json.dumps(document).encode())


_DOCUMENTS: Mapping[str, Callable[[], bytes]] = {
    "no documents": lambda: b"",
    "blank lines alone": lambda: b"\n" * 100_000,
    "documents of bad UTF-8": lambda: _lines(b'{"text":"\xff"}'),
    "documents of UTF-16": lambda: _lines().decode().encode("utf-16"),
    "documents of NUL": lambda: bytes(1000),
    "a line that is not JSON": lambda: _lines(b"It rained."),
    "a line that is a list": lambda: _lines(b'["It rained."]'),
    "a line that is a number": lambda: _lines(b"1e400"),
    "a line cut short": lambda: _lines(b'{"text":"It rai'),
    "a line of a depth bomb": lambda: _lines(b'{"text":' + b"[" * 1_000_000),
    "a line of braces without end": lambda: _lines(b'{"a":' * 500_000),
    "a line of 100 MB": lambda: _lines(b'{"text":"' + b"x" * 100_000_000 + b'"}'),
    "a line of 100 MB without an end": lambda: b"x" * 100_000_000,
    "text that is a number": _with(text=1),
    "text that is null": _with(text=None),
    "text that is blank": _with(text="  \u00a0 "),
    "text of half a surrogate pair": _with(text="\ud800"),
    "text and ids": _with(text="It rained.", ids=[1, 2]),
    "neither text nor ids": _with(domain="web"),
    "ids that are text": _with(ids="1 2 3"),
    "ids that are text within": _with(ids=["1", "2"]),
    "ids that are true": _with(ids=[True, False]),
    "ids that are floats": _with(ids=[1.0, 2.0]),
    "ids that are negative": _with(ids=[1, -1]),
    "ids beyond every vocabulary": _with(ids=[1, 2**53]),
    "ids of 4000 digits": _with(ids=[1, 10**4000]),
    "ids of 5000 digits": lambda: _lines(b'{"ids":[1,' + b"9" * 5000 + b"]}"),
    "no ids": _with(ids=[]),
    "domain that is a list": _with(text="It rained.", domain=["web"]),
    "domain that is empty": _with(text="It rained.", domain=""),
    "domain of a megabyte": _with(text="It rained.", domain="x" * 2**20),
    "domain of half a surrogate pair": _with(text="It rained.", domain="\udc00"),
    "group that is a number": _with(text="It rained.", group=7),
    "a domain with one document": _with(text="It rained.", domain="alone"),
    "one document, many times": lambda: b'{"text":"It rained."}\n' * 20_000,
    "documents by the million": lambda: b"\n" * 1_000_001,
    "a pickle of documents": lambda: pickle.dumps(_documents()),
}  # fmt: skip

_LEGAL_DOCUMENTS: Mapping[str, Callable[[], bytes]] = {
    "text with NUL": _with(text="It\0rained.", domain="web"),
    "text with separators of lines": _with(text="It\u2028rained\u2029and\x85rained.", domain="web"),
    "documents behind a byte order mark": lambda: b"\xef\xbb\xbf" + _lines(),
    "documents with carriage returns": lambda: _lines().replace(b"\n", b"\r\n"),
    "documents with unknown keys": _with(text="It snowed.", domain="web", __proto__={"a": 1}),
    "a document of 2 MB": _with(text="It rained. " * 180_000, domain="web"),
}  # fmt: skip


def texts() -> Iterator[Hostile]:
    """Yield every index, side file, stranger and held-out set, legal ones included."""
    for name, make in _INDICES.items():
        yield Hostile(name=name, place=Place.INDEX, make=make, refusal=FORMAT)
    # Converters write the size of another dtype there, and nobody reads it.
    wrong_size = index_of(_GOOD_MAP, metadata={"total_size": 2**60})
    yield Hostile(
        name="index with a wrong size", place=Place.INDEX, make=lambda: wrong_size, refusal=None
    )
    for name, make in _CONFIGS.items():
        yield Hostile(name=name, place=Place.SIDE, make=make, refusal=FORMAT, called="config.json")
    for name, (called, make) in _OTHER_SIDES.items():
        yield Hostile(name=name, place=Place.SIDE, make=make, refusal=FORMAT, called=called)
    for name, (called, make) in _LEGAL_SIDES.items():
        yield Hostile(name=name, place=Place.SIDE, make=make, refusal=None, called=called)
    for name, called in _STRANGERS.items():
        pickled = pickle.dumps({"w": [1.0] * 100})
        yield Hostile(
            name=name, place=Place.STRANGER, make=lambda p=pickled: p, refusal=FORMAT, called=called
        )
    for name, make in _DOCUMENTS.items():
        yield Hostile(name=name, place=Place.HELD_OUT, make=make, refusal=DOCUMENTS)
    for name, make in _LEGAL_DOCUMENTS.items():
        yield Hostile(name=name, place=Place.HELD_OUT, make=make, refusal=None)
