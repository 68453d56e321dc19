"""Paths as Baseten's edge and its containers have them, and the routes that they mean. The router asks here about paths
that are none of its own, without a slash at their end.

/environments/production/sync/v1/embeddings   /v1/embeddings
/environments/production/predict              the default route
/v1/models/model:predict                      the default route
"""

import re

DEPLOYMENT = r"/(?:environments/[^/]+|deployment/[^/]+|production|development)"
SYNC = re.compile(DEPLOYMENT + r"/sync(?P<path>/.*)?")
PREDICT = re.compile(DEPLOYMENT + r"/predict|/v1/models/model:predict")
READY = "/v1/models/model"


def is_default_route(path: str) -> bool:
    return PREDICT.fullmatch(path) is not None


def without_deployment(path: str) -> str:
    """The path itself where it is none of Baseten's."""
    if path == READY:
        return "/ready"
    match = SYNC.fullmatch(path)
    return (match["path"] or "/") if match else path
