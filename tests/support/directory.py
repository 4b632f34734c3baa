"""Private instances of the servers that logins are checked with: OpenLDAP's slapd, FreeRADIUS and nginx, each in a
folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.process import HOST, Process, find_program, free_port

BASE = 'ou=people,dc=example,dc=org'
RADIUS_SECRET = 'testing123'

SLAPD_CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {folder}/slapd.pid
{extra}
database ldif
suffix "dc=example,dc=org"
directory {folder}/data
access to attrs=userPassword by anonymous auth by * none
"""
ENTRY = """
dn: uid={dn},{base}
objectClass: inetOrgPerson
uid: {login}
cn: x
sn: x
"""

RADIUS_CONFIG = """\
libdir = /usr/lib/freeradius
logdir = {folder}
run_dir = {folder}
pidfile = {folder}/radiusd.pid
security {{
    allow_core_dumps = no
}}
modules {{
    files {{
        usersfile = {folder}/users
    }}
    pap {{
    }}
}}
client mqlite {{
    ipaddr = {host}
    secret = {secret}
    require_message_authenticator = yes
}}
server default {{
    listen {{
        type = auth
        ipaddr = {host}
        port = {port}
    }}
    authorize {{
        files
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
    }}
    post-auth {{
        {sign}
        Post-Auth-Type REJECT {{
            {sign}
        }}
    }}
}}
"""
SIGN = 'update reply { Message-Authenticator := 0x00 }'
NGINX_CONFIG = """\
daemon off;
pid {folder}/pid;
error_log {folder}/log;
events {{ }}
http {{
    access_log {folder}/access;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port};
        location /mail {{
            auth_basic "mail";
            auth_basic_user_file {folder}/users;
            root {folder}/www;
        }}
    }}
}}
"""


class Directory:
    """slapd with these people: login, the login as it is written in a DN, password (None: the entry has none)."""

    def __init__(self, folder: Path, people: list[tuple[str, str, str | None]], extra: str = '') -> None:
        self.port = free_port()
        (folder / 'data').mkdir()
        config = folder / 'slapd.conf'
        config.write_text(SLAPD_CONFIG.format(folder=folder, extra=extra))
        entries = ('dn: dc=example,dc=org\nobjectClass: domain\ndc: example\n\n'
                   f'dn: {BASE}\nobjectClass: organizationalUnit\nou: people\n')
        for login, dn, password in people:
            entries += ENTRY.format(dn=dn, login=login, base=BASE)
            entries += f'userPassword: {password}\n' if password is not None else ''
        done = subprocess.run([find_program('slapadd'), '-f', config], input=entries.encode(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        command = [find_program('slapd'), '-f', str(config), '-h', f'ldap://{HOST}:{self.port}', '-d', '0']
        self.process = Process(command, folder)
        self.process.wait_listening(self.port)

    @property
    def setting(self) -> str:
        return f'ldap://{HOST}:{self.port}/{BASE}'

    def close(self) -> None:
        self.process.close()


class RadiusServer:
    """FreeRADIUS with these users. `sign`: it sends a Message-Authenticator, as versions after Blast-RADIUS all do."""

    def __init__(self, folder: Path, users: dict[str, str], sign: bool = True) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        (folder / 'dictionary').write_text('$INCLUDE /usr/share/freeradius/dictionary\n')
        (folder / 'users').write_text(''.join(f'"{name}" Cleartext-Password := "{password}"\n'
                                              for name, password in users.items()))
        (folder / 'radiusd.conf').write_text(RADIUS_CONFIG.format(
            folder=folder, host=HOST, port=self.port, secret=RADIUS_SECRET, sign=SIGN if sign else ''))
        for path in (folder, *folder.iterdir()):
            os.chmod(path, 0o700)       # it refuses a configuration that others may read
        command = [find_program('freeradius'), '-d', str(folder), '-n', 'radiusd', '-f', '-l', 'stdout']
        self.process = Process(command, folder)
        self.process.wait_printed('Ready to process requests')

    def setting(self, secret: str = RADIUS_SECRET) -> str:
        return f'radius://mqlite:{secret}@{HOST}:{self.port}'

    def close(self) -> None:
        self.process.close()


class WebServer:
    """nginx, whose /mail asks for a password."""

    def __init__(self, folder: Path, users: dict[str, str]) -> None:
        self.port = free_port()
        (folder / 'www').mkdir()
        (folder / 'www' / 'mail').touch()
        made = {login: subprocess.run([find_program('openssl'), 'passwd', '-6', '-stdin'], input=password.encode(),
                                      capture_output=True, check=True).stdout.decode().strip()
                for login, password in users.items()}
        (folder / 'users').write_text(''.join(f'{login}:{hashed}\n' for login, hashed in made.items()))
        config = folder / 'nginx.conf'
        config.write_text(NGINX_CONFIG.format(folder=folder, host=HOST, port=self.port))
        self.process = Process([find_program('nginx'), '-c', config, '-e', folder / 'log'], folder)
        self.process.wait_listening(self.port)

    @property
    def setting(self) -> str:
        return f'http://{HOST}:{self.port}/mail'

    def close(self) -> None:
        self.process.signal(signal.SIGTERM)      # its master ends the workers
        self.process.wait()
        self.process.close()
