"""User text never becomes a path: every string of the interface set to two hundred that want to.

What the service asks of the file system is seen from outside, by strace, and not by itself.
"""

import copy
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests.torture.finding import require_program

CANARY = "zq7canary"
"""Stands in every payload, and nowhere else on the machine."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')

_TARGETS = (
    CANARY, f"{CANARY}.safetensors", f"{CANARY}/model.safetensors", f".{CANARY}", f"{CANARY}\0",
    f"{CANARY}\0.json", f"{CANARY}\n", f"{CANARY}.json ", f"{CANARY}.", f"{CANARY}::$DATA",
)  # fmt: skip
_LEADS = (
    "", "/", "//", "/etc/", "../", "../" * 3, "../" * 8, "./", "./../", "..//../", "....//....//",
    "..;/..;/", "..\\", "..\\..\\", "\\", "\\\\host\\share\\", "C:\\", "C:/", "c:", "file:///",
    "file://localhost/", "http://127.0.0.1:9/", "~/", "~root/", "$HOME/", "%HOME%\\",
    "/proc/self/cwd/", "/proc/self/root/", "/dev/fd/",
    "a/../../", "\uff0e\uff0e/", "\u2025/", "..\u2215",
    "..\uff0f", "\ud800/",
    "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..%c0%af", "%c0%ae%c0%ae/", "..%00/",
    "..%5c", "..%255c", "`", "$(touch ", ";touch ", "|touch ", "{{", "${", "%s%n",
)  # fmt: skip
_DEVICES = ("CON", "NUL", "AUX", "PRN", "COM1", "LPT1.json")


def payloads(root: Path) -> list[str]:
    """Return every payload once; some lead out of a folder that the service may read."""
    leads = [*_LEADS, f"{root}/../", f"{root}/../../", f"{root}//..//..//", f"{root}/./a/../../"]
    made = [lead + target for lead in leads for target in _TARGETS]
    return [*dict.fromkeys(made), *(f"{device}/{CANARY}" for device in _DEVICES)]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, a string of which is a payload."""

    method: str
    path: str
    """As it goes over the wire."""
    where: str
    """Which string it is."""
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def requests_of(document: Mapping[str, Any], root: Path, *, every: int) -> Iterator[Request]:
    """Yield requests that put payloads into every string that the interface takes.

    Args:
        document: The OpenAPI document.
        root: The service's source root.
        every: Which payloads each string gets: all where 1, else each n-th, beginning elsewhere.
    """
    texts = payloads(root)
    start = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method not in {"get", "head", "post", "put", "patch", "delete"}:
                continue
            for strings in _strings_of(document, path, method, operation):
                start += 1
                for text in texts[start % every :: every]:
                    yield strings(text)


def _strings_of(
    document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]
) -> Iterator[Any]:
    """Yield, for each string of an operation, what makes a request of a payload there."""
    parameters = operation.get("parameters", [])
    body, kind = _body_of(document, operation)
    headers = {} if kind is None else {"Content-Type": kind}
    sound = {p["name"]: "a" for p in parameters if p["in"] == "path"}
    for parameter in parameters:
        name, place = parameter["name"], parameter["in"]

        def make(text: str, name: str = name, place: str = place) -> Request:
            filled = _filled(path, {**sound, name: text} if place == "path" else sound)
            query = f"?{name}={_quoted(text, safe='%')}" if place == "query" else ""
            more = {name: _quoted(text, safe="/%\\:;.")} if place == "header" else {}
            return Request(
                method=method.upper(), path=filled + query, where=f"{method} {path} {place} {name}",
                body=None if body is None else json.dumps(body).encode(),
                headers={**headers, **more},
            )  # fmt: skip

        yield make
    for pointer in [*_leaves(body), *([("",)] if isinstance(body, dict) else [])]:

        def make_body(text: str, pointer: tuple[Any, ...] = pointer) -> Request:
            changed = _with(body, pointer, text)
            return Request(
                method=method.upper(), path=_filled(path, sound), headers=headers,
                where=f"{method} {path} body {'/'.join(map(str, pointer))}",
                body=json.dumps(changed).encode(),
            )  # fmt: skip

        yield make_body


