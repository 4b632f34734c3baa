"""Where both `python -m mqlite` and `python mqlite.pyz` begin: this very file is also `__main__.py` of the archive.

Hence absolute imports only, and nothing in this file that a Python too old for the rest cannot parse: it is to
say so in a sentence, not with a traceback.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit('mqlite needs Python 3.9 or newer; this is %s, %s' % (sys.version.split()[0], sys.executable))

from mqlite.cli import main  # noqa: E402 - after the check above

if __name__ == '__main__':
    sys.exit(main())
