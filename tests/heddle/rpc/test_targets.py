"""Valid targets, and those that are rejected before a connection is tried."""

import pytest

from heddle.rpc.pool import Pool
from heddle.rpc.targets import check_targets, parse_host_port, socket_path
from tests.heddle.rpc.pods import protocol


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("localhost:50051", ("localhost", 50051)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:50051", ("::1", 50051)),
        ("ipv4:10.0.0.1:50051", ("10.0.0.1", 50051)),
        ("ipv6:[::1]:50051", ("::1", 50051)),
        ("dns:///engines:50052", ("engines", 50052)),
    ],
)
def test_a_host_and_its_port(target: str, place: tuple[str, int]) -> None:
    assert socket_path(target) is None
    assert parse_host_port(target) == place


@pytest.mark.parametrize("target", ["unix:/run/heddle/engine", "unix:///run/heddle/engine"])
def test_a_path(target: str) -> None:
    assert socket_path(target) == "/run/heddle/engine"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "engines",
        ":50052",
        "engines:",
        "engines:http",
        "engines:65536",
        "::1:50051",
        "dns:engines:50052",
        "ipv4:10.0.0.1:1,10.0.0.2:1",
        "ipv6:%5B::1%5D:50051",
        "unix-abstract:engine",
    ],
)
def test_other_targets_are_rejected(target: str) -> None:
    with pytest.raises(ValueError, match="is neither host:port nor unix:/path nor dns:///name:port"):
        check_targets("localhost:1", target)


async def test_a_pool_rejects_an_invalid_target() -> None:
    with pytest.raises(ValueError, match="'engines' is neither"):
        Pool(("engines",), protocol())
