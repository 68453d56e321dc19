"""Names of flows: callers that name none get their address, and each request has its own name."""

import pytest

from heddle.rpc.fairness import FlowNames, peer_flow


@pytest.mark.parametrize(
    ("peer", "flow"),
    [
        ("ipv4:192.0.2.1:5000", "peer:192.0.2.1"),
        ("ipv6:[2001:db8::1]:5000", "peer:2001:db8::1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "peer:2001:db8::1"),
        ("unix:", ""),
        ("unix:/run/some/path", ""),
        ("unix-abstract:heddle-1-abc", ""),
        ("", ""),
    ],
)
def test_the_flow_of_a_peer_is_its_address_where_one_is_known(peer: str, flow: str) -> None:
    assert peer_flow(peer) == flow


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
