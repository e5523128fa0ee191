"""pika's exceptions as our errors."""

from __future__ import annotations

import socket

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from sarrapipe.broker.faults import reply_code, translate
from sarrapipe.errors import BrokerError, ConfigError, Disposition, TopologyError

KEY = "amqp://bob@h:5672/"


def wrapped(error):
    """As pika hands a failed connection to `on_open_error_callback`."""
    phase = workflow.AMQPConnectorSocketConnectError(error)
    return exceptions.AMQPConnectionError(workflow.AMQPConnectionWorkflowFailed([phase]))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (wrapped(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (wrapped(socket.gaierror(-2, "Name or service not known")), "Name or service not known"),
        (wrapped(TimeoutError("TCP connection attempt timed out")), "no answer in time"),
        (exceptions.ProbableAuthenticationError("..."), "refuses this user or password"),
        (exceptions.ProbableAccessDeniedError("..."), "virtual host"),
        (exceptions.IncompatibleProtocolError("..."), "no AMQP 0-9-1 broker"),
        (exceptions.AMQPHeartbeatTimeout("..."), "no heartbeat"),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), "320 CONNECTION_FORCED"),
        (exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to queue"), "403 ACCESS_REFUSED"),
        (exceptions.StreamLostError("Stream connection lost"), "Stream connection lost"),
        (None, "the connection ended"),
    ],
)
def test_names_broker_and_cause(error, told):
    translated = translate(error, KEY)
    assert isinstance(translated, BrokerError)
    assert translated.disposition is Disposition.RETRY
    assert KEY in str(translated)
    assert told in str(translated)


def test_other_properties_need_a_person():
    text = (
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
        "received 'true' but current is 'false'"
    )
    error = translate(exceptions.ChannelClosedByBroker(406, text), KEY)
    assert isinstance(error, TopologyError)
    assert isinstance(error.__cause__, exceptions.ChannelClosedByBroker)


def test_our_own_errors_stay():
    error = ConfigError("certificate")
    assert translate(error, KEY) is error


def test_reply_codes():
    assert reply_code(exceptions.ChannelClosedByBroker(404, "")) == 404
    assert reply_code(exceptions.ConnectionClosedByBroker(540, "")) == 540
    assert reply_code(exceptions.StreamLostError("")) == 0
    assert reply_code(None) == 0
