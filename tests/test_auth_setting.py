"""The forms of `smtp-auth`: what MailerQ documents, what else they may hold, and what they may not."""

from __future__ import annotations

import pytest

from mqlite.auth.setting import File, Hardcoded, Http, Ldap, Program, Radius, Setting, Users, parse_setting
from mqlite.errors import ConfigError


@pytest.mark.parametrize(('text', 'parsed'), [
    ('hardcoded://tim:pw', Hardcoded({'tim': b'pw'})),
    ('hardcoded://tim:pw, tom:p:w%40 ,x@y.z:é', Hardcoded({'tim': b'pw', 'tom': b'p:w%40 ', 'x@y.z': 'é'.encode()})),
    ('HARDCODED://tim:pw', Hardcoded({'tim': b'pw'})),
    ('file:///users.txt', File('/users.txt')),
    ('file:///etc/mail/users,1', File('/etc/mail/users,1')),
    ('users://user1,mailerq,user2,client*', Users(('user1', 'mailerq', 'user2', 'client*'))),
    ('users://a, b', Users(('a', 'b'))),
    ('exec:///path/to/file', Program('/path/to/file')),
    ('http://example.com:80/some_endpoint', Http('example.com', 80, '/some_endpoint', False)),
    ('http://example.com', Http('example.com', 80, '/', False)),
    ('https://example.com/a?b=%20c', Http('example.com', 443, '/a?b=%20c', True)),
    ('http://[::1]:8080/', Http('::1', 8080, '/', False)),
    ('ldap://example.com:389/base_dn=x', Ldap('example.com', 389, 'base_dn=x')),
    ('ldap://192.0.2.1/ou=people,dc=example,dc=com', Ldap('192.0.2.1', 389, 'ou=people,dc=example,dc=com')),
    ('ldap://h/ou=a%20b%2Cc,o=%C3%A9', Ldap('h', 389, 'ou=a b,c,o=é')),
    ('radius://identifier:secret@example.com:1812', Radius('example.com', 1812, 'identifier', b'secret')),
    ('radius://nas:s@c:r/t@[2001:db8::1]', Radius('2001:db8::1', 1812, 'nas', b's@c:r/t')),
    ('radius://n%3As:%25%40@h/', Radius('h', 1812, 'n:s', b'%@')),
])
def test_forms(text: str, parsed: Setting) -> None:
    assert parse_setting(text) == parsed


@pytest.mark.parametrize(('text', 'complaint'), [
    ('', 'must begin with hardcoded://'),
    ('Xecret', 'must begin with hardcoded://'),
    ('pam://Xecret', 'must begin with hardcoded://'),
    ('hardcoded://', 'login 1 is not login:password'),
    ('hardcoded://tim:pw,username2,Xecret', 'login 2 is not login:password'),
    ('hardcoded://tim:Xecret,:pw', 'login 2 is not'),
    ('hardcoded://tim:Xecret,tom:', 'login 2 is not'),
    ('hardcoded://tim:Xecret,tim:pw', 'login 2 has come before'),
    ('hardcoded://tim:Xecret,', 'login 2 is not'),
    ('file://users.txt', 'absolute path'),
    ('file://', 'absolute path'),
    ('exec://prog', 'absolute path'),
    ('exec:///', 'absolute path'),
    ('users://', 'names of accounts'),
    ('users://a,,b', 'names of accounts'),
    ('users://tim:Xecret', 'names of accounts'),
    ('http://', 'host must look like'),
    ('http://tim:Xecret@h/', 'no login of its own'),
    ('http://h/a b', 'printable ASCII'),
    ('http://h/é', 'printable ASCII'),
    ('http://h/#x', 'printable ASCII'),
    ('http://h/a\r\nX: y', 'printable ASCII'),
    ('http://h:0/', 'port must be'),
    ('http://h:65536/', 'port must be'),
    ('http://h\r\nx/', 'host must look like'),
    ('https://h:x/', 'host must look like'),
    ('ldap://h', 'base DN'),
    ('ldap://h/base_dn', 'base DN'),
    ('ldap://h/o=x?uid?sub', 'base DN'),
    ('ldap://h/o=%zz', 'must be written %25'),
    ('ldap://h/o=%ff', 'not UTF-8'),
    ('ldap://tim:Xecret@h/o=x', 'host must look like'),
    ('ldap://::1/o=x', 'host must look like'),
    ('radius://h', 'radius://identifier:secret@host'),
    ('radius://Xecret@h', 'radius://identifier:secret@host'),
    ('radius://nas:@h', 'radius://identifier:secret@host'),
    ('radius://:Xecret@h', 'radius://identifier:secret@host'),
    ('radius://nas:Xecret%@h', 'must be written %25'),
    ('radius://nas:Xecret@', 'host must look like'),
    (f'radius://{"n" * 254}:Xecret@h', 'radius://identifier:secret@host'),
])
def test_forms_that_are_none(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse_setting(text)
    assert 'Xecret' not in str(caught.value)


@pytest.mark.parametrize('text', ['hardcoded://tim:Xecret', 'radius://nas:Xecret@h'])
def test_no_secret_is_shown(text: str) -> None:
    assert 'Xecret' not in repr(parse_setting(text))
