"""Opens a bucket or a folder with fsspec, with the credentials that are set. Called by `checkpoint.sources.buckets` and
`artifacts.places`.

Each library reads its own environment (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*). Other settings of a
file system are those of fsspec: FSSPEC_S3='{"endpoint_url": "https://minio.example.com"}'. A public bucket is read
without credentials, if there are none.
"""

import logging
from contextlib import suppress
from typing import Any

from heddle.remote.addresses import Address, Store
from heddle.remote.errors import StoreError, as_store_error, lacks_credentials

PACKAGES: dict[Store, str] = {"s3": "s3fs", "gcs": "gcsfs", "azure": "adlfs"}

# These libraries also log the errors that they raise, with tracebacks.
NOISY_LOGGERS = ("adlfs", "azure", "gcsfs", "s3fs")

CONNECT_S_MAX = 10
READ_S_MAX = 60
# For each request. With the libraries' defaults, it takes 90 seconds to notice that a store cannot be reached.
RETRIES = 3


class FileSystem:
    """An fsspec file system that caches no listings, and whose errors are StoreError, also if its library is missing.
    Threads may share it."""

    def __init__(self, address: Address, *, writable: bool = False) -> None:
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.address, self.writable, self.is_anonymous = address, writable, False
        self.files, self.root = self.open()

    def open(self) -> tuple[Any, str]:
        """Returns fsspec's file system, and the address as its methods take it."""
        address = self.address
        try:
            return open_filesystem(address, writable=self.writable, anonymous=self.is_anonymous)
        except ImportError as error:
            needed, extra = error.name or PACKAGES.get(address.store), address.store if address.is_bucket else "sources"
            raise StoreError(f"{address.shown} needs {needed}: pip install 'heddle[{extra}]'", "refused") from None
        except ValueError as error:
            if address.store == "azure":
                advice = f"or write https://ACCOUNT.blob.core.windows.net/{address.location}"
                line = f"{address.shown} names no storage account: set AZURE_STORAGE_ACCOUNT_NAME, {advice}"
                raise StoreError(line, "refused") from error
            raise as_store_error(error, address) from error
        except Exception as error:  # each library has its own classes
            raise as_store_error(error, address) from error

    def read(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Calls a method of the file system. Raises StoreError."""
        try:
            return getattr(self.files, method)(*arguments, **named)
        except Exception as error:
            if self.address.is_bucket and not self.is_anonymous and lacks_credentials(error):
                self.is_anonymous = True
                self.files, self.root = self.open()
                return self.read(method, *arguments, **named)
            raise as_store_error(error, self.address, anonymous=self.is_anonymous) from error

    def write(self, method: str, *arguments: Any, **named: Any) -> None:
        """Calls a method of the file system that writes. Raises StoreError."""
        try:
            getattr(self.files, method)(*arguments, **named)
        except Exception as error:
            raise as_store_error(error, self.address, doing="written") from error


def open_filesystem(address: Address, *, writable: bool, anonymous: bool) -> tuple[Any, str]:
    import fsspec.config

    # The variables may have been set since fsspec was imported.
    fsspec.config.set_conf_env(fsspec.config.conf)
    options = {**address.options, "skip_instance_cache": True, "use_listings_cache": False}
    if address.store == "s3":
        return open_s3(options, anonymous), address.location
    if address.store == "gcs":
        return open_gcs(options, anonymous, writable), address.location
    if address.store == "azure":
        return open_azure(options, anonymous), address.location
    files, root = fsspec.core.url_to_fs(address.location, use_listings_cache=False)
    return files, root.rstrip("/")


def open_s3(options: dict[str, Any], anonymous: bool) -> Any:
    from s3fs import S3FileSystem

    # s3fs tries again itself: five times within a second.
    settings = {"connect_timeout": CONNECT_S_MAX, "read_timeout": READ_S_MAX, "retries": {"max_attempts": 1}}
    return S3FileSystem(**options, config_kwargs=settings, **({"anon": True} if anonymous else {}))


def open_gcs(options: dict[str, Any], anonymous: bool, writable: bool) -> Any:
    import fsspec.config

    # The class that gcsfs takes by default asks for the kind of the bucket first, over gRPC, for up to a minute.
    from gcsfs.core import GCSFileSystem
    from gcsfs.retry import retry_request
    from google.auth.exceptions import GoogleAuthError

    class QuickGCSFileSystem(GCSFileSystem):  # type: ignore[misc, unused-ignore]
        """Tries again less often: gcsfs has no setting for it. Waits double from one second on."""

        _request = retry_request(retries=1 + RETRIES)(GCSFileSystem._request.__wrapped__)  # noqa: SLF001

    access = "full_control" if writable else "read_only"
    if anonymous:
        return QuickGCSFileSystem(**options, access=access, token="anon")
    if "token" in fsspec.config.conf.get("gcs", {}):
        return QuickGCSFileSystem(**options, access=access)
    # What gcsfs tries, except "cloud": it spends half a minute on credentials that the first has not found.
    for token in ("google_default", "cache"):
        with suppress(GoogleAuthError, ValueError):
            return QuickGCSFileSystem(**options, access=access, token=token)
    return QuickGCSFileSystem(**options, access=access, token="anon")


def open_azure(options: dict[str, Any], anonymous: bool) -> Any:
    from adlfs import AzureBlobFileSystem

    timeouts = {"connection_timeout": CONNECT_S_MAX, "read_timeout": READ_S_MAX}
    files = AzureBlobFileSystem(**options, **timeouts, **({"anon": True} if anonymous else {}))
    # By default the client waits 15 seconds and more, and adlfs passes no settings on to it.
    policy = files.service_client._config.retry_policy  # noqa: SLF001
    policy.total_retries = RETRIES
    policy.initial_backoff, policy.increment_base, policy.random_jitter_range = 1, 1, 0.5
    return files
