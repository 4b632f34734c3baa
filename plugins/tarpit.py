"""Who sends to addresses that do not look right waits longer and longer; everybody else is not kept waiting."""


async def mq_smtp_in_rcptto(context, connection, address):
    if address.email.split('@')[0].isdigit():
        connection.data = (connection.data or 0) + 1
        await context.sleep(min(5 * connection.data, 50))
        connection.reject(550, '5.1.1', 'No such mailbox')
