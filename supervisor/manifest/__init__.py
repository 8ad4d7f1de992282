"""`Component.toml`: read and checked (`load_manifest`), then bound to what only the host knows (`bind`)."""

from supervisor.config.toml_source import Problem, render_problems
from supervisor.manifest.bind import BoundManifest, BoundMount, BoundSecret, Variables, bind
from supervisor.manifest.enforced import not_enforced, only_brokered
from supervisor.manifest.parse import MANIFEST_NAME, ManifestErrors, load_manifest, parse_manifest
from supervisor.manifest.stand_ins import stand_ins
from supervisor.manifest.values import Manifest, Parameter, ParameterValue, Quota, Request

__all__ = [
    "MANIFEST_NAME",
    "BoundManifest",
    "BoundMount",
    "BoundSecret",
    "Manifest",
    "ManifestErrors",
    "Parameter",
    "ParameterValue",
    "Problem",
    "Quota",
    "Request",
    "Variables",
    "bind",
    "load_manifest",
    "not_enforced",
    "only_brokered",
    "parse_manifest",
    "render_problems",
    "stand_ins",
]
