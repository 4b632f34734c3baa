"""The stub resolver: names to addresses and mail exchangers, without a blocking call.

message   the wire format                      pure
lookup    what to ask next for one question    pure
cache     what is known, and until when        pure
hosts     /etc/hosts and /etc/resolv.conf      pure but for one small function that reads a file
resolver  the sockets, timers and askers       awaits, never parses

It asks recursive nameservers and believes them; it does not walk the tree from the root and does not validate DNSSEC.
"""
