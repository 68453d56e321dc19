"""Where an HTTP request carries its key: OpenAI's clients send it as `Authorization: Bearer KEY`, Baseten's as
`Authorization: Api-Key KEY`, Azure's in the api-key header. The app passes it to `heddle.rpc.keys`.
"""

from http_gateway.web.message import Headers


def authorization_of(headers: Headers) -> str | None:
    """As the header `authorization` states it."""
    authorization = headers.get("authorization")
    if not authorization and (azure_key := headers.get("api-key")):
        return f"Api-Key {azure_key}"
    return authorization
