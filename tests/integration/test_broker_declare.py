"""Declaring, reconciling bindings and cleaning up on a real RabbitMQ, and what its management API tells."""

from __future__ import annotations

import pytest
from broker_driver import Driver, endpoint_of
from servers import wait_until

from sarrapipe.broker.declare import cleanup, declare_topology, queue_depths, unbind_removed
from sarrapipe.broker.management import Management
from sarrapipe.broker.topology import Binding, BindingStore, ExchangeSpec, QueueSpec
from sarrapipe.errors import BrokerError, TopologyError

pytestmark = pytest.mark.broker

A, B, C = (Binding("xpublic", f"v03.{letter}.#") for letter in "abc")


def queue(*bindings, name="q_feeder.d", **changes):
    return QueueSpec(name=name, bindings=bindings, **changes)


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "bindings.json")


def test_a_removed_subtopic_is_unbound(vhost, state):
    # Issue 2, point 4: bindings are reconciled with the configuration.
    endpoint = endpoint_of(vhost)
    first = declare_topology(endpoint, [queue(A, B)], state_path=state)
    assert (first[0].bound, first[0].unbound) == ((A, B), ())
    assert vhost.bindings("q_feeder.d") == {A, B}
    second = declare_topology(endpoint, [queue(B, C)], state_path=state)
    assert (second[0].bound, second[0].unbound) == ((B, C), (A,))
    assert vhost.bindings("q_feeder.d") == {B, C}
    third = declare_topology(endpoint, [queue(B, C)], state_path=state)
    assert third[0].unbound == ()


def test_a_reload_unbinds_only_when_the_old_instances_are_gone(vhost, state):
    endpoint = endpoint_of(vhost)
    declare_topology(endpoint, [queue(A)], state_path=state)
    declare_topology(endpoint, [queue(B)], state_path=state, unbind=False)
    assert vhost.bindings("q_feeder.d") == {A, B}
    assert unbind_removed(endpoint, [queue(B)], state)[0].unbound == (A,)
    assert vhost.bindings("q_feeder.d") == {B}
    assert BindingStore(state).load(endpoint.key, "q_feeder.d") == [B]


def test_a_binding_made_before_a_crash_is_not_forgotten(vhost, state):
    # What is bound is written down before it is bound: here it was written and never bound.
    endpoint = endpoint_of(vhost)
    BindingStore(state).save(endpoint.key, "q_feeder.d", [A, Binding("xgone", "v03.#")])
    declared = declare_topology(endpoint, [queue(B)], state_path=state)
    assert set(declared[0].unbound) == {A, Binding("xgone", "v03.#")}
    assert vhost.bindings("q_feeder.d") == {B}


def test_bindings_that_may_not_be_removed_are_kept_in_mind(vhost, state):
    endpoint = endpoint_of(vhost)
    declare_topology(endpoint, [queue(A)], state_path=state)
    permissions = f"/api/permissions/{vhost.quoted}/feeder"
    vhost.api.put(permissions, {"configure": ".*", "write": "^q_feeder.*", "read": "^xs_.*"})
    unbind_removed(endpoint, [queue()], state)
    assert BindingStore(state).load(endpoint.key, "q_feeder.d") == [A]
    vhost.api.put(permissions, {"configure": ".*", "write": ".*", "read": ".*"})
    assert unbind_removed(endpoint, [queue()], state)[0].unbound == (A,)
    assert vhost.bindings("q_feeder.d") == set()


def test_declare_false_bind_false_and_passive(vhost):
    endpoint = endpoint_of(vhost)
    left_alone = queue(A, declare=False, bind=False)
    assert declare_topology(endpoint, [left_alone])[0].depth is None
    assert vhost.queues() == []
    with pytest.raises(BrokerError, match="404 NOT_FOUND"):
        declare_topology(endpoint, [queue(declare=False, passive=True)])
    declare_topology(endpoint, [queue()])
    assert declare_topology(endpoint, [queue(passive=True)])[0].depth == (0, 0)


def test_an_exchange_of_another_type_needs_a_person(vhost):
    endpoint = endpoint_of(vhost)
    declare_topology(endpoint, exchanges=[ExchangeSpec(name="xother", kind="fanout")])
    with pytest.raises(TopologyError, match=r"exchange xother .*type.*fanout"):
        declare_topology(endpoint, exchanges=[ExchangeSpec(name="xother")])


