"""Who may log in: the desk where clients do, the stores behind `smtp-auth`, and the brake on guessing.

    desk       brake, store, plugins, verdict          awaits all three
    setting    the text of `smtp-auth`, read           pure
    contract   what every store is                     the interface, the one error
    guesses    failures counted, delays, the cut-off   pure
    crypt      hashed passwords                        pure
    accounts   files of logins and hashes              pure
    local      hardcoded://, file://, users://         a worker thread for files and hashes
    program    exec://                                 a program per login
    http       http:// and https://                    pure:  requests, status lines
    ldap       ldap://                                 pure:  BER, the bind request and its answer
    radius     radius://                               pure:  packets, and who may have made them
    network    the sockets for the three above         awaits, never parses
    open       from the setting to the store           bounds on time and number, errors put into words

A password is never part of a log line, of the text of an exception or of what `repr` shows. Only the
desk knows SMTP beyond the credentials that `smtp/sasl.py` has put together.
"""
