"""The four kinds of pattern that MailerQ's tables have in their column `type`. Pure.

    exact     the text itself; an empty type is this one
    fnmatch   wildcards of file names: * ? [abc] [!abc]
    substr    a part of the text
    regex     a regular expression (Python's, which has what Perl's usually are used for), found anywhere

None of them minds upper and lower case: neither do mail domains, nor people who copy the answer of a server. Limits: an
expression of the operator may take long for a text that is made for it; texts from outside are to be short.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Callable

TYPES = ('exact', 'fnmatch', 'substr', 'regex')
WILDCARDS = frozenset('*?[')  # of fnmatch
Match = Callable[[str], bool]


def make_match(kind: str, pattern: str) -> Match:
    """A function that says whether a text matches. ValueError says what is wrong with the pattern."""
    wanted = pattern.lower()
    if kind in ('', 'exact'):
        return lambda text: text.lower() == wanted
    if kind == 'substr':
        return lambda text: wanted in text.lower()
    if kind == 'fnmatch':
        return lambda text: fnmatch.fnmatchcase(text.lower(), wanted)
    if kind != 'regex':
        raise ValueError(f'{kind!r} is no type of pattern; there are {", ".join(TYPES)}')
    try:
        expression = re.compile(pattern, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f'{pattern!r} is no regular expression: {error}') from None
    return lambda text: expression.search(text) is not None
