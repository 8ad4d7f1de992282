"""Values for parameters that nobody has set yet, so that what a manifest asks can be shown all the same."""

from collections.abc import Mapping

from supervisor.manifest.values import BOOLEAN, CHOICE, DIRECTORY, FILE, INTEGER, Manifest, Parameter, ParameterValue


def stand_ins(manifest: Manifest, given: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """Return a value of the right type for each parameter that has neither a given value nor a default."""
    return {
        parameter.name: _stand_in(parameter)
        for parameter in manifest.parameters
        if parameter.name not in given and parameter.default is None
    }


def _stand_in(parameter: Parameter) -> ParameterValue:
    if parameter.type in (DIRECTORY, FILE):
        # A name that no real directory has: nothing that is said of it can be mistaken for a statement on a real one.
        return f"/<{parameter.name}>"
    if parameter.type == BOOLEAN:
        return False
    if parameter.type == CHOICE:
        return parameter.choices[0]
    if parameter.type == INTEGER:
        return next((bound for bound in (parameter.minimum, parameter.maximum) if bound is not None), 1)
    # Right as a host name, a port and a segment of a path.
    return "1"
