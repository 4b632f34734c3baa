"""What travels: the JSON document, MIME bytes and their x-mq-* headers, identifiers, results. Pure."""
