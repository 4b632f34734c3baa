"""The SMTP programs of others that tests talk to: Postfix's load generator and sink; a certificate made by openssl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.process import HOST, Process, find_program, free_port


def smtp_source(port: int, *options: str, seconds: float = 120) -> None:
    """Run Postfix's smtp-source to its end, e.g. '-s', '20', '-m', '1000'. AssertionError if it fails, with its words.

    `options` are its own. It stops at the first reply that it does not like.
    """
    done = subprocess.run([find_program('smtp-source'), *options, f'{HOST}:{port}'], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=seconds)
    assert done.returncode == 0, f'smtp-source ended with status {done.returncode}: {done.stdout.decode()}'


class SmtpSink:
    """Postfix's smtp-sink. It keeps each transaction in a file of its own; `options` are its own, e.g. '-r', 'RCPT'."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.dumps = folder / 'smtp-sink'
        self.dumps.mkdir()
        as_root = ['-u', 'root'] if os.geteuid() == 0 else []       # it insists on a name, and must write the dumps
        command = [find_program('smtp-sink'), *as_root, '-d', 'm.', *options, f'{HOST}:{self.port}', '128']
        self.process = Process(command, self.dumps)
        self.process.wait_listening(self.port)

    def transactions(self) -> list[bytes]:
        """What each file holds: X-Mail-Args, X-Rcpt-Args and such, a Received line, then the message with bare LF.

        A transaction that was broken off has a file too, so count this only once the senders are done.
        """
        return [path.read_bytes() for path in self.dumps.iterdir()]

    def wait_for(self, count: int, seconds: float = 60) -> None:
        self.process.wait_for(lambda: sum(1 for _ in self.dumps.iterdir()) >= count, f'{count} messages', seconds)

    def close(self) -> None:
        self.process.close()


class Certificate(NamedTuple):
    """PEM files of a self-signed certificate and of its key."""
    certificate: Path
    key: Path


def make_certificate(folder: Path, *names: str) -> Certificate:
    """For these names; without any, for `localhost` and 127.0.0.1. The files are called after the first name."""
    subject = names[0] if names else 'localhost'
    others = ','.join(f'DNS:{name}' for name in names) or f'DNS:localhost,IP:{HOST}'
    made = Certificate(folder / f'{subject}.crt', folder / f'{subject}.key')
    subprocess.run([find_program('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
                    '-nodes', '-days', '2', '-subj', f'/CN={subject}', '-addext',
                    f'subjectAltName={others}', '-keyout', made.key, '-out', made.certificate],
                   check=True, capture_output=True)
    return made
