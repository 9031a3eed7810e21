"""Holds a CycloneDX document to its schema, its package URLs and licences to their grammars."""
import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from packageurl import PackageURL

text = open(sys.argv[1], encoding="utf-8").read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
if error:
    sys.exit(f"not CycloneDX 1.6: {error.data}")
document = json.loads(text)
licensing = get_spdx_licensing()
for component in document["components"] + [document["metadata"]["component"]]:
    PackageURL.from_string(component["purl"])
    for licence in component["licenses"]:
        word = licence.get("expression") or licence["license"]["id"]
        problems = licensing.validate(word).errors
        if problems:
            sys.exit(f"{component['name']}: {word}: {problems}")
references = {component["bom-ref"] for component in document["components"]}
references.add(document["metadata"]["component"]["bom-ref"])
for entry in document["dependencies"]:
    unknown = {entry["ref"], *entry["dependsOn"]} - references
    if unknown:
        sys.exit(f"dependencies name what is no component: {unknown}")
print(len(document["components"]))
