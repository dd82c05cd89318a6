"""nginx on a socket of its own, serving a folder: what others have made of RFC 9110."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.e2e.running import wait_for

CONFIGURATION = """
daemon off;
master_process off;
pid {prefix}/pid;
error_log stderr crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        listen unix:{prefix}/socket;
        root {folder};
    }}
}}
"""


@contextmanager
def nginx_serving(folder: Path, prefix: Path) -> Iterator[httpx2.Client]:
    """Serve the files of a folder until the end of the block; ``prefix`` is nginx's own."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed here (`.ci/run` installs it)")
    place = prefix / "nginx.conf"
    place.write_text(CONFIGURATION.format(prefix=prefix, folder=folder))
    with subprocess.Popen([program, "-p", prefix, "-c", place, "-e", "stderr"]) as process:
        try:
            wait_for(lambda: _listens(prefix / "socket"), 20)
            transport = httpx2.HTTPTransport(uds=str(prefix / "socket"))
            with httpx2.Client(base_url="http://nginx", transport=transport) as client:
                yield client
        finally:
            process.terminate()


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(place)) == 0
