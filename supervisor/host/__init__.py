"""The processes behind a run: how they are started, confined, looked at and replaced."""
