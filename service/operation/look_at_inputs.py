"""What a service is told to read: documents, folders, certificates."""

import os
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ckptmerge.domain.certificate import MINIMUM_UNITS
from ckptmerge.domain.observation import Split
from ckptmerge.errors import HeldOutSetError
from ckptmerge.evaluation.documents import HeldOutSet, load_held_out
from service.operation.findings import Finding, Verdict
from service.settings import Settings

_SPLITS = (Split.SEARCH, Split.CERTIFY, Split.AUDIT)


def look_at_inputs(settings: Settings) -> Iterator[Finding]:
    """Look at everything that the settings name."""
    yield look_at_held_out(settings.held_out)
    for folder in settings.source_roots:
        yield look_at_readable("source root", folder)
    for folder in settings.watch:
        yield look_at_readable("watched folder", folder)
    if settings.tls_certificate is not None and settings.tls_key is not None:
        yield look_at_tls(settings.tls_certificate, settings.tls_key)


def look_at_held_out(path: Path | None) -> Finding:
    """Look whether the held-out set can judge a model, and how much it could show."""
    name = "held-out set"
    if path is None:
        said = "none: every run must name one that was uploaded"
        return Finding(name, Verdict.OK, said)
    try:
        documents = load_held_out(path)
        splits = {split: documents.split(split) for split in _SPLITS}
    except (HeldOutSetError, OSError) as error:
        return Finding(name, Verdict.FAIL, str(error), "name a file that can judge a model")
    units = {split: _units(part) for split, part in splits.items()}
    said = "; ".join(
        f"{split}: " + ", ".join(f"{count} {domain}" for domain, count in sorted(counts.items()))
        for split, counts in units.items()
    )
    thin = sorted(domain for domain, count in units[Split.CERTIFY].items() if count < MINIMUM_UNITS)
    if thin:
        remedy = (
            f"give more documents of {', '.join(thin)}: nothing is claimed of a domain with fewer "
            f"than {MINIMUM_UNITS} units in certify"
        )
        return Finding(name, Verdict.WARN, f"independent units in {said}", remedy)
    return Finding(name, Verdict.OK, f"independent units in {said}")


def look_at_readable(name: str, folder: Path) -> Finding:
    """Look whether a folder is one, and may be listed."""
    if not folder.is_dir():
        return Finding(name, Verdict.FAIL, f"{folder} is no folder", "make it, or name another")
    if not os.access(folder, os.R_OK | os.X_OK):
        remedy = "let the service's user read it"
        return Finding(name, Verdict.FAIL, f"{folder} cannot be read by this user", remedy)
    return Finding(name, Verdict.OK, str(folder))


def look_at_tls(certificate: Path, key: Path) -> Finding:
    """Look whether certificate and key can be read and belong together."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        said = f"{certificate} and {key}: {error.strerror or error}"
        remedy = "give a PEM certificate and the key that belongs to it, readable by this user"
        return Finding("tls", Verdict.FAIL, said, remedy)
    return Finding("tls", Verdict.OK, str(certificate))


def _units(documents: HeldOutSet) -> Counter[str]:
    return Counter(domain for domain, _ in {(each.domain, each.unit) for each in documents})