def test_clients_declare_only_what_permissions_allow(vhost):
    # R12: the administrator's exchanges are not the client's to make; xs_<user>_* are.
    source = endpoint_of(vhost, "tsource")
    with pytest.raises(BrokerError, match="403 ACCESS_REFUSED"):
        declare_topology(source, exchanges=[ExchangeSpec(name="xfoo")])
    declare_topology(source, exchanges=[ExchangeSpec(name="xs_tsource_public")])
    with pytest.raises(BrokerError, match="403 ACCESS_REFUSED"):
        declare_topology(source, [queue(name="q_tsub.mine")])
    declare_topology(source, [queue(Binding("xs_tsource_public", "v03.#"), name="q_tsource.mine")])


def test_cleanup_deletes_queues_and_unused_exchanges(vhost, state):
    endpoint = endpoint_of(vhost)
    mine, theirs = ExchangeSpec(name="xs_mine"), ExchangeSpec(name="xs_used")
    other = queue(Binding("xs_used", "#"), name="q_feeder.other")
    declare_topology(endpoint, [queue(Binding("xs_mine", "#")), other], [mine, theirs], state_path=state)
    removed = cleanup(endpoint, ["q_feeder.d", "q_feeder.never"], ["xs_mine", "xs_used"], state_path=state)
    assert removed.queues == ("q_feeder.d", "q_feeder.never")
    assert removed.exchanges == ("xs_mine",)
    assert removed.kept[0][0] == "xs_used"
    assert "in use" in removed.kept[0][1]
    assert vhost.queues() == ["q_feeder.other"]
    assert BindingStore(state).load(endpoint.key, "q_feeder.d") == []
    assert BindingStore(state).load(endpoint.key, "q_feeder.other") != []


def test_cleanup_keeps_what_is_not_ours(vhost):
    declare_topology(endpoint_of(vhost), [queue()])
    removed = cleanup(endpoint_of(vhost, "tsub"), ["q_feeder.d"])
    assert removed.queues == ()
    assert "ACCESS_REFUSED" in removed.kept[0][1]
    assert vhost.queues() == ["q_feeder.d"]


def test_depths_without_the_management_api(vhost):
    declare_topology(endpoint_of(vhost), [queue(Binding("xpublic", "v03.#"))])
    with Driver() as driver:
        driver.feed(vhost, [b"x"] * 3)
    assert queue_depths(endpoint_of(vhost), ["q_feeder.d", "q_feeder.none"]) == {"q_feeder.d": (3, 0)}


def test_a_broker_that_is_away_is_named(vhost):
    endpoint = endpoint_of(vhost, port=1)
    with pytest.raises(BrokerError, match=r"amqp://feeder@127\.0\.0\.1:1/.*Connection refused"):
        declare_topology(endpoint, [queue()])


def test_management_tells_queues_bindings_users_and_connections(vhost):
    declare_topology(endpoint_of(vhost), [queue(A, B)])
    management = Management(endpoint_of(vhost, "admin"), vhost.pump.management_port)
    assert management.bindings("q_feeder.d") == sorted([A, B])
    assert {"admin", "feeder", "tsource", "anonymous"} <= {user.name for user in management.users()}
    assert "administrator" in next(user.tags for user in management.users() if user.name == "admin")
    assert management.queue("q_feeder.none") is None
    with Driver() as driver:
        driver.connected(driver.thread.consumer(endpoint_of(vhost), queue(), 5))
        wait_until(lambda: management.queue("q_feeder.d").consumers == 1, 15.0, "the consumer to be counted")
        assert [each.name for each in management.queues()] == ["q_feeder.d"]
        wait_until(
            lambda: "test/broker 01 consume" in management.connections().values(),
            15.0,
            "our connection's name",
        )
        name = next(key for key, ours in management.connections().items() if ours == "test/broker 01 consume")
        management.close_connection(name)
        management.close_connection("no such connection")


def test_management_refusals_name_the_node_and_hide_the_password(vhost):
    endpoint = endpoint_of(vhost, "admin", password="wrong-pw-31337")
    with pytest.raises(BrokerError, match="401") as refused:
        Management(endpoint, vhost.pump.management_port).users()
    assert "127.0.0.1" in str(refused.value)
    with pytest.raises(BrokerError, match="Connection refused") as away:
        Management(endpoint, 1).users()
    with pytest.raises(BrokerError, match=r"/api/users: .+"):
        Management(endpoint, vhost.pump.amqp_port).users()  # something else listens there
    for error in (refused, away):
        assert "wrong-pw-31337" not in str(error.value) + repr(error.value.__cause__)
