"""From the outbox to the world: what to try, where, when again, and what to tell.

    engine     takes deliveries off the outbox, settles them with what they led to
    route      which servers a message goes to
    schedule   messages wait per destination; carriers take them over connections that are kept
    attempt    opens a session to the first server that answers
    verdict    what a reply or failure means
    retry      whether and when to try again
"""
