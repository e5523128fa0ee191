"""pika's exceptions, told as what befell which broker. No password is in any of them.

Source of the codes: AMQP 0-9-1 specification 1.1 (reply codes), https://www.rabbitmq.com/docs/channels#error-handling.
"""

from __future__ import annotations

import ssl
from typing import Final

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from sarrapipe.broker.topology import explain_mismatch
from sarrapipe.errors import BrokerError, ConfigError, SarrapipeError

__all__ = ["ACCESS_REFUSED", "NOT_FOUND", "NOT_IMPLEMENTED", "PRECONDITION_FAILED", "reply_code", "translate"]

ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406
NOT_IMPLEMENTED: Final = 540


def reply_code(error: BaseException | None) -> int:
    """Return the AMQP reply code of a close, or 0."""
    if isinstance(error, exceptions.ChannelClosed | exceptions.ConnectionClosed):
        return int(error.reply_code)
    return 0


def translate(error: BaseException | None, where: str) -> SarrapipeError:
    """Return our error for one of pika's, `error` as its cause.

    Args:
        error: What pika raised or handed to a callback.
        where: Key of the endpoint.
    """
    if isinstance(error, SarrapipeError):
        return error
    cause = _innermost(error)
    translated = _translate_close(cause, where) or BrokerError(f"{where}: {_describe(cause)}")
    translated.__cause__ = cause
    return translated


def _innermost(error: BaseException | None) -> BaseException | None:
    """Unwrap pika's chain of connection phases down to what happened."""
    for _ in range(8):
        if isinstance(error, workflow.AMQPConnectionWorkflowFailed):
            error = error.exceptions[-1]
        elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
            error = error.exception
        elif (
            isinstance(error, exceptions.AMQPConnectionError)
            and len(error.args) == 1
            and isinstance(error.args[0], BaseException)
        ):
            error = error.args[0]
        else:
            break
    return error


def _translate_close(error: BaseException | None, where: str) -> BrokerError | None:
    if not isinstance(error, exceptions.ChannelClosed | exceptions.ConnectionClosed):
        return None
    code, text = int(error.reply_code), str(error.reply_text)
    if code == PRECONDITION_FAILED:
        mismatch = explain_mismatch(text, where)
        if mismatch is not None:
            return mismatch
    return BrokerError(f"{where}: {code} {text}")


def _describe(error: BaseException | None) -> str:
    if error is None:
        return "the connection ended"
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
        return "the broker refuses this user or password, or offers no login mechanism we have"
    if isinstance(error, exceptions.ProbableAccessDeniedError):
        return "the virtual host does not exist, or the user has no access to it"
    if isinstance(error, exceptions.AMQPHeartbeatTimeout):
        return "no heartbeat from the broker, the connection is given up"
    if isinstance(error, exceptions.IncompatibleProtocolError):
        return (
            "the server hung up before AMQP began: it is no AMQP 0-9-1 broker, or wants TLS (amqps), or stops"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message} (see tlsRigour)"
    if isinstance(
        error, workflow.AMQPConnectorStackTimeout | exceptions.ConnectionOpenAborted | TimeoutError
    ):
        # pika aborts the opening when its stack_timeout is over
        return "no answer in time"
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
