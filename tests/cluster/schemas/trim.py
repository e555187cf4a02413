"""Make the files of this folder of those that README.md names: python trim.py FOLDER-OF-CRDS FOLDER-OF-JSON-SCHEMAS

Takes the schemas of the kinds that cluster/kubernetes has, drops what says nothing of validity (descriptions,
defaults), refuses fields that the schema does not name, as `kubectl apply` does, and keeps once what stands in several
places.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

OF_KUBERNETES = {
    "Ingress": "io.k8s.api.networking.v1.Ingress",
    "Namespace": "io.k8s.api.core.v1.Namespace",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
}
SAID_ONLY = {"description", "default", "example", "title"}
LEAST = 200
"""Characters from which a schema that stands in several places is kept once."""


def trim(schema: Any) -> Any:
    """Return ``schema`` without what says nothing of validity, and closed."""
    if isinstance(schema, list):
        return [trim(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: {field: trim(each) for field, each in value.items()} if name == "properties" else trim(value)
        for name, value in schema.items()
        if name not in SAID_ONLY
        and (name == "x-kubernetes-preserve-unknown-fields" or not name.startswith("x-kubernetes"))
    }
    if "properties" in kept and not kept.pop("x-kubernetes-preserve-unknown-fields", False):
        kept.setdefault("additionalProperties", False)
    return kept


def share(schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas as one, with ``$defs`` of what stands in several places."""
    count: Counter[str] = Counter()

    def see(value: Any) -> None:
        if isinstance(value, dict):
            text = json.dumps(value, sort_keys=True)
            count[text] += 1
            if count[text] > 1 and len(text) >= LEAST:
                return
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            see(each)

    see(schemas)
    names: dict[str, str] = {}
    definitions: dict[str, Any] = {}

    def put(value: Any, inside: bool = False) -> Any:
        if isinstance(value, list):
            return [put(each) for each in value]
        if not isinstance(value, dict):
            return value
        text = json.dumps(value, sort_keys=True)
        is_schema = not inside and ("type" in value or "properties" in value)
        if not (is_schema and count[text] > 1 and len(text) >= LEAST):
            return {name: put(each, inside=name == "properties") for name, each in value.items()}
        if text not in names:
            names[text] = f"s{len(names)}"
            definitions[names[text]] = {name: put(each, inside=name == "properties") for name, each in value.items()}
        return {"$ref": f"#/$defs/{names[text]}"}

    kinds = {kind: put(schema) for kind, schema in schemas.items()}
    return {"kinds": kinds, "$defs": definitions}


def of_kuberay(folder: Path) -> dict[str, Any]:
    """Return the schemas of Ray's kinds."""
    found = {}
    for name in ("rayclusters", "rayjobs", "rayservices"):
        crd = yaml.safe_load((folder / f"ray.io_{name}.yaml").read_text())
        (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"].pop("status")
        schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, which is not in the file
        found[crd["spec"]["names"]["kind"]] = trim(schema)
    return found


def of_kubernetes(folder: Path) -> dict[str, Any]:
    """Return the schemas of Kubernetes' own kinds, whole: their references are replaced by what they refer to."""
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return whole(definitions[value["$ref"].rsplit("/", 1)[-1]])
        return {name: whole(each) for name, each in value.items()}

    found = {}
    for kind, name in OF_KUBERNETES.items():
        schema = definitions[name]
        schema["properties"].pop("status", None)
        found[kind] = trim(whole(schema))
    return found


if __name__ == "__main__":
    here = Path(__file__).parent
    for name, schemas in (
        ("kuberay-1.7.0.json", of_kuberay(Path(sys.argv[1]))),
        ("kubernetes-1.37.0.json", of_kubernetes(Path(sys.argv[2]))),
    ):
        (here / name).write_text(json.dumps(share(schemas), indent=1, sort_keys=True) + "\n")
