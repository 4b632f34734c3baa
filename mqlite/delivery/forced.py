"""Deliveries that fail without a try: the table `errors`. Pure.

A message that a row selects (see `intercepts.py`) fails with the code, the enhanced status code (`extended`) and the
text (`description`) of the row, whatever is on pause. Codes of 400 to 499 are tried again later, all others are final.
Where a row names a local address or that of a server, messages that may go from or to others do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mqlite.database.tables import Row, Usable
from mqlite.delivery.intercepts import Intercept, Intercepts, read_selection

LEAST_CODE, GREATEST_CODE = 200, 599  # as the REST API of MailerQ takes them
DEFAULT_CODE = 550
DEFAULT_TEXT = 'forced error'


@dataclass(frozen=True)
class ForcedError(Intercept):
    """A row of `errors`."""

    code: int = DEFAULT_CODE
    status: str = ''
    description: str = DEFAULT_TEXT

    @property
    def answer(self) -> str:
        """What the result says."""
        return ' '.join(filter(None, (str(self.code), self.status, self.description)))


ForcedErrors = Intercepts[ForcedError]


def read_errors(rows: Iterable[Row]) -> Usable[ForcedErrors]:
    """The table `errors`."""
    errors, faults = [], []
    for row in rows:
        code = row.number('code', 0) or DEFAULT_CODE
        try:
            if not LEAST_CODE <= code <= GREATEST_CODE:
                raise ValueError(f'{code} is no code; there are {LEAST_CODE} to {GREATEST_CODE}')
            errors.append(ForcedError(**read_selection(row), code=code, status=row.text('extended').strip(),
                                      description=row.text('description') or DEFAULT_TEXT))
        except ValueError as error:
            faults.append(f'row {row.number("id")} of table errors is left out: {error}')
    return Usable(ForcedErrors(errors), faults)
