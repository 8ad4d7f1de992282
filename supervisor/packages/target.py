"""Which TARGET of a command is a path. Apart from all else, because each run asks it before anything is imported."""


def is_path(target: str) -> bool:
    """Whether a TARGET is a file or directory; else it is the name of something installed, or of what runs."""
    return "/" in target or target.startswith(".") or target.endswith(".wasm")
