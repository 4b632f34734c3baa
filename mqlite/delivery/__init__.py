"""From the outbox to the world: what to try, where, when again, and what to tell.

    engine        takes deliveries off the outbox, settles them with what they led to
    job           one message on its way
    route         which servers a message goes to
    resolving     where messages wait until the servers of their domain are known
    outlet        where jobs come out
    schedule      messages wait per destination; carriers take them there
    destination   who waits for it, who goes there, and whether one more may
    line          who is next: priorities, and tags in turn
    destinations  all destinations: found, limited, forgotten
    controls      what the operator has set in the database
    capacity      how much a destination may be given
    flood         how much less it is given for a while after certain answers
    explain       why a message has not left
    intercepts    which deliveries the operator steps in on
    pauses        what is on pause
    forced        what is to fail without a try
    gate          where these stop a job on its way
    suppressions  who gets nothing
    aliases       which limited domains have which exchangers
    servers       what each address of the servers of a destination is given
    pace          how fast messages may go, and how fast they do
    room          how much is in hand, and how it is shared when it is scarce
    standing      what our experience with a destination allows
    carrier       one connection to a destination
    attempt       opens a session with the first server of a destination that answers
    verdict       what a reply or failure means
    retry         whether and when to try again
    report        what an attempt leads to in the queues
"""
