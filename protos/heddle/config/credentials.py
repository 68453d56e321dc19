"""Converts the secret of a config's checkpoint into variables for the library that reads the checkpoint.

Baseten's documentation shows what a secret holds: the token for HF, and JSON for the others
(https://docs.baseten.co/engines/performance-concepts/cloud-storage-deployment). `truss-transfer` names the fields of S3
without `aws_`, so both names are accepted. Called by `heddle.cli.config_command`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heddle.config.schema import TrussConfig
from heddle.remote.web import HEADERS_VARIABLE, origin_of
from heddle.rpc.settings import ConfigurationError

MOUNTED_SECRETS = Path("/secrets")

HUB_VARIABLE = "HF_TOKEN"

GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"

S3_FIELDS = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_DEFAULT_REGION",
    "endpoint_url": "AWS_ENDPOINT_URL",
}
AZURE_FIELDS = {
    "account_name": "AZURE_STORAGE_ACCOUNT_NAME",
    "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
    "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
    "client_id": "AZURE_STORAGE_CLIENT_ID",
    "client_secret": "AZURE_STORAGE_CLIENT_SECRET",
    "tenant_id": "AZURE_STORAGE_TENANT_ID",
}


# Converts a secret and the `repo` of its source into variables. Raises KeyError, ValueError, AttributeError or
# TypeError for a malformed secret.
Convert = Callable[[str, str], dict[str, str]]


def convert_s3(fields: Mapping[str, Any]) -> dict[str, str]:
    found = {variable: str(fields.get(f"aws_{name}") or fields.get(name) or "") for name, variable in S3_FIELDS.items()}
    if not (found["AWS_ACCESS_KEY_ID"] and found["AWS_SECRET_ACCESS_KEY"]):
        raise KeyError("aws_access_key_id")
    return {variable: text for variable, text in found.items() if text}


def convert_azure(fields: Mapping[str, Any]) -> dict[str, str]:
    found = {variable: str(fields[name]) for name, variable in AZURE_FIELDS.items() if fields.get(name)}
    if not found:
        raise KeyError("account_key")
    return found


def convert_gcs(fields: Mapping[str, Any]) -> dict[str, str]:
    """Adds the fields that are the same for every service account. Baseten's example leaves them out."""
    account = {"type": "service_account", "token_uri": GOOGLE_TOKEN_URI, **fields}
    if not (account.get("private_key") and account.get("client_email")):
        raise KeyError("private_key")
    return {"FSSPEC_GCS": json.dumps({"token": account})}


def convert_hub_token(token: str, _: str) -> dict[str, str]:
    return {HUB_VARIABLE: token}


def convert_web_token(token: str, url: str) -> dict[str, str]:
    """Sends the token only to the host of the checkpoint, and not to others, such as that of a store of builds."""
    return {HEADERS_VARIABLE: json.dumps({origin_of(url): {"Authorization": f"Bearer {token}"}})}


def from_json(convert: Callable[[Mapping[str, Any]], dict[str, str]]) -> Convert:
    return lambda secret, _: convert(json.loads(secret))


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to convert the secret of one source. The secret is not read if the environment has one of the variables
    `first`. `form` describes it in errors."""

    first: tuple[str, ...]
    convert: Convert
    form: str = "text"


SOURCES = {
    "HF": Credentials((HUB_VARIABLE,), convert_hub_token),
    "REMOTE_URL": Credentials((HEADERS_VARIABLE, "FSSPEC_HTTPS"), convert_web_token),
    "S3": Credentials(
        ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "FSSPEC_S3"),
        from_json(convert_s3),
        'JSON of the form {"aws_access_key_id": "...", "aws_secret_access_key": "...", "aws_region": "..."}',
    ),
    "GCS": Credentials(
        ("GOOGLE_APPLICATION_CREDENTIALS", "FSSPEC_GCS"),
        from_json(convert_gcs),
        'JSON of the form {"private_key_id": "...", "private_key": "...", "client_email": "..."}',
    ),
    "AZURE": Credentials(
        ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"),
        from_json(convert_azure),
        'JSON of the form {"account_key": "..."}',
    ),
}

# Sources by the names that `heddle.remote.errors` has for them.
STORES = {"HF": "hub", "S3": "s3", "GCS": "gcs", "AZURE": "azure"}

# All variables that `find_credentials` may return.
VARIABLES = (HUB_VARIABLE, HEADERS_VARIABLE, "FSSPEC_GCS", *S3_FIELDS.values(), *AZURE_FIELDS.values())


class MissingSecretError(LookupError):
    """The secret that the config names does not exist."""


def find_credentials(
    config: TrussConfig, environ: Mapping[str, str], mounted: Path = MOUNTED_SECRETS
) -> dict[str, str]:
    """Returns environment variables; none if the environment has credentials already, or if the config names no secret
    and the default one does not exist. Raises MissingSecretError, and ConfigurationError for a malformed secret. No
    error repeats the secret."""
    repository = config.trt_llm.build.checkpoint_repository
    name, is_stated = repository.runtime_secret_name, "runtime_secret_name" in repository.model_fields_set
    credentials = SOURCES.get(repository.source)
    if credentials is None or any(environ.get(variable) for variable in credentials.first):
        return {}
    # The default secret is the token for the hub, which no other server may see.
    if repository.source != "HF" and not is_stated:
        return {}
    secret = read_secret(name, environ, mounted)
    if not secret and is_stated:
        raise MissingSecretError(f"there is neither a variable TRUSS_SECRET_{name} nor a file {mounted / name}")
    try:
        return credentials.convert(secret, repository.repo) if secret else {}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ConfigurationError(f"the secret {name} must be {credentials.form}") from None


def find_secret_places(
    config: TrussConfig, environ: Mapping[str, str], mounted: Path = MOUNTED_SECRETS
) -> dict[str, str]:
    """Returns where the secret of the checkpoint is, or should be, for `heddle.remote.errors.SECRET_PLACES`; empty if
    the environment has credentials already, or if no secret is stated and the default one does not exist. Raises
    ConfigurationError for a secret that cannot be read."""
    repository = config.trt_llm.build.checkpoint_repository
    credentials, store = SOURCES.get(repository.source), STORES.get(repository.source)
    if store is None or credentials is None or any(environ.get(variable) for variable in credentials.first):
        return {}
    name = repository.runtime_secret_name
    is_stated = "runtime_secret_name" in repository.model_fields_set
    if not is_stated and (store != "hub" or not read_secret(name, environ, mounted)):
        return {}
    variable, file = f"TRUSS_SECRET_{name}", mounted / name
    if environ.get(variable):
        return {store: variable}
    return {store: str(file) if file.exists() else f"{variable} (or the file {file})"}


def read_secret(name: str, environ: Mapping[str, str], mounted: Path) -> str:
    """Looks where Truss and Baseten put secrets. Returns "" if there is none. Raises ConfigurationError."""
    if stated := environ.get(f"TRUSS_SECRET_{name}"):
        return stated.strip()
    try:
        return (mounted / name).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise ConfigurationError(f"the secret {mounted / name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the secret {mounted / name} is not UTF-8 text") from None
