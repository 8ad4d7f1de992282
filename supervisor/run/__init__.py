"""One run: what is to be run, what happens while it runs, and what it came to."""
