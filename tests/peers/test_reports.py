"""A notification as Postfix writes it, recognised on its way in: `python3 build.py peers`.

Postfix has a message for an address that we do not relay to, from one that is local here. We refuse it, and Postfix
tells the sender: the notification comes to us.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.support.daemon import SecureDaemon
from tests.support.database import make_database
from tests.support.peers import Certificate
from tests.support.senders import RECIPIENT, SENDER, Postfix, Relay


@pytest.fixture
def daemon(tmp_path: Path, certificate: Certificate, closing: contextlib.ExitStack) -> SecureDaemon:
    file = make_database(str(tmp_path / 'config.db'))
    file.add('locals', {'address': SENDER, 'type': 'exact'})
    file.close()
    made = SecureDaemon(tmp_path, certificate, smtp_range='192.0.2.0/24', rabbitmq_reports='reports',
                        database_address=f'sqlite://{tmp_path}/config.db')
    closing.callback(made.close)
    made.start()
    return made


def test_a_notification_of_postfix(daemon: SecureDaemon, certificate: Certificate, closing: contextlib.ExitStack,
                                   ) -> None:
    postfix = Postfix(Relay(daemon.port, False, certificate.certificate))
    closing.callback(postfix.close)
    postfix.submit()
    [document] = daemon.take('reports', 1)
    assert (document['envelope'], document['recipient']) == ('', SENDER)
    assert RECIPIENT in document['mime'] and 'message/delivery-status' in document['mime']
