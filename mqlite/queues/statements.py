"""The tables of the embedded queue's file, and the statements that read them; see sqlite.py. Pure."""

from __future__ import annotations

APPLICATION_ID = 0x6D716C71  # 'mqlq': tells our file from another program's
SCHEMA_VERSION = 2
PURGED_ROWS = 1000  # per transaction, so that other processes get their turn
LOOKED_AT = 4_000_000  # bytes: larger bodies are not read to look at a queue

SCHEMA = f"""
    CREATE TABLE message (
        id       INTEGER PRIMARY KEY,
        queue    TEXT    NOT NULL,
        priority INTEGER NOT NULL,
        due      REAL    NOT NULL,
        size     INTEGER NOT NULL,
        body     BLOB);
    CREATE TABLE part (
        id      INTEGER PRIMARY KEY,
        message INTEGER NOT NULL,
        body    BLOB    NOT NULL);
    CREATE INDEX parts ON part (message);
    CREATE TRIGGER without_parts AFTER DELETE ON message WHEN old.body IS NULL
        BEGIN DELETE FROM part WHERE message = old.id; END;
    CREATE INDEX ready   ON message (queue, priority DESC, id) WHERE due = 0;
    CREATE INDEX waiting ON message (queue, due) WHERE due > 0;
    CREATE TABLE claim (
        id    INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL,
        lost  INTEGER NOT NULL);
    CREATE TABLE owner (id INTEGER PRIMARY KEY AUTOINCREMENT);
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
"""

INSERT = 'INSERT INTO message (queue, priority, due, size, body) VALUES'
FREE = 'LEFT JOIN claim c ON c.id = m.id WHERE m.queue = ? AND coalesce(c.owner, 0) = 0'
READY = f"""SELECT m.id, m.size FROM message m {FREE} AND m.due = 0
             ORDER BY m.priority DESC, m.id LIMIT ?"""
DUE = f"""SELECT m.id, m.size FROM message m {FREE} AND m.due > 0 AND m.due <= ?
           ORDER BY m.due LIMIT ?"""
WAITING = f'SELECT m.id FROM message m {FREE} AND m.due > 0 AND m.due > ? ORDER BY m.due LIMIT ?'
NEXT_DUE = f'SELECT m.due FROM message m {FREE} AND m.due > 0 ORDER BY m.due LIMIT 1'
PURGE = tuple(f'DELETE FROM message WHERE id IN (SELECT m.id FROM message m {FREE} AND {part} LIMIT {PURGED_ROWS})'
               for part in ('m.due = 0', 'm.due > 0'))  # each has its index
STATUS = """SELECT m.queue,
                    sum(coalesce(c.owner, 0) = 0 AND m.due <= :now), sum(coalesce(c.owner, 0) = 0 AND m.due > :now),
                    sum(coalesce(c.owner, 0) > 0), sum(m.size)
             FROM message m LEFT JOIN claim c ON c.id = m.id GROUP BY m.queue ORDER BY m.queue"""
# What a look shows; the body of a large message is not read for it.
LOOK = f"""SELECT m.id, m.due, m.priority, coalesce(c.owner, 0) > 0, CASE WHEN m.size <= {LOOKED_AT} THEN m.body END
          FROM message m LEFT JOIN claim c ON c.id = m.id WHERE m.queue = ? AND m.id > ? ORDER BY m.id LIMIT ?"""
