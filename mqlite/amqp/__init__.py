"""A client of AMQP 0-9-1 by hand, pure: it is fed bytes and says what to send; no socket, no clock, no log.

    uri         amqp:// addresses          codec       field types, tables, frames
    methods     THE METHOD TABLE           events      what the machine tells its driver
    connection  channel 0, tune, close     channel     publish, confirm, consume, everything else

Sources: the AMQP 0-9-1 specification (www.amqp.org), with RabbitMQ's errata and extensions where the two differ.
"""
