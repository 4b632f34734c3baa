"""Mail servers of others as senders: Exim and Postfix, each in a folder of its own, whatever is installed elsewhere.

Both change to users of their own, so the folders stand outside of pytest's, which only its owner may enter. Exim and
Postfix exclude each other as Debian packages: Exim's is unpacked, and runs with the user that it asks for through
libnss-wrapper. Root only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.support.process import environment_with, find_program, wait_until

MESSAGE = b'Subject: from a mail server\n\nbody\n'
SENDER, RECIPIENT = 'sender@example.org', 'recipient@example.com'


class Relay(NamedTuple):
    """Where the mail goes: the port, whether it begins with TLS, who vouches for its certificate, and a login."""
    port: int
    implicit: bool
    authority: Path
    mechanism: str = ''  # '' for no login
    login: str = ''
    password: str = ''


def open_folder(name: str) -> Path:
    """One that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix=f'mqlite-{name}-'))
    folder.chmod(0o755)
    return folder


def unpack(package: str, folder: Path) -> Path:
    """The root of what a Debian package brings, below the folder; nothing is installed."""
    for command in (['apt-get', 'download', '-qq', package], ['sh', '-c', f'dpkg -x {package}*.deb root']):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / 'root'


# Exim

EXIM_CONFIG = """\
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/spool/%slog
primary_hostname = exim.example
keep_environment =
begin routers
all:
  driver = manualroute
  route_list = * localhost::{port} byname
  host_find_failed = defer
  transport = out
  self = send
begin transports
out:
  driver = smtp
  protocol = {protocol}
  hosts_require_tls = *
  tls_verify_hosts = *
  tls_verify_certificates = {folder}/authority.crt
  hosts_require_auth = {auth_hosts}
  hosts_try_chunking = {chunking}
begin authenticators
{authenticator}
"""
EXIM_LOGIN = {
    '':         '',
    'PLAIN':    'a:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^{login}^{password}',
    'LOGIN':    'a:\n  driver = plaintext\n  public_name = LOGIN\n  client_send = : {login} : {password}',
    'CRAM-MD5': 'a:\n  driver = cram_md5\n  public_name = CRAM-MD5\n  client_name = {login}\n'
                '  client_secret = {password}',
}


class UnpackedExim:
    """The program, in a folder of its own, with a spool in which nothing is yet."""

    def __init__(self) -> None:
        self.folder = open_folder('exim')
        self.program = unpack('exim4-daemon-light', self.folder) / 'usr' / 'sbin' / 'exim4'
        mail = pwd.getpwnam('mail')
        (self.folder / 'passwd').write_text(f'root:x:0:0::/:/bin/sh\nDebian-exim:x:{mail.pw_uid}:{mail.pw_gid}::/:/\n')
        (self.folder / 'group').write_text(f'root:x:0:\nDebian-exim:x:{mail.pw_gid}:\n')
        (self.folder / 'spool').mkdir()
        os.chown(self.folder / 'spool', mail.pw_uid, mail.pw_gid)
        self.environment = {
            'LD_PRELOAD': 'libnss_wrapper.so', 'NSS_WRAPPER_PASSWD': f'{self.folder}/passwd',
            'NSS_WRAPPER_GROUP': f'{self.folder}/group'}

    def close(self) -> None:
        shutil.rmtree(self.folder)


class Exim(UnpackedExim):
    """Delivers in the foreground."""

    def send(self, relay: Relay, chunking: bool = False, message: bytes = MESSAGE) -> str:
        """Queue a message, then deliver it; the line of the log on its delivery. AssertionError when there is none."""
        shutil.copy(relay.authority, self.folder / 'authority.crt')
        (self.folder / 'exim.conf').write_text(EXIM_CONFIG.format(
            program=self.program, folder=self.folder, port=relay.port, protocol='smtps' if relay.implicit else 'smtp',
            auth_hosts='*' if relay.mechanism else '', chunking='*' if chunking else '',
            authenticator=EXIM_LOGIN[relay.mechanism].format(login=relay.login, password=relay.password)))
        self._run('-odq', '-i', '-f', SENDER, RECIPIENT, input=message)
        [name] = [path.name[:-2] for path in (self.folder / 'spool' / 'input').glob('*-H')]
        self._run('-M', name)
        log = (self.folder / 'spool' / 'mainlog').read_text()
        [line] = [line for line in log.splitlines() if f' {name} => ' in line] or [f'not delivered:\n{log}']
        assert '=>' in line, line
        return line

    def _run(self, *arguments: str, input: bytes = b'') -> None:
        done = subprocess.run([self.program, '-C', self.folder / 'exim.conf', *arguments], input=input,
                              env=environment_with(self.environment), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        assert done.returncode == 0, done.stdout.decode()


# Postfix

POSTFIX_BASE = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {commands}
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = postfix.example
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
default_database_type = hash
alias_maps =
alias_database =
"""
POSTFIX_CONFIG = """\
relayhost = [localhost]:{port}
smtp_host_lookup = native
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = nexthop
smtp_tls_wrappermode = {implicit}
smtp_tls_CAfile = {folder}/authority
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = {auth}
smtp_sasl_password_maps = static:{login}:{password}
smtp_sasl_security_options = noanonymous
smtp_sasl_mechanism_filter = {mechanism}
"""
POSTFIX_SERVICES = """\
pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
smtp      unix  -  -  n  -     -  smtp
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
showq     unix  n  -  n  -     -  showq
postlog   unix-dgram n - n  -  1  postlogd
"""


class PostfixInstance:
    """One instance, running."""

    def __init__(self, config: str, services: str = '', **files: Path) -> None:
        """`config` and `services` are added to what every instance has; {folder} in `config` is its folder, to which
        the files are copied under their names here."""
        self.folder = open_folder('postfix')
        commands = str(Path(find_program('postfix')).parent)
        for name in ('queue', 'data'):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / 'data', 'postfix')
        for name, file in files.items():
            shutil.copy(file, self.folder / name)
        (self.folder / 'main.cf').write_text(
            POSTFIX_BASE.format(folder=self.folder, commands=commands) + config.replace('{folder}', str(self.folder)))
        (self.folder / 'master.cf').write_text(POSTFIX_SERVICES + services)
        self._run('postfix', '-c', str(self.folder), 'start')

    @property
    def log(self) -> str:
        file = self.folder / 'log'
        return file.read_text() if file.exists() else ''

    def submit(self, *options: str, recipient: str = RECIPIENT) -> None:
        """`options` are those of its sendmail."""
        self._run('sendmail', '-C', str(self.folder), '-f', SENDER, *options, recipient)

    def close(self) -> None:
        self._run('postfix', '-c', str(self.folder), 'stop')
        shutil.rmtree(self.folder)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run([find_program(name), *arguments], input=MESSAGE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        assert done.returncode == 0, done.stdout.decode()


class Postfix(PostfixInstance):
    """Relays everything to one server."""

    def __init__(self, relay: Relay) -> None:
        super().__init__(POSTFIX_CONFIG.format(
            folder='{folder}', port=relay.port, implicit='yes' if relay.implicit else 'no',
            auth='yes' if relay.mechanism else 'no', mechanism=relay.mechanism.lower(), login=relay.login,
            password=relay.password), authority=relay.authority)

    def send(self, *options: str, recipient: str = RECIPIENT) -> str:
        """Its log, once it has delivered; `options` are those of its sendmail."""
        self.submit(*options, recipient=recipient)
        wait_until(lambda: ' status=' in self.log, 'Postfix to deliver')
        assert ' status=sent ' in self.log, self.log
        return self.log
