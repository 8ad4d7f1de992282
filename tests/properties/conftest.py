"""Properties have as many examples as they have: how long one of them takes on a busy machine is nobody's fault."""

from hypothesis import settings

settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
