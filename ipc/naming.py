"""How an instance of a component is called. Pure."""


def identity_text(component: str, instance: str) -> str:
    """Return `NAME@INSTANCE`, or the name alone: as it is typed, written in settings, and put on record."""
    return f"{component}@{instance}" if instance else component
