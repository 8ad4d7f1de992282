"""The audit stream: what an event is, how repeats fold, and how producers hand events to the one writer of the log."""
