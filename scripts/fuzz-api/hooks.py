"""Hooks of schemathesis: names that exist, so that requests get further than `not found`."""

import hashlib

import schemathesis
from schemathesis.transport.requests import REQUESTS_TRANSPORT, binary_serializer

# Names of VMs, images and kernels; half of the requests use one.
NAMES = {
    "vm": ["web", "db", "app"],
    "image": ["debian", "base"],
    "kernel": ["debian-cloud"],
}

REQUESTS_TRANSPORT.serializer("application/x-tar")(binary_serializer)


def choice(value, names):
    """A name or the value itself, chosen by the value, so that a seed gives one sequence."""
    digest = hashlib.sha256(repr(value).encode("utf-8", "replace")).digest()
    return names[digest[1] % len(names)] if digest[0] % 2 else value


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    for parameter, names in NAMES.items():
        if parameter in (path_parameters or {}):
            path_parameters[parameter] = choice(path_parameters[parameter], names)
    return path_parameters


def with_integers(value):
    """JSON Schema takes 1.0 for an integer; the daemon requires 1."""
    if isinstance(value, dict):
        return {key: with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def map_body(context, body):
    body = with_integers(body)
    if isinstance(body, dict) and context.operation.path == "/v1/vms" and "name" in body:
        body["name"] = choice(body["name"], NAMES["vm"])
    return body
