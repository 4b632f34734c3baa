"""Exim as a receiver: what a client has told it stands in its spool. Root only; see senders.py."""

from __future__ import annotations

import shutil

from tests.support.peers import Certificate
from tests.support.process import HOST, Process, free_port
from tests.support.senders import UnpackedExim

CONFIG = """\
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/spool/%slog
primary_hostname = exim.example
keep_environment =
queue_only = true
local_interfaces = {host}
daemon_smtp_ports = {port}
tls_certificate = {folder}/exim.crt
tls_privatekey = {folder}/exim.key
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept {condition}
begin authenticators
{authenticator}
"""
LOGIN, PASSWORD = 'tim@example.org', 'tanstaaf'
AUTHENTICATORS = {
    '':         '',
    'PLAIN':    f'a:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n  server_set_id = $auth2\n'
                f'  server_condition = ${{if and{{{{eq{{$auth2}}{{{LOGIN}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}',
    'LOGIN':    f'a:\n  driver = plaintext\n  public_name = LOGIN\n  server_prompts = <| Username: | Password:\n'
                f'  server_condition = ${{if and{{{{eq{{$auth1}}{{{LOGIN}}}}}{{eq{{$auth2}}{{{PASSWORD}}}}}}}}}\n'
                f'  server_set_id = $auth1',
    'CRAM-MD5': f'a:\n  driver = cram_md5\n  public_name = CRAM-MD5\n  server_set_id = $auth1\n'
                f'  server_secret = ${{if eq{{$auth1}}{{{LOGIN}}}{{{PASSWORD}}}fail}}',
}


class EximServer(UnpackedExim):
    """Takes mail by SMTP and keeps it; where it knows a mechanism, only from who has logged in."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__()
        shutil.copy(certificate.certificate, self.folder / 'exim.crt')
        shutil.copy(certificate.key, self.folder / 'exim.key')
        for name in ('exim.crt', 'exim.key'):
            (self.folder / name).chmod(0o644)
        self.port = 0
        self._process: Process | None = None

    def start(self, mechanism: str = '') -> None:
        """Listen anew, at another port."""
        self.stop()
        self.port = free_port()
        (self.folder / 'exim.conf').write_text(CONFIG.format(
            program=self.program, folder=self.folder, host=HOST, port=self.port,
            condition='authenticated = *' if mechanism else '', authenticator=AUTHENTICATORS[mechanism]))
        self._process = Process([self.program, '-C', self.folder / 'exim.conf', '-bdf'], self.folder, self.environment)
        self._process.wait_listening(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None

    def kept(self) -> str:
        """What is known of the messages that were kept, with their headers; they are removed."""
        files = sorted((self.folder / 'spool' / 'input').glob('*-[HD]'))
        text = ''.join(file.read_text(errors='replace') for file in files if file.name.endswith('-H'))
        for file in files:
            file.unlink()
        return text

    def close(self) -> None:
        self.stop()
        super().close()
