"""A configuration file of MailerQ with every documented key: it loads, says what has no effect, and shows no secret."""

from __future__ import annotations

from mqlite.settings import ERROR, WARNING, Problem, Settings, check_config, has_errors, load
from mqlite.settings_table import ALIASES, NOT_YET, SETTINGS

# Every key that MailerQ 5.13 documents (A-Z list, topic pages, the pages about several instances), with a value that
# differs from our default where there is another one, so that each shows up in a value or in a warning.
MAILERQ_FILE = """
# an installation with everything switched to something else
application-log:         syslog,/var/log/mailerq/mailerq.log
cluster-address:         amqp://joe:pw1@10.0.0.9/cluster
cluster-exchange:        herd
cluster-timeout:         5
cluster-verify:          false
daemon:                  true
database-address:        mysql://joe:pw2@10.0.0.8/mailerq
database-ttl:            60
database-validate:       false
disable-crash-post:      true
disable-crash-report:    true
dns-attempts:            7
dns-buffersize:          2MB
dns-capacity:            50
dns-interval:            3.0
dns-min-ttl:             120
dns-rotate:              true
dns-sockets:             8
dns-timeout:             60.0
download-bin-log-file:   /var/log/mailerq/download.bin
download-blacklist:      192.168.0.0/16,127.0.0.1
download-cache:          directory:///var/cache/mailerq
download-log-directory:  /var/log/mailerq/one
download-log-file:       /var/log/mailerq/download.log
download-log-format:     {$date} {$time} {$url}
download-log-prefix:     one-downloads.log
download-proxy:          socks://10.0.0.7:8888
download-ttl:            60
download-user-agent:     our own agent
download-whitelist:      192.168.0.30/32:80
dsn-advertise:           1
dsn-notify:              failure,delay
dsn-ret:                 HDRS
error-log:               /var/log/mailerq/errors.log
heartbeat:               false
heartbeat-enabled:       false
license:                 /etc/mailerq/license.txt
lock:                    /tmp/mailerq-one.pid
loopback:                true
max-attempts:            9
max-delivertime:         3600
notify-cluster:          true
paused:                  true
plugin-directory:        /usr/lib/mailerq/plugins
proxy-server:            http://10.0.0.7:8888
purge-database:          true
rabbitmq-address:        sqlite:///var/lib/mqlite/queues.db
rabbitmq-consumers:      2
rabbitmq-declare:        false
rabbitmq-dsn:            notifications
rabbitmq-durable:        false
rabbitmq-encoding:       gzip
rabbitmq-exchange:       post
rabbitmq-failure:        bad
rabbitmq-flush-qos:      200
rabbitmq-inbox:          in
rabbitmq-lazy:           true
rabbitmq-local:          local
rabbitmq-maxpriority:    4
rabbitmq-minqos:         10
rabbitmq-outbox:         out
rabbitmq-persistent:     false
rabbitmq-publishers:     2
rabbitmq-qos:            200
rabbitmq-refused:        refused
rabbitmq-reports:        reports
rabbitmq-results:        done
rabbitmq-retry:          later
rabbitmq-success:        good
rabbitmq-throttle:       50
rabbitmq-verify:         false
received-bin-log-file:   /var/log/mailerq/received.bin
received-log-directory:  /var/log/mailerq/one
received-log-file:       /var/log/mailerq/received.log
received-log-format:     [{$date}] <{$json.envelope}> <{$json.recipient}>
received-log-prefix:     one-received.log
render-useragent:        our own browser
repair-database:         true
retry-interval:          60,120;240
send-bin-log-file:       /var/log/mailerq/send.bin
send-log-directory:      /var/log/mailerq/one
send-log-file:           /var/log/mailerq/send.log
send-log-format:         [{$date}] {$result.state}:{$result.result}{if $email.envelope} <{$email.envelope}>{/if}
send-log-prefix:         one-attempts.log
server-id:               one
smarthost:               relay.example.com
smarthost-password:      pw3
smarthost-port:          587
smarthost-username:      joe
smtp-auth:               hardcoded://joe:pw4,ann:pw5
smtp-auth-results:       local,nonlocal
smtp-certificate:        /etc/mailerq/mx.example.com.crt
smtp-check:              spf,dkim,dmarc,spam
smtp-ciphers:            !aNULL:!eNULL:HIGH:@STRENGTH
smtp-connections:        100
smtp-connections-in:     50
smtp-connections-out:    75
smtp-default-ips:        192.0.2.4;192.0.2.7
smtp-extract:            false
smtp-ip:                 192.0.2.4
smtp-key:                /etc/mailerq/mx.example.com.key
smtp-mappable-ips:       192.0.2.0/24;198.51.100.0/24
smtp-maxsize:            10MB
smtp-port:               25,2525,1024-1026
smtp-protection:         true
smtp-proxy:              192.168.0.0/16
smtp-range:              192.168.0.0/16
smtp-secure-port:        2526
smtp-sink-address:       127.0.0.1
smtp-sink-password:      pw6
smtp-sink-port:          2527
smtp-sink-username:      ann
smtp-threads:            4
smtp-timeout:\t\t\t60
smtp-unmappable-ips:     192.0.2.28/32;192.0.2.5/32
smtp-validate-address:   loose
spamassassin-host:       10.0.0.6
spamassassin-port:       784
spool-delay:             2
spool-directory:         /var/spool/mailerq
spool-extract:           false
spool-fail-directory:    /var/spool/mailerq-failed
spool-open-files:        20
spool-remove:            false
spool-threads:           2
storage-address:         couchbase://pw7@host1;host2;host3/bucket
storage-policy:          out
storage-reschedule:      60
storage-threads:         2
storage-timeout:         10
storage-ttl:             60
user:                    mailerq
validate-envelope:       loose
validate-recipient:      loose
www-auth:                radius://us:pw8@example.com:1812
www-bin-log-file:        /var/log/mailerq/www.bin
www-cache-control:       must-revalidate
www-certificate:         /etc/mailerq/www.crt
www-ciphers:             HIGH
www-connections:         20
www-dir:                 /srv/www
www-host:                mta001.example.com
www-ip:                  10.0.0.1
www-log-file:            /var/log/mailerq/www.log
www-log-format:          {$date} {$ip} {$request}
www-port:                80
www-private-key:         /etc/mailerq/www.key
www-secure-port:         443
www-url:                 https://mta001.example.com:443
"""
MAILERQ_KEYS = [line.split(":")[0] for line in MAILERQ_FILE.splitlines() if line and not line.startswith("#")]


