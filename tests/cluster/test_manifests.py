"""The manifests: ray-up.yaml against Ray's own schema, pod templates against Kubernetes' models, and KubeRay's fields
against those of its published reference (v1.6.2), which no package carries."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import yaml
from kubernetes import client
from pydantic import TypeAdapter
from ray.scripts.scripts import drain_node, start
from support.command import ROOT

from cluster import code_upload
from jobs.submission.command import prepare_command

FOLDER = ROOT / "cluster"
KUBERAY = ("kuberay-job.yaml", "kuberay-cluster.yaml")
POD, STRINGS = "V1PodTemplateSpec", dict[str, str]
# KubeRay's own types: field -> a Python type, a Kubernetes model, another of these, or a list of one
TYPES = {
    "RayJob": {"apiVersion": str, "kind": str, "metadata": "V1ObjectMeta", "spec": "RayJobSpec"},
    "RayCluster": {"apiVersion": str, "kind": str, "metadata": "V1ObjectMeta", "spec": "RayClusterSpec"},
    "RayJobSpec": {
        "entrypoint": str,
        "runtimeEnvYAML": str,
        "metadata": STRINGS,
        "jobId": str,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "submissionMode": str,
        "submitterPodTemplate": POD,
        "suspend": bool,
        "entrypointNumCpus": float,
        "rayClusterSpec": "RayClusterSpec",
    },
    "RayClusterSpec": {
        "rayVersion": str,
        "authOptions": "AuthOptions",
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": "AutoscalerOptions",
        "headGroupSpec": "HeadGroupSpec",
        "workerGroupSpecs": ["WorkerGroupSpec"],
    },
    "AuthOptions": {"mode": str, "secretName": str, "enableK8sTokenAuth": bool},
    "AutoscalerOptions": {"idleTimeoutSeconds": int, "upscalingMode": str, "version": str},
    "HeadGroupSpec": {"rayStartParams": STRINGS, "template": POD, "serviceType": str, "enableIngress": bool},
    "WorkerGroupSpec": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "numOfHosts": int,
        "idleTimeoutSeconds": int,
        "rayStartParams": STRINGS,
        "template": POD,
    },
}


def check(value: Any, kind: Any, where: str) -> None:
    """Raises AssertionError, or pydantic's ValueError, where `value` is not of `kind`."""
    if isinstance(kind, list):
        assert isinstance(value, list), where
        for i, one in enumerate(value):
            check(one, kind[0], f"{where}[{i}]")
    elif isinstance(kind, str) and kind in TYPES:
        for name, held in value.items():
            assert name in TYPES[kind], f"{where}.{name}: {kind} has no such field"
            check(held, TYPES[kind][name], f"{where}.{name}")
    elif isinstance(kind, str):
        getattr(client, kind).model_validate(value)
    else:
        TypeAdapter(kind).validate_python(value, strict=True)


def told(name: str) -> dict:
    return yaml.safe_load((FOLDER / name).read_text())


def cluster_of(name: str) -> dict:
    spec = told(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(name: str) -> list[dict]:
    spec = cluster_of(name)
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


@pytest.mark.parametrize("name", KUBERAY)
def test_fields_are_kuberays_and_kubernetes(name):
    manifest = told(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert not re.search(r"^[ -]*\w+_\w+:", (FOLDER / name).read_text(), re.MULTILINE), "a name of Python's models"
    check(manifest, manifest["kind"], name)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("headGroupSpec.rayStartParams.num-cpus", 0),  # a number where KubeRay wants text
        ("workerGroupSpecs.0.maxReplica", 8),
        ("workerGroupSpecs.0.template.spec.containers.0.resource", {}),
        ("workerGroupSpecs.0.template.spec.containers.0.name", None),
        ("headGroupSpec.template.spec.volumes.0.emptyDir.medum", "Memory"),
    ],
)
def test_check_catches(path, value):
    """What a slip of the pen would look like."""
    manifest = told("kuberay-cluster.yaml")
    at, (*way, last) = manifest["spec"], path.split(".")
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[last] = value
    with pytest.raises((AssertionError, ValueError)):
        check(manifest, "RayCluster", "")


def test_both_have_the_same_cluster():
    assert cluster_of("kuberay-job.yaml") == cluster_of("kuberay-cluster.yaml")


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_are_safe_and_roomy(name):
    """A token; keys by reference alone; an object store in memory; Ray as in the image; time to save."""
    spec = cluster_of(name)
    assert spec["authOptions"]["mode"] == "token" and spec["authOptions"]["secretName"]
    assert f"ray=={spec['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    for pod in pods(name):
        (container,) = pod["containers"]
        assert all("secretRef" in source for source in container["envFrom"])
        assert not [env for env in container["env"] if re.search("KEY|SECRET|TOKEN|PASSWORD", env["name"])]
        (shm,) = (mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm")
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == shm)
        assert volume["emptyDir"]["medium"] == "Memory"
        assert container["resources"]["limits"] == container["resources"]["requests"]
    for pod in pods(name)[1:]:
        (worker,) = pod["containers"]
        assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
        told = worker["lifecycle"]["preStop"]["exec"]["command"][-1]
        known = {option for param in drain_node.params for option in param.opts}
        assert set(re.findall(r"--[a-z-]+", told)) <= known
        assert 60 <= int(re.search(r"seconds=(\d+)", told)[1]) < pod["terminationGracePeriodSeconds"]


@pytest.mark.slow
def test_entrypoints_are_commands():
    """What the RayJob runs, and what the comments say to type, are verbs with options that exist."""
    line = told("kuberay-job.yaml")["spec"]["entrypoint"]
    for text in (FOLDER / name for name in (*KUBERAY, "ray-up.yaml")):
        said = re.sub(r"\\\n# +", "", text.read_text())
        lines = re.findall(r"tilespin submit --address \S+ (.*)", said)
        for words in [*lines, line.removeprefix("tilespin ")]:
            command = prepare_command(shlex.split(words), here=False)
            assert command.verb == "study" and command.study == "s3://BUCKET/runs/demo"


def test_ray_up_follows_rays_schema():
    """Ray's own judgment of it, defaults filled in, and of the options that it starts Ray with."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = told("ray-up.yaml")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "idle_timeout": 1}, schema)
    validate_config(prepare_config(told("ray-up.yaml")))
    known = {option for param in start.params for option in param.opts}
    for line in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
        assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_ray_up_keeps_its_ports_and_keys():
    config = told("ray-up.yaml")
    (start,) = (line for line in config["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in start
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert not re.search(r"(KEY|SECRET|TOKEN|PASSWORD)=", (FOLDER / "ray-up.yaml").read_text())
    spot = config["available_node_types"]["gpu_spot"]["node_config"]["InstanceMarketOptions"]
    assert spot == {"MarketType": "spot"}


def test_image_has_the_code_and_no_keys():
    said = (FOLDER / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", said, re.MULTILINE) for word in line.split()]
    assert set(code_upload.PACKAGES) <= set(copied) and all((ROOT / name).exists() for name in copied)
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert kept == set(copied) and ignored[1] == "*"
    assert {f"**/{pattern}" for pattern in (*code_upload.IGNORED, *code_upload.SECRETS)} <= set(ignored)
