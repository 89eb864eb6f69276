"""Checks that each example of the OpenAPI document is valid against its schema, with jsonschema-rs.

    examples.py DOCUMENT

Prints the number of examples.
"""

import json
import pathlib
import sys

import jsonschema_rs


def contents(document):
    """Each body of a request or answer, with the place that it has in the document."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
            for name, body in bodies.items():
                for kind, content in body.get("content", {}).items():
                    yield f"{method.upper()} {path} {name} {kind}", content


def main():
    document = json.loads(pathlib.Path(sys.argv[1]).read_text())
    checked, wrong = 0, []
    for place, content in contents(document):
        examples = [content["example"]] if "example" in content else []
        examples += [example["value"] for example in content.get("examples", {}).values()]
        for example in examples:
            # References begin at the top of the document.
            schema = {**content["schema"], "components": document["components"]}
            validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=False)
            checked += 1
            wrong += [f"{place}: {error}" for error in validator.iter_errors(example)]
    print("\n".join([*wrong, f"{checked} examples"]))
    sys.exit(1 if wrong or not checked else 0)


main()
