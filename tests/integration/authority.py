"""A certificate authority of the tests' own; `openssl` makes what no library here can."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Signed:
    """A service's certificate with its authority's behind it, and its key."""

    chain: Path
    key: Path


class Authority:
    """Signs certificates in a folder of its own, which goes with the test."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl command to make certificates with")
        self._folder = folder
        self._key = folder / f"{name}.key"
        self.certificate = folder / f"{name}.pem"
        openssl(
            "req", "-x509", *_KEY, "-keyout", self._key, "-out", self.certificate, "-days", "2",
            "-subj", f"/CN={name}",
        )  # fmt: skip

    def sign(self, name: str) -> Signed:
        """Make a certificate for a host name."""
        asked, made, names = (self._folder / f"{name}.{end}" for end in ("csr", "crt", "ext"))
        signed = Signed(self._folder / f"{name}.chain", self._folder / f"{name}.key")
        names.write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *_KEY, "-keyout", signed.key, "-out", asked, "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", asked, "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-out", made, "-days", "2", "-extfile", names,
        )  # fmt: skip
        signed.chain.write_text(made.read_text() + self.certificate.read_text())
        return signed


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
