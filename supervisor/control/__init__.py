"""The control socket: who may what on it, what is said, and who asks."""
