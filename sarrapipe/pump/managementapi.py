"""The part of RabbitMQ's management HTTP API a pump's administrator needs.

Everything goes over HTTP with the administrator's credentials in a header: no password on a command line and
no privilege on the host (R118).

>>> api = ManagementApi("127.0.0.1", 15672, "admin", "secret")
>>> api.get("/api/queues/%2F")
[]

Source: RabbitMQ management HTTP API, the page every node serves at /api/index.html.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import Final
from urllib.parse import quote

from sarrapipe.errors import BrokerError

__all__ = ["ManagementApi", "segment"]

_TIMEOUT_S: Final = 30.0  # importing definitions of some hundred objects takes a second or two


def segment(name: str) -> str:
    """Return `name` quoted for one segment of a path: the virtual host `/` becomes `%2F`."""
    return quote(name, safe="")


class ManagementApi:
    """Requests to one node, each on a connection of its own.

    Args:
        host: Where the node listens.
        port: Its management port.
        user: An account with the tag `administrator`.
        password: In clear; never shown.
        timeout_s: Limit for one request.
    """

    def __init__(
        self, host: str, port: int, user: str, password: str, *, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def __repr__(self) -> str:
        """Name the node; never the password."""
        return f"ManagementApi({self._host}:{self._port})"

    def get(self, path: str) -> object:
        """Return what is at `path`, decoded.

        Raises:
            BrokerError: No answer, or an answer other than 2xx; names the path and says why.
        """
        return self._request("GET", path, None)

    def put(self, path: str, body: object) -> None:
        """Create or replace what is at `path`. Raises as `get` does."""
        self._request("PUT", path, body)

    def post(self, path: str, body: object) -> object:
        """Send `body` to `path` and return the answer, decoded. Raises as `get` does."""
        return self._request("POST", path, body)

    def delete(self, path: str) -> None:
        """Delete what is at `path`; nothing there is an error too. Raises as `get` does."""
        self._request("DELETE", path, None)

    def _request(self, method: str, path: str, body: object) -> object:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=self._headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BrokerError(f"{method} http://{self._host}:{self._port}{path}: {error}") from error
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise BrokerError(
                f"{method} http://{self._host}:{self._port}{path}: {response.status} {response.reason}: "
                f"{text[:500].decode('utf-8', 'replace')}"
            )
        return json.loads(text) if text else None
