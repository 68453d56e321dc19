"""Names of flows: callers that name none get their address, also through a relay, and each request has its own name."""

import pytest

from heddle.rpc.flow_names import FlowNames, flow_of_peer, relay_address


@pytest.mark.parametrize(
    ("peer", "flow"),
    [
        ("ipv4:192.0.2.1:5000", "peer:192.0.2.1"),
        ("ipv6:[2001:db8::1]:5000", "peer:2001:db8::1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "peer:2001:db8::1"),
        ("unix:", ""),
        ("unix:/run/some/path", ""),
        ("unix-abstract:heddle-1-abc", ""),
        (f"unix-abstract:{relay_address('192.0.2.1')[1:]}", "peer:192.0.2.1"),
        (f"unix-abstract:{relay_address('2001:db8::1')[1:]}", "peer:2001:db8::1"),
        ("", ""),
    ],
)
def test_the_flow_of_a_peer_is_its_address_where_one_is_known(peer: str, flow: str) -> None:
    assert flow_of_peer(peer) == flow


def test_relays_never_connect_from_the_same_address() -> None:
    addresses = {relay_address("192.0.2.1") for _ in range(100)}
    assert len(addresses) == 100
    assert max(map(len, (relay_address("0000:" * 7 + "0000%interface"),))) < 108  # sockaddr_un


def test_a_name_without_parts_gets_a_part_for_each_request_and_others_are_kept() -> None:
    names = FlowNames()
    for flow in ("caller", ""):
        first, second = names.complete(flow), names.complete(flow)
        assert first != second
        assert first.startswith(f"{flow}/" if flow else "")
        assert names.complete(first) == first
    assert names.complete("caller/user/1") == "caller/user/1"
    assert not names.complete("").startswith("/")
    assert FlowNames().complete("").split(".")[0] != names.complete("").split(".")[0]
