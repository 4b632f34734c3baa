"""A broker that is killed under load: every 250 is accounted for. The long list of faults is in tests/peers."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.accounts import Accounts
from tests.support.broker import Broker
from tests.support.daemon import ALERT


def test_the_broker_is_killed_and_every_250_is_accounted_for(start_accounts: Callable[..., Accounts],
                                                             broker: Broker) -> None:
    accounts = start_accounts(broker, program=ALERT)
    accounts.wait_more(200)
    broker.kill()
    assert accounts.wait_refused(5) < 1
    broker.start()
    accounts.wait_more(200)
    counts = accounts.close()
    assert sum(count > 1 for count in counts.values()) <= 100       # of those that were on their way
