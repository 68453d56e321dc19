"""Secrets of a config become variables of the library that reads its source."""

import json
from pathlib import Path

import pytest

from heddle.config.credentials import VARIABLES, MissingSecretError, find_credentials, find_secret_places
from heddle.config.schema import TrussConfig
from heddle.rpc.settings import ConfigurationError
from tests.heddle.config.configs import BUILD, load

REPOSITORY = f"{BUILD}.checkpoint_repository"
REPOS = {"S3": "s3://b/m", "GCS": "gs://b/m", "AZURE": "azure://a/c/m", "REMOTE_URL": "https://h/m.tar"}

AWS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}
SERVICE_ACCOUNT = {"private_key_id": "1", "private_key": "hidden", "client_email": "me@example.com"}
OWN = {"S3": "AWS_PROFILE", "GCS": "GOOGLE_APPLICATION_CREDENTIALS", "AZURE": "AZURE_STORAGE_SAS_TOKEN"}


def config_of(folder: Path, source: str, **fields: str) -> TrussConfig:
    stated = {f"{REPOSITORY}.{name}": value for name, value in fields.items()}
    repo = {f"{REPOSITORY}.repo": REPOS[source]} if source in REPOS else {}
    return load(folder, {f"{REPOSITORY}.source": source, **repo, **stated}).config


def test_the_hubs_token_is_read_where_truss_and_baseten_put_secrets(tmp_path: Path) -> None:
    config = config_of(tmp_path, "HF", runtime_secret_name="mine")
    (tmp_path / "mine").write_text("mounted\n")
    assert find_credentials(config, {}, tmp_path) == {"HF_TOKEN": "mounted"}
    assert find_credentials(config, {"TRUSS_SECRET_mine": "variable"}, tmp_path) == {"HF_TOKEN": "variable"}
    assert find_credentials(config, {"HF_TOKEN": "own"}, tmp_path) == {}
    assert find_credentials(config_of(tmp_path, "HF"), {}, tmp_path) == {}


def test_errors_name_the_place_where_a_secret_is_or_should_be(tmp_path: Path) -> None:
    config = config_of(tmp_path, "HF", runtime_secret_name="mine")
    missing = f"TRUSS_SECRET_mine (or the file {tmp_path}/mine)"
    assert find_secret_places(config, {}, tmp_path) == {"hub": missing}
    (tmp_path / "mine").write_text("mounted")
    assert find_secret_places(config, {}, tmp_path) == {"hub": f"{tmp_path}/mine"}
    assert find_secret_places(config, {"TRUSS_SECRET_mine": "variable"}, tmp_path) == {"hub": "TRUSS_SECRET_mine"}
    assert find_secret_places(config, {"HF_TOKEN": "own"}, tmp_path) == {}
    assert find_secret_places(config_of(tmp_path, "HF"), {}, tmp_path) == {}
    assert find_secret_places(config_of(tmp_path, "S3"), {"TRUSS_SECRET_hf_access_token": "t"}, tmp_path) == {}


@pytest.mark.parametrize("source", ["HF", *REPOS])
def test_a_stated_secret_that_does_not_exist_is_named(tmp_path: Path, source: str) -> None:
    config = config_of(tmp_path, source, runtime_secret_name="mine")
    with pytest.raises(MissingSecretError, match=f"TRUSS_SECRET_mine nor a file {tmp_path}/mine"):
        find_credentials(config, {}, tmp_path)


def test_a_mounted_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, "HF", runtime_secret_name="mine")
    (tmp_path / "mine").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="mine is not UTF-8 text"):
        find_credentials(config, {}, tmp_path)
    (tmp_path / "mine").unlink()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigurationError, match="mine cannot be read: Is a directory"):
        find_credentials(config, {}, tmp_path)


@pytest.mark.parametrize(
    ("source", "secret", "expected"),
    [
        ("S3", {"aws_access_key_id": "key", "aws_secret_access_key": "hidden"}, AWS),
        (
            "S3",
            {"access_key_id": "key", "secret_access_key": "hidden", "session_token": "t", "region": "us-west-2"},
            {**AWS, "AWS_SESSION_TOKEN": "t", "AWS_DEFAULT_REGION": "us-west-2"},
        ),
        ("AZURE", {"account_key": "hidden"}, {"AZURE_STORAGE_ACCOUNT_KEY": "hidden"}),
        ("AZURE", {"sas_token": "s"}, {"AZURE_STORAGE_SAS_TOKEN": "s"}),
    ],
)
def test_a_bucket_takes_the_secrets_that_baseten_documents(
    tmp_path: Path, source: str, secret: dict[str, str], expected: dict[str, str]
) -> None:
    config = config_of(tmp_path, source, runtime_secret_name="mine")
    assert find_credentials(config, {"TRUSS_SECRET_mine": json.dumps(secret)}, tmp_path) == expected
    assert set(expected) <= set(VARIABLES)


def test_google_takes_a_service_account(tmp_path: Path) -> None:
    config = config_of(tmp_path, "GCS", runtime_secret_name="mine")
    found = find_credentials(config, {"TRUSS_SECRET_mine": json.dumps(SERVICE_ACCOUNT)}, tmp_path)
    token = json.loads(found["FSSPEC_GCS"])["token"]
    assert SERVICE_ACCOUNT.items() < token.items()
    assert token["token_uri"] == "https://oauth2.googleapis.com/token"


def test_a_web_server_gets_the_secret_only_if_the_config_names_it(tmp_path: Path) -> None:
    environ = {"TRUSS_SECRET_mine": "hidden", "TRUSS_SECRET_hf_access_token": "of the hub"}
    assert find_credentials(config_of(tmp_path, "REMOTE_URL"), environ, tmp_path) == {}
    assert find_credentials(config_of(tmp_path, "S3"), environ, tmp_path) == {}
    found = find_credentials(config_of(tmp_path, "REMOTE_URL", runtime_secret_name="mine"), environ, tmp_path)
    assert json.loads(found["HEDDLE_WEB_HEADERS"]) == {"https://h": {"Authorization": "Bearer hidden"}}


@pytest.mark.parametrize("source", OWN)
def test_credentials_of_the_environment_come_first(tmp_path: Path, source: str) -> None:
    config = config_of(tmp_path, source, runtime_secret_name="mine")
    assert find_credentials(config, {"TRUSS_SECRET_mine": "not even JSON", OWN[source]: "mine"}, tmp_path) == {}


@pytest.mark.parametrize("source", ["S3", "GCS", "AZURE"])
@pytest.mark.parametrize("secret", ["hidden", "[]", "{}", '{"other": "hidden"}', '{"access_key_id": "hidden"}'])
def test_the_error_about_a_malformed_secret_does_not_repeat_it(tmp_path: Path, source: str, secret: str) -> None:
    config = config_of(tmp_path, source, runtime_secret_name="mine")
    with pytest.raises(ConfigurationError, match="the secret mine must be JSON of the form") as caught:
        find_credentials(config, {"TRUSS_SECRET_mine": secret}, tmp_path)
    assert "hidden" not in str(caught.value)
