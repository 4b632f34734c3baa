"""The queues: one contract, and the stores behind it."""