def _filled(path: str, values: Mapping[str, str]) -> str:
    """Fill in a path; what is percent-encoded in a payload stays so, and is encoded no more."""
    for name, value in values.items():
        path = path.replace("{" + name + "}", _quoted(value, safe="%/;"))
    return path


def _quoted(text: str, *, safe: str) -> str:
    return quote(text, safe=safe, errors="surrogatepass")


def _body_of(document: Mapping[str, Any], operation: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return an example of an operation's JSON body, as the document itself gives it."""
    content = operation.get("requestBody", {}).get("content", {})
    described = content.get("application/json")
    if described is None:
        return None, next(iter(content), None)
    if "examples" in described:
        # The richest of them: a manifest, and a source beside it.
        joined: dict[str, Any] = {}
        for example in described["examples"].values():
            joined |= example["value"]
        return joined, "application/json"
    schema = described["schema"]
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    examples = schema.get("examples", [{}])
    return examples[0], "application/json"


def _leaves(value: Any, pointer: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the strings of a body are."""
    if isinstance(value, str):
        yield pointer
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*pointer, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:2]):
            yield from _leaves(item, (*pointer, number))


def _with(body: Any, pointer: tuple[Any, ...], text: str) -> Any:
    changed = copy.deepcopy(body)
    # A manifest and a source exclude each other.
    if pointer[0] == "source":
        changed.pop("files", None)
    elif isinstance(changed, dict):
        changed.pop("source", None)
    within = changed
    for key in pointer[:-1]:
        within = within[key]
    if pointer == ("",):
        within[text] = text  # a name that nobody knows
    else:
        within[pointer[-1]] = text
    if "wait" in changed:
        changed["wait"] = 0  # for work, which there is none of
    return changed


def fetch(url: str, path: str) -> bytes:
    """Return what a service has at a path."""
    address = urlsplit(url)
    line = HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        line.request("GET", path)
        return line.getresponse().read()
    finally:
        line.close()


def send(url: str, requests: Iterator[Request]) -> tuple[Counter[int], list[str]]:
    """Send requests; return how often each status came, and which requests failed."""
    address = urlsplit(url)
    statuses: Counter[int] = Counter()
    failed: list[str] = []
    line = HTTPConnection(address.hostname or "", address.port, timeout=5)
    for request in requests:
        headers = {**request.headers, "Content-Length": str(len(request.body or b""))}
        try:
            line.request(request.method, request.path, body=request.body, headers=headers)
            answer = line.getresponse()
            status = answer.status
            if answer.headers.get_content_type() == "text/event-stream":
                line.close()  # it never ends
            else:
                answer.read()
        except (HTTPException, OSError):
            line.close()  # the server hangs up after some refusals; others never get to it
            status = 0
        statuses[status] += 1
        if status >= 500:
            failed.append(f"{status} {request.where}")
    line.close()
    return statuses, failed


@contextmanager
def tracing(process: int, log: Path) -> Iterator[None]:
    """Record what a process and its children ask of the file system by name."""
    tracer = subprocess.Popen(
        [require_program("strace"), "-f", "-qq", "-s", "4096", "-o", str(log), "-e", "trace=%file",
         "-p", str(process)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await(lambda: "TracerPid:\t0" not in Path(f"/proc/{process}/status").read_text())
        yield
    finally:
        tracer.terminate()
        tracer.wait(30)


def named(log: Path) -> list[str]:
    """Return every path with the canary in it that was asked for."""
    lines = (line for line in log.read_text(errors="replace").splitlines() if CANARY in line)
    return [path for line in lines for path in _QUOTED.findall(line) if CANARY in path]


def control(outside: Path, log: Path) -> list[str]:
    """Return what is found where a process does open a payload, outside of every folder of ours."""
    code = f"input(); open({str(outside / CANARY)!r}, 'w').close(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, text=True
    ) as process:
        with tracing(process.pid, log):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            _await((outside / CANARY).exists)
        process.communicate("\n")
    return named(log)


def _await(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("strace did not attach, or the traced process did nothing")
        time.sleep(0.01)
