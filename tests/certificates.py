"""Certificate authorities and certificates for tests, made by the openssl program."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")


@dataclass(frozen=True, slots=True)
class Certificate:
    cert: Path
    key: Path


def make_authority(folder: Path, name: str = "ca") -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.cert)
    return made


def sign(authority: Certificate, name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
    """Makes a certificate for these names in the authority's folder, and replaces an older one of the same name."""
    folder = authority.cert.parent
    made, request = Certificate(folder / f"{name}.pem", folder / f"{name}.key"), folder / f"{name}.csr"
    openssl(
        "req",
        *CURVE,
        "-subj",
        f"/CN={name}",
        "-addext",
        f"subjectAltName={names}",
        "-keyout",
        made.key,
        "-out",
        request,
    )
    signing = ("-CA", authority.cert, "-CAkey", authority.key, "-CAcreateserial", "-copy_extensions", "copy")
    openssl("x509", "-req", "-in", request, *signing, "-days", "30", "-out", made.cert)
    return made


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
