"""The models that can be asked for, and the client of each one's tokenizer pods. Used by the routes."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from heddle.client import Client
from heddle.rpc.credentials import PLAINTEXT, Access
from heddle.rpc.errors import ErrorKind, HeddleError

RETRY_AFTER_MS = 1_000


class ServedModel:
    def __init__(self, name: str, targets: Sequence[str], access: Access) -> None:
        """Without a name it has the one that its pods say."""
        self.client = Client(*targets, access=access)
        self._name = name

    @property
    def name(self) -> str:
        """Empty until a pod has been met that says it."""
        return self._name or (self.client.model.name if self.client.model else "")


class ServedModels:
    """Made and used inside one event loop."""

    def __init__(
        self, targets_by_model: Mapping[str, Sequence[str]], *, strict_names: bool, access: Access = PLAINTEXT
    ) -> None:
        """Raises ConfigurationError for a certificate or key that cannot be used."""
        access.check()
        self._models = [ServedModel(name, targets, access) for name, targets in targets_by_model.items()]
        self._strict_names = strict_names or len(self._models) > 1
        self._draining = False
        self.created = int(time.time())

    @property
    def first(self) -> ServedModel:
        return self._models[0]

    async def start(self) -> None:
        await asyncio.gather(*(model.client.start() for model in self._models))

    async def close(self) -> None:
        await asyncio.gather(*(model.client.close() for model in self._models))

    def announce_draining(self) -> None:
        """From now on probes are told not to send anybody."""
        self._draining = True

    def check_ready(self) -> None:
        """Raises UNAVAILABLE unless every model can be asked just now."""
        if self._draining:
            raise unavailable("the gateway is stopping")
        missing = [model.name or "the model" for model in self._models if not model.client.ready]
        if missing:
            raise unavailable(f"no pod can be reached for {', '.join(missing)}")

    def known(self) -> list[ServedModel]:
        """The models whose name is known by now: a tokenizer pod has said it."""
        return [model for model in self._models if model.name]

    def names(self) -> list[str]:
        return [model.name for model in self.known()]

    def find(self, name: str | None) -> ServedModel:
        """The model that a request means. Raises MODEL_NOT_FOUND, or INVALID_INPUT where it has to say which."""
        if len(self._models) == 1 and not (name and self._strict_names):
            return self._models[0]
        if not name:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"name one of the models {self._known()}", field="model")
        return self.named(name)

    def named(self, name: str) -> ServedModel:
        """The model of exactly that name. Raises MODEL_NOT_FOUND, or UNAVAILABLE while names are not known yet."""
        for model in self._models:
            if model.name == name:
                return model
        if not self.names():
            raise unavailable("no pod has been reached yet that says which model it serves")
        raise HeddleError(ErrorKind.MODEL_NOT_FOUND, f"there is no model {name!r}, only {self._known()}", field="model")

    def _known(self) -> str:
        return ", ".join(map(repr, self.names()))


def unavailable(message: str) -> HeddleError:
    return HeddleError(ErrorKind.UNAVAILABLE, message, retry_after_ms=RETRY_AFTER_MS)
