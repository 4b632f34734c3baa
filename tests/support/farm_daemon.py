"""mqlite as it is, but that exchangers listen on another port than 25 and that it asks a name server of the tests:
`python -m tests.support.farm_daemon PORT NAMESERVER ARGUMENTS...`"""

from __future__ import annotations

import functools
import sys

from mqlite import parts
from mqlite.cli import main
from mqlite.delivery import route
from mqlite.dns.resolver import ResolverConfig

if __name__ == '__main__':
    route.SMTP_PORT = int(sys.argv[1])
    setattr(parts, 'ResolverConfig', functools.partial(ResolverConfig, nameservers=(sys.argv[2],)))  # noqa: B010
    sys.exit(main(sys.argv[3:]))
