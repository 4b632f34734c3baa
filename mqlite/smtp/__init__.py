"""SMTP, both sides: the pure protocol (grammar, framing, reply, commands, session) and its drivers (server, client)."""
