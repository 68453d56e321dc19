"""TLS between gRPC clients and servers: who can connect, how failures are explained, and files that change."""

import asyncio
import shutil
from pathlib import Path

import pytest

from heddle.rpc import pod as pod_module
from heddle.rpc.credentials import PLAINTEXT, Access, ClientTls, ServerTls
from heddle.rpc.pool import Pool
from heddle.rpc.settings import ConfigurationError
from tests.certificates import Certificate, make_authority, sign
from tests.heddle.rpc.pods import EnginePod, ask, eventually, protocol, serving


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def server_cert(ca: Certificate) -> Certificate:
    return sign(ca, "server")


@pytest.fixture(scope="module")
def client_cert(ca: Certificate) -> Certificate:
    return sign(ca, "client")


async def refusal(target: str, access: Access) -> str:
    """Returns the reason why the pod takes no item."""
    pool = Pool((target,), protocol(), access=access)
    await pool.start()
    (pod,) = pool._pods.values()
    await eventually(lambda: pod.refusals.last is not None)
    assert not pool.ready
    await pool.close()
    assert pod.refusals.last is not None
    return pod.refusals.last.message


async def test_mutual_tls_admits_clients_with_a_certificate(
    ca: Certificate, server_cert: Certificate, client_cert: Certificate
) -> None:
    async with serving(EnginePod(), tls=ServerTls(server_cert.cert, server_cert.key, ca.cert)) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol(), access=Access(ClientTls(ca.cert, client_cert.cert, client_cert.key)))
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        await pool.close()


async def test_pods_behind_a_name_need_a_certificate_for_that_name(ca: Certificate) -> None:
    """Pods are connected to by their addresses, which no certificate of a headless service holds."""
    cert = sign(ca, "named", "DNS:localhost")
    async with serving(EnginePod(), tls=ServerTls(cert.cert, cert.key)) as server:
        target = server.addresses[0]
        port = target.rpartition(":")[2]
        pool = Pool((f"dns:///localhost:{port}",), protocol(), access=Access(ClientTls(ca.cert)))
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        await pool.close()
        assert await refusal(target, Access(ClientTls(ca.cert))) == (
            f"the certificate of {target} is not for its address"
        )
        wrong = Access(ClientTls(ca.cert, server_name="engines.example"))
        assert await refusal(target, wrong) == f"the certificate of {target} is not for the name engines.example"


async def test_a_failed_handshake_is_explained_in_one_line(
    ca: Certificate, other_ca: Certificate, server_cert: Certificate, client_cert: Certificate
) -> None:
    wrong = sign(other_ca, "wrong")
    async with serving(EnginePod(), tls=ServerTls(server_cert.cert, server_cert.key, ca.cert)) as server:
        target = server.addresses[0]
        closed = f"{target} closed the connection"
        assert await refusal(target, PLAINTEXT) == f"{closed}: it may require TLS"
        assert await refusal(target, Access(ClientTls(ca.cert))) == (
            f"{closed} in the TLS handshake: it may ask for a client certificate"
        )
        assert await refusal(target, Access(ClientTls(ca.cert, wrong.cert, wrong.key))) == (
            f"{closed} in the TLS handshake: it may refuse the certificate {wrong.cert}"
        )
        assert await refusal(target, Access(ClientTls(other_ca.cert, client_cert.cert, client_cert.key))) == (
            f"the certificate of {target} cannot be verified with {other_ca.cert}: "
            "unable to get local issuer certificate"
        )
    async with serving(EnginePod()) as server:
        target = server.addresses[0]
        assert await refusal(target, Access(ClientTls(ca.cert))) == f"{target} does not speak TLS"


async def test_a_refusal_is_in_the_log_once(
    ca: Certificate, other_ca: Certificate, server_cert: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(EnginePod(), tls=ServerTls(server_cert.cert, server_cert.key)) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol(), access=Access(ClientTls(other_ca.cert)))
        await pool.start()
        await asyncio.sleep(0.5)
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert record.getMessage().startswith(
            f"no stream to {target}: the certificate of {target} cannot be verified with"
        )
        await pool.close()


async def test_a_socket_file_needs_no_certificate(server_cert: Certificate, ca: Certificate, tmp_path: Path) -> None:
    tls = ServerTls(server_cert.cert, server_cert.key, ca.cert)
    async with serving(EnginePod(), f"unix:{tmp_path}/socket", tls=tls) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol(), access=Access(ClientTls(ca.cert)))
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        await pool.close()


