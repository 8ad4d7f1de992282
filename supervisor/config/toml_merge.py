"""Several TOML files as one, later over earlier, each value with where it came from. Pure."""

from collections.abc import Mapping, Sequence

from supervisor.config.toml_source import KeyPath, Origin, TomlSource


def merge_sources(sources: Sequence[TomlSource]) -> TomlSource:
    """Merge tables key by key, append arrays of tables, replace everything else; origins follow their values."""
    values: dict[str, object] = {}
    origins: dict[KeyPath, Origin] = {}
    for source in sources:
        _merge_table(values, source.values, (), (), source, origins)
    return TomlSource(sources[0].file if sources else "airssys.toml", values, origins)


def _merge_table(
    into: dict[str, object],
    values: Mapping[str, object],
    to_path: KeyPath,
    from_path: KeyPath,
    source: TomlSource,
    origins: dict[KeyPath, Origin],
) -> None:
    for key, value in values.items():
        there, here = (*to_path, key), (*from_path, key)
        present = into.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge_table(present, value, there, here, source, origins)
        elif _is_array_of_tables(value) and _is_array_of_tables(present):
            assert isinstance(value, list)
            assert isinstance(present, list)
            for index in range(len(value)):
                _move_origins(source, (*here, index), (*there, len(present) + index), origins)
            into[key] = [*present, *value]
        else:
            for path in [path for path in origins if path[: len(there)] == there]:
                del origins[path]
            _move_origins(source, here, there, origins)
            # Copied, because a later file may merge into it.
            into[key] = _copy(value)


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _copy(value: object) -> object:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _move_origins(source: TomlSource, here: KeyPath, there: KeyPath, origins: dict[KeyPath, Origin]) -> None:
    for path, origin in source.origins.items():
        if path[: len(here)] == here:
            origins[(*there, *path[len(here) :])] = origin
