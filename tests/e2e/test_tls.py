"""A service that others can reach, under TLS: its own worker and watcher reach it as well."""

import shutil
from pathlib import Path

import pytest

from ckptmerge.client.client import Client
from ckptmerge.client.trust import CA
from ckptmerge.errors import ServiceError
from tests.e2e.running import RunningService, decided, wait_for
from tests.e2e.searched import run_of
from tests.integration.authority import Authority

TOKEN = "mbo_" + "0123456789ABCDEF"
STEPS, BUDGET = 2, 5


def test_on_every_address_under_tls_a_study_is_decided(
    trained_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate holds a name that no worker could call the service by."""
    authority, root = Authority(tmp_path), tmp_path / "run"
    signed = authority.sign("localhost")
    root.mkdir()
    service = RunningService(
        tmp_path, trained_run.held_out, watch=root,
        environ={
            "CKPTMERGE_HOST": "0.0.0.0",  # noqa: S104 - with a token and TLS
            "CKPTMERGE_TOKEN": TOKEN,
            "CKPTMERGE_TLS_CERTIFICATE": str(signed.chain),
            "CKPTMERGE_TLS_KEY": str(signed.key),
        },
    )  # fmt: skip
    with service:
        assert service.url.startswith("https://127.0.0.1:"), "what its own worker calls it"
        url = service.url.replace("127.0.0.1", "localhost")
        with (
            Client(url, TOKEN) as stranger,
            pytest.raises(ServiceError, match=f"shows is not trusted .* name its file as {CA}"),
        ):
            stranger.run("run")
        monkeypatch.setenv(CA, str(authority.certificate))
        with Client(url, TOKEN) as client:
            client._session.json("POST", "/v1/runs", run_of(STEPS, BUDGET))
            client.push(trained_run.checkpoints[-2], run="run")
            shutil.copytree(trained_run.checkpoints[-1], root / "step-300")
            wait_for(lambda: decided(client, "run"), 120, service.log)
            best = client.best("run")
            assert best.answer.promoted
            best.download(tmp_path / "champion")
        # Looked at before the service ends, when a worker may ask once more.
        assert "does not answer" not in service.log()