async def test_files_that_change_are_used_by_both_ends_without_losing_an_item(
    ca: Certificate, other_ca: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All certificates move to another authority, the client's last; new connections use them, and the stream that was
    open is made anew."""
    monkeypatch.setattr(pod_module, "HEARTBEAT_S", 0.05)
    cert, key, roots = tmp_path / "cert", tmp_path / "key", tmp_path / "roots"

    def install(authority: Certificate) -> None:
        made = sign(authority, "rotated")
        shutil.copy(made.cert, cert)
        shutil.copy(made.key, key)

    install(ca)
    shutil.copy(ca.cert, roots)
    access = Access(ClientTls(roots, cert, key))
    async with serving(EnginePod(), tls=ServerTls(cert, key, roots)) as server:
        target = server.addresses[0]
        changes: list[bool] = []
        pool = Pool((target,), protocol(), access=access, on_change=changes.append)
        await pool.start()
        assert await asyncio.wait_for(ask(pool, b"1111")[0], 5) == b"1111"
        roots.write_bytes(ca.cert.read_bytes() + other_ca.cert.read_bytes())
        install(other_ca)
        answers = []
        for number in range(100):
            answers.append(await asyncio.wait_for(ask(pool, number.to_bytes(4, "little"))[0], 5))
            await asyncio.sleep(0.005)
        assert answers == [number.to_bytes(4, "little") for number in range(100)]
        assert changes.count(False) >= 1  # it has connected again
        only_other = tmp_path / "other"
        shutil.copy(other_ca.cert, only_other)
        fresh = Pool((target,), protocol(), access=Access(ClientTls(only_other, cert, key)))
        await fresh.start()
        assert await asyncio.wait_for(ask(fresh, b"2222")[0], 5) == b"2222"
        await fresh.close()
        await pool.close()


async def test_a_broken_new_file_leaves_the_old_one_in_use(
    ca: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pod_module, "HEARTBEAT_S", 0.02)
    made = sign(ca, "broken")
    cert, roots = tmp_path / "cert", tmp_path / "roots"
    shutil.copy(made.cert, cert)
    shutil.copy(ca.cert, roots)
    async with serving(EnginePod(), tls=ServerTls(cert, made.key)) as server:
        target = server.addresses[0]
        pool = Pool((target,), protocol(), access=Access(ClientTls(roots)))
        await pool.start()
        await asyncio.wait_for(ask(pool, b"1234")[0], 5)
        cert.write_text("half")
        roots.write_text("half")
        fresh = Pool((target,), protocol(), access=Access(ClientTls(ca.cert)))
        await fresh.start()
        for one in (pool, fresh):
            assert await asyncio.wait_for(ask(one, b"1234")[0], 5) == b"1234"
        await eventually(lambda: f"{roots} holds no certificates" in caplog.text)
        assert "keeping the old certificate" in caplog.text
        await fresh.close()
        await pool.close()


def test_files_that_cannot_be_used_are_named(ca: Certificate, server_cert: Certificate, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for tls, words in (
        (ServerTls(tmp_path / "missing", server_cert.key), f"cannot read {tmp_path}/missing: No such file"),
        (
            ServerTls(server_cert.cert, ca.key),
            f"{server_cert.cert} and the key {ca.key} cannot be used: KEY_VALUES_MIS",
        ),
        (ServerTls(server_cert.cert, server_cert.key, empty), f"{empty} holds no certificates"),
        (ClientTls(empty), f"{empty} holds no certificates"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            tls.check()
    with pytest.raises(ConfigurationError, match="cannot read"):
        Access(key_file=tmp_path / "missing").check()


def test_contradictory_settings_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tls_cert and tls_key must be set together"):
        ServerTls.from_settings(tmp_path, None, None)
    with pytest.raises(ValueError, match="beside tls_ca"):
        ServerTls.from_settings(None, None, tmp_path)
    nothing = {"ca": None, "cert": None, "tls_key": None, "server_name": "", "key": "", "key_file": None}
    for stated, words in (
        ({"cert": tmp_path}, "engines_tls_cert and engines_tls_key"),
        ({"server_name": "a"}, "engines_tls_ca must be set too"),
        ({"key": "a", "key_file": tmp_path}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=words):
            Access.from_settings("engines", **{**nothing, **stated})  # type: ignore[arg-type]