def mailerq() -> tuple[Settings, list[Problem]]:
    return load(MAILERQ_FILE, "config.txt")


def test_the_table_has_every_key_of_mailerq_and_few_of_its_own() -> None:
    known = {ALIASES.get(key, key) for key in MAILERQ_KEYS if not key.startswith(("heartbeat", "disable-crash-"))}
    own = {name for name in {setting.name for setting in SETTINGS} - known
           if not name.startswith(("smtp-max-", "smtp-client-"))}
    assert own == {"hostname", "rabbitmq-queue-type", "plugin-generation", "plugin-shim", "plugin-timeout",
                   "smtp-auth-clear", "smtp-min-rate", "smtp-session-timeout", "smtp-greeting-delay",
                   "smtp-bare-line-ends", "processes", "control-socket"}


def test_mailerqs_file_loads_without_an_error() -> None:
    settings, problems = mailerq()
    assert not has_errors(problems)
    assert settings.items("queue-address") == ("sqlite:///var/lib/mqlite/queues.db",)
    assert settings.ports("smtp-port") == (25, 2525, 1024, 1025, 1026)
    assert settings.seconds("smtp-timeout") == 60
    assert settings.items("dsn-notify") == ("FAILURE", "DELAY")
    assert settings.text("smtp-ciphers") == "!aNULL:!eNULL:HIGH:@STRENGTH"
    assert settings.text("send-log-format").startswith("[{$date}] {$result.state}:{$result.result}{if")


def test_each_setting_that_is_not_honoured_yet_is_named_with_its_line() -> None:
    _, problems = mailerq()
    lines = MAILERQ_FILE.splitlines()
    warned = {problem.text.split(":")[0]: problem for problem in problems}
    # rabbitmq-queue-type is ours and does not stand in the file.
    assert set(warned) == {s.name for s in SETTINGS if s.status == NOT_YET} - {"rabbitmq-queue-type"}
    for name, problem in warned.items():
        assert problem.severity == WARNING and "not honoured yet" in problem.text
        assert lines[problem.line - 1].startswith(f"{name}:")


def test_check_config_shows_everything_but_secrets() -> None:
    settings, problems = mailerq()
    output = check_config(settings, [*problems, Problem(ERROR, "config.txt", 7, "something is wrong")])
    lines = output.splitlines()
    for setting in SETTINGS:
        assert sum(line.startswith(f"{setting.name}:") for line in lines) == 1
    assert not [secret for secret in ("pw1", "pw2", "pw3", "pw4", "pw5", "pw6", "pw7", "pw8") if secret in output]
    number = MAILERQ_FILE[: MAILERQ_FILE.index("smtp-ip:")].count("\n") + 1
    assert [line.split() for line in lines if line.startswith("smtp-ip:")] == [
        ["smtp-ip:", "192.0.2.4", "#", f"config.txt:{number}"]
    ]
    assert lines[-1] == "config.txt:7: error: something is wrong"
    assert len([line for line in lines if line.startswith("config.txt:")]) == len(problems) + 1


def test_what_check_config_prints_is_a_file_with_the_same_settings() -> None:
    first, _ = load(MAILERQ_FILE.replace("pw", "***"))
    second, problems = load(check_config(first, []))
    assert not has_errors(problems)
    for setting in SETTINGS:
        if setting.name not in ("license", "smtp-auth", "smarthost-password", "smtp-sink-password") \
                and "***" not in first.shown(setting.name):
            read = setting.kind.accessor
            assert getattr(second, read)(setting.name) == getattr(first, read)(setting.name), setting.name
