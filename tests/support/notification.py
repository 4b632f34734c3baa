"""Reading delivery status notifications, with Python's email package."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any


def status_fields(mime: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """What a notification says about the message, and about its one recipient; folded fields on one line."""
    parts: Any = email.message_from_bytes(mime, EmailMessage, policy=email.policy.default).get_payload()
    about_message, about_recipient = parts[1].get_payload()
    return ({name: str(value) for name, value in about_message.items()},
            {name: str(value) for name, value in about_recipient.items()})
