"""What only RabbitMQ's management HTTP API can tell: depths of queues we may not consume, bindings, users.

Reading and closing connections; accounts are made by `pump/`. The password goes into a header, never into a
URL, a log or an error.

Source: RabbitMQ management HTTP API, the page every node serves at /api/index.html.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from sarrapipe.broker.endpoint import Endpoint, tls_context
from sarrapipe.broker.topology import Binding
from sarrapipe.errors import BrokerError

__all__ = ["Management", "QueueStatus", "User"]

_PORTS: Final = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
_TIMEOUT_S: Final = 10.0
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue as the management database has it, some seconds old.

    Attributes:
        name: Its name.
        ready: Messages waiting.
        unacknowledged: Messages delivered and not acknowledged.
        consumers: How many consume it.
        state: `running`, `idle`, `down` ...
    """

    name: str
    ready: int
    unacknowledged: int
    consumers: int
    state: str


@dataclass(frozen=True, slots=True)
class User:
    """An account of the broker."""

    name: str
    tags: tuple[str, ...]


class Management:
    """Asks one node.

    Args:
        endpoint: Host, user, password, virtual host and TLS rigour are taken from it.
        port: Management port; 0 for 15672, or 15671 with amqps.
        timeout_s: Limit for one request.
    """

    def __init__(self, endpoint: Endpoint, port: int = 0, timeout_s: float = _TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._port = port
        self._timeout_s = timeout_s

    def queues(self) -> list[QueueStatus]:
        """Return the queues of the virtual host.

        Raises:
            BrokerError: No answer in time, or a refusal; names the node, the path and the reason.
        """
        rows = self.request("GET", f"/api/queues/{self._vhost}")
        return [_queue_status(row) for row in _rows(rows)]

    def queue(self, name: str) -> QueueStatus | None:
        """Return one queue, or None if there is none of this name. Raises as `queues` does."""
        row = self.request("GET", f"/api/queues/{self._vhost}/{_segment(name)}", missing_ok=True)
        return _queue_status(row) if isinstance(row, dict) else None

    def bindings(self, queue: str) -> list[Binding]:
        """Return what a queue is bound to, without the default exchange. Raises as `queues` does."""
        rows = self.request("GET", f"/api/queues/{self._vhost}/{_segment(queue)}/bindings", missing_ok=True)
        return [
            Binding(str(row["source"]), str(row["routing_key"])) for row in _rows(rows) if row.get("source")
        ]

    def users(self) -> list[User]:
        """Return the accounts; needs the tag `administrator`. Raises as `queues` does."""
        return [
            User(str(row["name"]), _tags(row.get("tags"))) for row in _rows(self.request("GET", "/api/users"))
        ]

    def connections(self) -> dict[str, str]:
        """Return the broker's name of each open connection, with the name its client gave it.

        Raises as `queues` does. A connection appears some seconds after it was opened.
        """
        found = {}
        for row in _rows(self.request("GET", "/api/connections")):
            properties = row.get("client_properties")
            named = properties.get("connection_name", "") if isinstance(properties, dict) else ""
            found[str(row["name"])] = str(named)
        return found

    def close_connection(self, name: str) -> None:
        """Close a connection by the broker's name for it. Raises as `queues` does."""
        self.request("DELETE", f"/api/connections/{_segment(name)}", missing_ok=True)

    def request(self, method: str, path: str, body: object = None, *, missing_ok: bool = False) -> object:
        """Ask anything and return the answer, decoded; None where it is empty.

        Args:
            method: HTTP method.
            path: Begins with `/api/`; names in it are quoted by the caller.
            body: Sent as JSON.
            missing_ok: A 404 is None instead of an error.

        Raises:
            BrokerError: See `queues`.
        """
        scheme, default_port = _PORTS[self._endpoint.scheme]
        host, _ = self._endpoint.address
        node = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{node}:{self._port or default_port}{path}"
        token = base64.b64encode(f"{self._endpoint.user}:{self._endpoint.password}".encode()).decode("ascii")
        request = urllib.request.Request(  # noqa: S310  # the scheme is one of the two above
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        context = tls_context(self._endpoint) if scheme == "https" else None
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s, context=context) as response:  # noqa: S310  # as above
                text = response.read(_MAX_ANSWER_BYTES)
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.NOT_FOUND and missing_ok:
                    return None
                raise BrokerError(
                    f"{method} {url} as {self._endpoint.user}: {error.code} {error.reason}"
                ) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise BrokerError(f"{method} {url}: {getattr(error, 'reason', error)}") from error

    @property
    def _vhost(self) -> str:
        return _segment(self._endpoint.vhost)


def _segment(name: str) -> str:
    return quote(name, safe="")


def _rows(answer: object) -> list[dict[str, object]]:
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def _tags(value: object) -> tuple[str, ...]:
    """RabbitMQ 3.8 and before give a comma-separated text, later ones a list."""
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(str(name).strip() for name in names if str(name).strip())


def _queue_status(row: dict[str, object]) -> QueueStatus:
    def count(key: str) -> int:
        value = row.get(key, 0)
        return value if isinstance(value, int) else 0

    return QueueStatus(
        name=str(row.get("name", "")),
        ready=count("messages_ready"),
        unacknowledged=count("messages_unacknowledged"),
        consumers=count("consumers"),
        state=str(row.get("state", "")),
    )
