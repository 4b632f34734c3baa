"""Mail servers of others as receivers: Exim, Postfix and OpenSMTPD, each in a folder of its own. Root only; see
senders.py.

They take messages of up to MOST bytes, and keep what they took where `kept` finds it. They know USERS;
each refuses in its own words who is not one of them, or whom it wants to come again later.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from tests.support.peers import Certificate
from tests.support.process import HOST, Process, answers, free_port, wait_until
from tests.support.senders import PostfixInstance, UnpackedExim, open_folder, unpack

MOST = 102400  # bytes of a message
USERS = [f'{user}@{domain}' for user in ('r', 's', 'later', 'grey', 'ü') for domain in ('b.example', 'c.example')]

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
message_size_limit = {most}
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny domains = elsewhere.example
       message = relay not permitted
  require verify = recipient
  defer local_parts = grey
        !seen = -1s
        message = greylisted
  accept {condition}
data:
  deny senders = spam@a.example
       message = 5.7.1 not your message
  accept
begin routers
now_and_then:
  driver = redirect
  local_parts = later
  data = :defer: mailbox busy
users:
  driver = redirect
  local_parts = !gone
  data = :blackhole:
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
        self._kept = self.folder / 'spool' / 'input'
        self._process: Process | None = None

    def start(self, mechanism: str = '') -> None:
        """Listen anew, at another port, with nothing kept."""
        self.stop()
        shutil.rmtree(self._kept, ignore_errors=True)
        self.port = free_port()
        (self.folder / 'exim.conf').write_text(CONFIG.format(
            program=self.program, folder=self.folder, host=HOST, port=self.port, most=MOST,
            condition='authenticated = *' if mechanism else '', authenticator=AUTHENTICATORS[mechanism]))
        self._process = Process([self.program, '-C', self.folder / 'exim.conf', '-bdf'], self.folder, self.environment)
        self._process.wait_listening(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None

    def kept(self) -> str:
        """What is known of the messages that were kept, their headers and bodies."""
        return ''.join(file.read_text(errors='replace') for file in sorted(self._kept.glob('*-[HD]')))

    def close(self) -> None:
        self.stop()
        super().close()


POSTFIX_SERVER = """\
mynetworks =
message_size_limit = {most}
virtual_mailbox_domains = b.example, c.example
virtual_mailbox_maps = inline:{{ {users} }}
virtual_mailbox_base = {{folder}}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
local_recipient_maps =
smtpd_tls_security_level = may
smtpd_tls_chain_files = {{folder}}/key, {{folder}}/certificate
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{later@b.example=450 4.2.0 mailbox busy}} }}
smtpd_data_restrictions = check_sender_access inline:{{ {{spam@a.example=554 5.7.1 not your message}} }}
smtpd_end_of_data_restrictions = check_sender_access inline:{{ {{slow@a.example=452 4.3.1 no room now}} }}
"""
POSTFIX_SERVICES = """\
{host}:{port} inet n - n - - smtpd
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
"""


class PostfixServer(PostfixInstance):
    """Takes mail at `port` into mailboxes."""

    def __init__(self, certificate: Certificate) -> None:
        self.port = free_port()
        users = ' '.join(f'{{{user}={user}/}}' for user in USERS)
        super().__init__(POSTFIX_SERVER.format(most=MOST, users=users),
                         POSTFIX_SERVICES.format(host=HOST, port=self.port), **certificate._asdict())
        (self.folder / 'mail').mkdir()
        (self.folder / 'mail').chmod(0o777)
        wait_until(lambda: answers(self.port), 'Postfix to answer')

    def kept(self) -> str:
        return ''.join(file.read_text() for file in sorted(self.folder.glob('mail/*/new/*')))


OPENSMTPD_CONFIG = """\
pki opensmtpd.example cert "/etc/certificate"
pki opensmtpd.example key "/etc/key"
smtp max-message-size "{most}"
filter later phase rcpt-to match rcpt-to "later@b.example" reject "450 4.2.0 mailbox busy"
filter spam phase data match mail-from "spam@a.example" reject "554 5.7.1 not your message"
filter all chain {{ later, spam }}
listen on {host} port {port} hostname opensmtpd.example filter all
listen on {host} port {secure_port} tls pki opensmtpd.example hostname opensmtpd.example
action keep relay host smtp://{host}:1
match from any for domain {{ b.example, c.example }} rcpt-to {{ {users} }} action keep
match from any for any reject
"""


class OpenSmtpdServer:
    """Takes mail at `port` in clear, at `secure_port` with STARTTLS. It cannot pass it on, so that its queue has it.

    Its paths are fixed when it is compiled, and its users must exist, so it is given a root of its own, with the
    libraries that it needs.
    """

    def __init__(self, certificate: Certificate) -> None:
        self.folder, self.port, self.secure_port = open_folder('opensmtpd'), free_port(), free_port()
        self.root = unpack('opensmtpd', self.folder)
        for name in ('var/spool/smtpd', 'var/run'):
            (self.root / name).mkdir(parents=True)
        (self.root / 'var' / 'spool' / 'smtpd').chmod(0o711)
        self._copy_libraries()
        settings = self.root / 'etc'
        shutil.copy(certificate.certificate, settings / 'certificate')
        shutil.copy(certificate.key, settings / 'key')
        (settings / 'key').chmod(0o600)
        users = ', '.join(f'"{user}"' for user in USERS)
        for name, text in {
            'passwd': 'root:x:0:0::/:/\nopensmtpd:x:65501:65501::/:/\nopensmtpq:x:65502:65502::/:/\n',
            'group': 'root:x:0:\nopensmtpd:x:65501:\nopensmtpq:x:65502:\n',
            'nsswitch.conf': 'passwd: files\ngroup: files\n',
            'mailname': 'opensmtpd.example\n',
            'smtpd.conf': OPENSMTPD_CONFIG.format(
                most=MOST, host=HOST, port=self.port, secure_port=self.secure_port, users=users),
        }.items():
            (settings / name).write_text(text)
        self._process = Process(['chroot', self.root, '/usr/sbin/smtpd', '-d'], self.folder)
        self._process.wait_listening(self.port)

    def _copy_libraries(self) -> None:
        program = self.root / 'usr' / 'sbin' / 'smtpd'
        listed = subprocess.run(['ldd', program], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r'/\S+', listed):
            target = self.root / name[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, target)

    def kept(self) -> str:
        return ''.join(file.read_text() for file in sorted(self.root.glob('var/spool/smtpd/queue/*/*/message')))

    def close(self) -> None:
        self._process.close()
        shutil.rmtree(self.folder)
