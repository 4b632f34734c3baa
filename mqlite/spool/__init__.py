"""The spool directory: files that programs of this host drop there are messages to send."""
