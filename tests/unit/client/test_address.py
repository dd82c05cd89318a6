"""Where a service is reached from its own machine, whatever it listens on."""

import pytest

from ckptmerge.client.address import address_here, service_url


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - nothing listens there
        ("::", "[::1]"),
        ("0:0:0:0:0:0:0:0", "[::1]"),
        ("::1", "[::1]"),
        ("fe80::1", "[fe80::1]"),
        ("192.0.2.7", "192.0.2.7"),
        ("merge.example", "merge.example"),
    ],
)
def test_a_service_that_listens_everywhere_is_reached_over_loopback(host, reached) -> None:
    assert address_here(host, 8117, tls=False) == f"http://{reached}:8117"
    assert address_here(host, 8117, tls=True) == f"https://{reached}:8117"
    assert service_url(address_here(host, 8117, tls=True)).port == 8117
