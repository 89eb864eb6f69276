"""Rewrites an OpenAPI document into an equivalent one that generators of clients understand.

Variants of a union become schemas with names of their own (`VmAction` with `stop` becomes `VmActionStop`), and
`allOf` is carried out: with a union in it, by each of the variants. What remains are objects, unions of
references, and plain values.

    plain.py DOCUMENT >PLAIN
"""

import copy
import json
import pathlib
import sys

PREFIX = "#/components/schemas/"


class Plain:
    def __init__(self, schemas):
        self.given = schemas
        self.made = {}

    def all(self):
        for name, schema in self.given.items():
            self.made[name] = self.plain(name, schema)
        return self.made

    def resolve(self, schema):
        """The schema that a reference leads to."""
        while "$ref" in schema:
            schema = self.given[schema["$ref"].removeprefix(PREFIX)]
        return schema

    def flat(self, schema):
        """Objects of which one must match: more than one for a union."""
        schema = self.resolve(schema)
        if "allOf" in schema:
            results = [{"type": "object"}]
            for part in schema["allOf"]:
                results = [merge(one, more) for one in results for more in self.flat(part)]
            about = schema.get("description")
            return [{**one, "description": about} if about else one for one in results]
        if "oneOf" in schema and not is_optional(schema):
            return [one for part in schema["oneOf"] for one in self.flat(part)]
        return [copy.deepcopy(schema)]

    def plain(self, name, schema):
        if is_union(schema):
            return self.one_of(name, schema, self.flat(schema))
        if "properties" in schema:
            return {**schema, "properties": self.properties(name, schema)}
        return schema

    def one_of(self, name, schema, variants):
        if len(variants) == 1:
            return self.plain(name, variants[0])
        references = []
        for number, variant in enumerate(variants):
            if variant.get("type") != "object":
                references.append(variant)
                continue
            own = name + pascal(tag(variant) or f"variant_{number}")
            while own in self.made or own in self.given:
                own += "_"
            self.made[own] = {}
            self.made[own] = self.plain(own, variant)
            references.append({"$ref": PREFIX + own})
        about = {key: schema[key] for key in ("description",) if key in schema}
        return {**about, "oneOf": references}

    def properties(self, name, schema):
        """Objects within an object get names, too."""
        result = {}
        for key, value in schema["properties"].items():
            is_inline = value.get("type") == "object" and (
                "properties" in value or value.get("additionalProperties") is False
            )
            if is_inline:
                own = name + pascal(key)
                if name.endswith(pascal(key)) or own in self.made or own in self.given:
                    own = name + "Values"
                self.made[own] = {}
                self.made[own] = self.plain(own, value)
                value = {"$ref": PREFIX + own}
            result[key] = value
        return result


def is_union(schema):
    return "allOf" in schema or ("oneOf" in schema and not is_optional(schema))


def is_optional(schema):
    return any(part.get("type") == "null" for part in schema["oneOf"])


def merge(one, more):
    """Both objects in one."""
    required = one.get("required", []) + more.get("required", [])
    merged = {**one, **more, "required": sorted(set(required))}
    merged["properties"] = {**one.get("properties", {}), **more.get("properties", {})}
    return merged


def tag(variant):
    """What tells a variant of a union from the others: the value of its only constant, or else its
    only property."""
    properties = variant.get("properties", {})
    constants = [value["enum"][0] for value in properties.values() if len(value.get("enum", [])) == 1]
    if constants:
        return "_".join(constants)
    required = variant.get("required", [])
    return required[0] if len(required) == 1 else None


def pascal(text):
    return "".join(word.capitalize() for word in text.replace("-", "_").split("_"))


def references(value):
    """Names of all schemas in a part of the document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(PREFIX)
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from references(part)


def used(document):
    """The schemas that requests and answers need."""
    schemas = document["components"]["schemas"]
    needed, names = {}, list(references(document["paths"]))
    while names:
        name = names.pop()
        if name not in needed:
            needed[name] = schemas[name]
            names.extend(references(schemas[name]))
    return dict(sorted(needed.items()))


def main():
    document = json.loads(pathlib.Path(sys.argv[1]).read_text())
    components = document["components"]
    components["schemas"] = Plain(components["schemas"]).all()
    components["schemas"] = used(document)
    json.dump(document, sys.stdout)


main()
