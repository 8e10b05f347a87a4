#!/usr/bin/env python3
"""Makes of the manifests in deploy/kubernetes a plain pod that `podman play kube` starts: the first
pod of the StatefulSet, with the agent as an ordinary container beside the application, on the
network of the machine. Needs PyYAML. Prints the pod and its ConfigMaps.

What the podman of Debian 12 (4.3) does not know is left out: native sidecars (so there is no order
of start and stop), their probes, lifecycle hooks, seccompProfile, fsGroup and volumeClaimTemplates.
Volumes that the pod writes to become claims <volume>-<pod>, which have to be there, prepared as a
kubelet prepares them for fsGroup. Everything else stays as it is.
"""

import argparse
import base64
import pathlib
import sys

import yaml

KUBERNETES = pathlib.Path(__file__).parent / "kubernetes"
CONTAINER_KEYS_LEFT_OUT = [
    "restartPolicy", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports",
]
CONFIG_MAP_BYTES_MAX = 1 << 20


def load(name):
    return yaml.safe_load((KUBERNETES / name).read_text())


def set_environment(containers, values):
    """Sets variables that the manifests have; another one would be a mistake."""
    for name, value in values.items():
        entries = [e for c in containers for e in c.get("env", []) if e["name"] == name]
        if not entries:
            sys.exit(f"no container has a variable {name}")
        for entry in entries:
            entry.pop("valueFrom", None)
            entry["value"] = value


def plain(container, pod_security, limited):
    left_out = CONTAINER_KEYS_LEFT_OUT + ([] if limited else ["resources"])
    kept = {key: value for key, value in container.items() if key not in left_out}
    own = {key: pod_security[key] for key in ("runAsUser", "runAsGroup")}
    kept["securityContext"] = own | container["securityContext"]
    return kept


def claimed(name, pod):
    return {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{pod}"}}


def pod_of(stateful_set, environment, limited):
    """The pod that the StatefulSet starts first, as far as podman knows its parts."""
    spec = stateful_set["spec"]["template"]["spec"]
    name = f"{stateful_set['metadata']['name']}-0"
    init = spec.get("initContainers", [])
    sidecars = [c for c in init if c.get("restartPolicy") == "Always"]
    if not sidecars:
        sys.exit("the StatefulSet has no native sidecar")
    containers = [
        plain(c, spec["securityContext"], limited) for c in sidecars + spec["containers"]
    ]
    set_environment(containers, environment)
    templates = stateful_set["spec"]["volumeClaimTemplates"]
    volumes = [claimed(template["metadata"]["name"], name) for template in templates]
    for volume in spec["volumes"]:
        volumes.append(claimed(volume["name"], name) if "emptyDir" in volume else volume)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **stateful_set["spec"]["template"]["metadata"]},
        "spec": {
            "hostNetwork": True,
            # A container that ends stays as it is, with its exit code.
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": spec["terminationGracePeriodSeconds"],
            "initContainers": [c for c in init if c not in sidecars],
            "containers": containers,
            "volumes": volumes,
        },
    }


def config_map_of(name, files):
    """What `kubectl create configmap NAME --from-file=FILE...` makes, with its limit."""
    content = {pathlib.Path(file).name: pathlib.Path(file).read_bytes() for file in files}
    if sum(map(len, content.values())) > CONFIG_MAP_BYTES_MAX:
        sys.exit(f"{name} is above 1 MiB; deploy/README.md says what to do")
    data = {key: base64.b64encode(value).decode() for key, value in content.items()}
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": data,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
                        help="another value for a variable of the containers")
    parser.add_argument("--without-limits", action="store_true",
                        help="leave out resources, where a user may not limit them (cgroups v1)")
    parser.add_argument("modules", nargs="+", help="the files of the modules")
    arguments = parser.parse_args()
    environment = dict(pair.split("=", 1) for pair in arguments.env)
    yaml.safe_dump_all([
        load("configmap.yaml"),
        config_map_of("word-count-modules", arguments.modules),
        pod_of(load("statefulset.yaml"), environment, not arguments.without_limits),
    ], sys.stdout, sort_keys=False)


main()
