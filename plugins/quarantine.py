"""Mail from a domain that is on a list goes to the local queue, where somebody looks at it, and not to the inbox."""

DOMAINS = {'example.net', 'example.com'}


def mq_smtp_in_message(context, connection, message):
    if message.sender.email.rpartition('@')[2].lower() in DOMAINS:
        message.recipient.local = True
        message.fields['tags'] = ['quarantine']
