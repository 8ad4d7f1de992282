"""The broker: the one process that the components talk to. It routes messages, keeps storage and enforces quotas.

`core` decides (pure), `store` keeps, `shell` reads sockets and carries out what the core returns.
"""
