"""The audit log: written by one thread, chained, kept, asked and verified."""
