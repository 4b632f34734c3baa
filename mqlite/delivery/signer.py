"""Signs what goes out, as the last thing before it goes: nothing may change a message that is signed.

Which keys sign is said by the document (its property `dkim`) and by the database. Sealing a message that has ARC sets
needs the keys of those who made them: they are asked of DNS, and where DNS cannot say now, nothing is sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mqlite.database.signing_keys import SigningKeys
from mqlite.dkim.chain import Chain
from mqlite.dkim.sign import ARC, KeyUse, Message
from mqlite.dns.lookup import Answer, Failed
from mqlite.dns.message import Question, Type
from mqlite.dns.resolver import Resolver
from mqlite.loop.clock import Clock
from mqlite.message.headers import sender_of
from mqlite.smtp.client import Sign


class MailSigner:
    """For one worker."""

    def __init__(self, clock: Clock, resolver: Resolver, hostname: str, stored: SigningKeys | None) -> None:
        """`hostname`: ours, in the results of ARC."""
        self._clock = clock
        self._resolver = resolver
        self._hostname = hostname
        self._stored = stored

    def for_message(self, uses: Sequence[KeyUse]) -> Sign | None:
        """What signs a message whose document has these keys; None when nothing will."""
        return partial(self._sign, uses) if uses or self._stored else None

    async def _sign(self, uses: Sequence[KeyUse], mime: bytes) -> bytes:
        """The message with its signatures on top; as it is when no key is to sign it."""
        now = self._clock.time()
        if self._stored:
            uses = [*uses, *self._stored.uses(sender_of(mime), now)]
            if not uses:
                return mime
        message = Message(mime)
        verdict = ''
        if any(ARC in use.protocols for use in uses):
            verdict = await self._judge(message)
        return message.signed(uses, verdict, self._hostname, now)

    async def _judge(self, message: Message) -> str:
        """What is to be said of the ARC sets of the message; '' when DNS cannot say."""
        answers = await self._ask(message.chain) if message.chain is not None else {}
        return '' if answers is None else message.judge(answers)

    async def _ask(self, chain: Chain) -> dict[str, str] | None:
        names = chain.questions
        outcomes = await self._resolver.ask(*(Question(name, Type.TXT) for name in names))
        if any(isinstance(outcome, Failed) for outcome in outcomes):
            return None
        records = {name: outcome.records[0] for name, outcome in zip(names, outcomes) if isinstance(outcome, Answer)}
        return {name: text.decode('utf-8', 'replace') for name, text in records.items() if isinstance(text, bytes)}
