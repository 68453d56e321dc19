"""TLS and keys of gRPC servers and clients.

Files are read again when they change: a server reads them at the next handshake, a client connects again. Unix sockets
use neither TLS nor keys; the permissions of their folder say who may connect.

Settings import this module on machines without gRPC, so grpc is imported inside functions.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heddle.rpc.settings import ConfigurationError

if TYPE_CHECKING:
    import grpc

Metadata = tuple[tuple[str, str], ...]
FileVersions = tuple[tuple[int, int, int] | None, ...]

AUTHORIZATION = "authorization"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerTls:
    cert: Path  # the certificate and those between it and a root, PEM
    key: Path
    ca: Path | None = None  # authorities of client certificates; None: clients need none

    @classmethod
    def from_settings(cls, cert: Path | None, key: Path | None, ca: Path | None) -> "ServerTls | None":
        """Reads the settings tls_cert, tls_key and tls_ca. Raises ValueError for an incomplete set."""
        if cert is None and key is None and ca is None:
            return None
        if cert is None or key is None:
            raise ValueError("tls_cert and tls_key must be set together" + (", beside tls_ca" if ca else ""))
        return cls(cert, key, ca)

    def check(self) -> None:
        """Raises ConfigurationError that names the file."""
        check_pair(self.cert, self.key)
        if self.ca:
            check_authorities(self.ca)


@dataclass(frozen=True, slots=True)
class ClientTls:
    ca: Path  # authorities of server certificates, PEM
    cert: Path | None = None  # the client's own, for servers that require one
    key: Path | None = None
    server_name: str = ""  # the name in the server's certificate; "" = the host of the target

    def check(self) -> None:
        """Raises ConfigurationError that names the file."""
        check_authorities(self.ca)
        if self.cert and self.key:
            check_pair(self.cert, self.key)

    def channel_credentials(self) -> "grpc.ChannelCredentials":
        import grpc

        self.check()
        key, cert = (read(self.key), read(self.cert)) if self.cert and self.key else (None, None)
        return grpc.ssl_channel_credentials(read(self.ca), key, cert)


@dataclass(frozen=True, slots=True)
class Access:
    """A client's credentials."""

    tls: ClientTls | None = None  # None: plaintext
    key: str = ""
    key_file: Path | None = None  # contains the key; read for each connection

    @classmethod
    def from_settings(
        cls,
        peers: str,
        *,
        ca: Path | None,
        cert: Path | None,
        tls_key: Path | None,
        server_name: str,
        key: str,
        key_file: Path | None,
    ) -> "Access":
        """Reads the settings whose names begin with `peers`. Raises ValueError for a contradiction."""
        if (cert is None) != (tls_key is None):
            raise ValueError(f"{peers}_tls_cert and {peers}_tls_key must be set together")
        if ca is None and (cert or server_name):
            raise ValueError(f"{peers}_tls_ca must be set too: without it connections are plaintext")
        if key and key_file:
            raise ValueError(f"{peers}_key and {peers}_key_file exclude each other")
        return cls(ClientTls(ca, cert, tls_key, server_name) if ca else None, key, key_file)

    def check(self) -> None:
        """Raises ConfigurationError that names the file."""
        if self.tls:
            self.tls.check()
        self.metadata()

    def metadata(self) -> Metadata:
        """The metadata of each call and stream."""
        key = read(self.key_file).decode(errors="replace").strip() if self.key_file else self.key
        return ((AUTHORIZATION, f"Bearer {key}"),) if key else ()

    def versions(self) -> FileVersions:
        """Compares unequal to an earlier value once a file has changed."""
        tls = (self.tls.ca, self.tls.cert, self.tls.key) if self.tls else ()
        return file_versions(*tls, self.key_file)

    def is_usable(self, target: str) -> bool:
        """Whether changed files can be used: a file that is being replaced may be incomplete. Logs the result."""
        try:
            self.check()
        except ConfigurationError as error:
            log.warning("keeping the connection to %s and its old certificates: %s", target, error)
            return False
        log.info("certificates or keys have changed: connecting to %s again", target)
        return True


PLAINTEXT = Access()


def server_credentials(tls: ServerTls) -> "grpc.ServerCredentials":
    """Raises ConfigurationError. Later, an invalid file is logged, and the old certificate stays in use."""
    import grpc

    files = WatchedFiles(tls.cert, tls.key, tls.ca)

    def read_again() -> "grpc.ServerCertificateConfiguration | None":
        """Called by gRPC for each handshake, on its own thread. None means no change."""
        if not files.have_changed():
            return None
        try:
            configuration = certificate_configuration(tls)
        except ConfigurationError as error:
            log.warning("keeping the old certificate: %s", error)
            return None
        log.info("read %s again", tls.cert)
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        certificate_configuration(tls),
        read_again,  # type: ignore[arg-type]  # may return None, whatever the stub says
        require_client_authentication=tls.ca is not None,
    )


def certificate_configuration(tls: ServerTls) -> "grpc.ServerCertificateConfiguration":
    import grpc

    tls.check()
    return grpc.ssl_server_certificate_configuration(
        [(read(tls.key), read(tls.cert))], read(tls.ca) if tls.ca else None
    )


def explain_refusal(details: str, target: str, tls: ClientTls | None) -> str | None:
    """Explains gRPC's message for a failed handshake. None if something else failed."""
    if tls is None:
        is_closed = "Socket closed" in details and "failed to connect" in details
        return f"{target} closed the connection: it may require TLS" if is_closed else None
    if "CERTIFICATE_VERIFY_FAILED" in details:
        reason = details.partition("CERTIFICATE_VERIFY_FAILED: ")[2].partition(":")[0] or "no reason given"
        return f"the certificate of {target} cannot be verified with {tls.ca}: {reason}"
    if "Hostname Verification Check failed" in details:
        wanted = f"the name {tls.server_name}" if tls.server_name else "its address"
        return f"the certificate of {target} is not for {wanted}"
    if "WRONG_VERSION_NUMBER" in details:
        return f"{target} does not speak TLS"
    if "failed to connect" in details and ("Socket closed" in details or "reset by peer" in details):
        shown = f"it may refuse the certificate {tls.cert}" if tls.cert else "it may ask for a client certificate"
        return f"{target} closed the connection in the TLS handshake: {shown}"
    return None


def check_pair(cert: Path, key: Path) -> None:
    """Raises ConfigurationError unless the key belongs to the certificate."""
    for file in (cert, key):
        read(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ConfigurationError(f"the certificate {cert} and the key {key} cannot be used: {reason}") from error


def check_authorities(ca: Path) -> None:
    read(ca)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{ca} holds no certificates: {error.reason or error}") from error


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


class WatchedFiles:
    """Files that are read again when they change. Made before they are read for the first time."""

    def __init__(self, *files: Path | None) -> None:
        self._files = files
        self._versions = file_versions(*files)

    def have_changed(self) -> bool:
        """Whether a file has changed since the last call."""
        versions, self._versions = self._versions, file_versions(*self._files)
        return versions != self._versions


def file_versions(*files: Path | None) -> FileVersions:
    versions: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat() if file else None
        except OSError:
            status = None
        versions.append((status.st_mtime_ns, status.st_ino, status.st_size) if status else None)
    return tuple(versions)
