"""Downloads a model that is named by its address, before any service starts. Called by `serve`.

Services get the folder, so they ask no store again, serve the same files, and show no password on their command lines.
"""

from collections.abc import Mapping
from dataclasses import replace

from heddle.checkpoint.model_source import locate, name_of
from heddle.cli.serve_settings import ServeSettings, add_model_name
from heddle.remote.addresses import is_address


def use_address(settings: ServeSettings, environ: Mapping[str, str]) -> tuple[ServeSettings, Mapping[str, str]]:
    """Returns settings and environment that serve the folder under the model's own name; both unchanged if the model is
    no address. Raises ConfigurationError."""
    if not is_address(settings.model):
        return settings, environ
    folder = locate(settings.model, settings.revision or None)
    return replace(settings, model=str(folder), revision=""), add_model_name(environ, name_of(settings.model))
