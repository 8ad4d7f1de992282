"""The command line: a file a command group. Heavy imports stay inside the command that needs them."""
