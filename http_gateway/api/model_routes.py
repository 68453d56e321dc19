"""What the routes that ask a model have in common. Each of their files has a class of them; http_gateway.api.table
has them all."""

from dataclasses import dataclass

from http_gateway.api.served_models import ServedModels


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    models: ServedModels
    inputs_max: int  # of one request
