"""The pure policy core: values and `now_ns` in, values out. No clock, no file, no socket, no thread."""
