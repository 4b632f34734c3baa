"""One message on its way, from the outbox to its result. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mqlite.delivery.route import Route
from mqlite.dkim.sign import KeyUse, read_property
from mqlite.message.compose import check_later, compose
from mqlite.message.document import Document, DocumentError
from mqlite.message.result import Result
from mqlite.queues.contract import Delivery
from mqlite.smtp.dsn import NOTHING, Request
from mqlite.smtp.envelope import Envelope, as_sent


class Job:
    """A delivery with what an attempt needs. The MIME is taken out of the document: it is held once.

    `sources`: local addresses that it may be sent from and that were not found unusable yet; None: any. `refusal`: what
    was wrong with those that were.
    """

    __slots__ = ('delivery', 'document', 'envelope', 'keys', 'mime', 'priority', 'refusal', 'route', 'size',
                 'sources', 'tag')

    def __init__(self, delivery: Delivery, document: Document, route: Route, sources: tuple[str, ...] | None = None,
                 mime_later: bool = False, notices: Request = NOTHING, now: float = 0.0) -> None:
        """DocumentError when the document cannot be sent as it is. `mime_later`: it may do without a MIME for now.
        `notices`: the settings for what its property `dsn` does not say. `now`: seconds since 1970.
        """
        self.delivery = delivery
        self.priority = delivery.priority
        self.size = len(delivery.body)
        self.document = document
        self.route = route
        self.sources = sources
        self.refusal: Result | None = None
        self.envelope = make_envelope(document, notices)
        self.tag = next(iter(document.tags), '')
        self.keys = _keys(document) if 'dkim' in document.fields else ()
        if mime_later and not document.fields.get('mime'):
            check_later(document)
            self.mime: bytes | None = None
        else:
            self.mime = compose(document, now)

    def pass_on(self, source: str | None, result: Result) -> bool:
        """The local address cannot be used; False when there were no others to choose from. See `sources`."""
        if self.sources is None:
            return False
        self.sources = tuple(other for other in self.sources if other != source)
        if self.refusal is None or self.refusal.permanent or not result.permanent:
            self.refusal = result
        return True


def make_envelope(document: Document, notices: Request) -> Envelope:
    """The envelope of a document. DocumentError. `notices`: as for a job."""
    return Envelope(as_sent(document.envelope), as_sent(document.recipient), document.notices(notices), document.utf8,
                    document.requires_tls)


def _keys(document: Document) -> Sequence[KeyUse]:
    """Those that the document brings. DocumentError when one cannot sign and the message is not to go without it."""
    try:
        return read_property(document.fields['dkim'])
    except DocumentError:
        if document.fields.get('force'):
            return ()
        raise
