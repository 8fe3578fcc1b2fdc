"""An operator with kopf: fills in and refuses by webhooks, makes a ConfigMap for each Site, and takes it away."""

import os

import kopf
import kubernetes

kubernetes.config.load_kube_config()
core = kubernetes.client.CoreV1Api()


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        host="localhost",
        certfile=os.environ["HOOK_CERTIFICATE"],
        pkeyfile=os.environ["HOOK_KEY"],
        cafile=os.environ["HOOK_AUTHORITY"],
    )
    settings.admission.managed = "operator.example.com"


@kopf.on.mutate("example.com", "v1", "sites")
def fill(spec, patch, **_):
    if "title" not in spec:
        patch.spec["title"] = "untitled"


@kopf.on.validate("example.com", "v1", "sites")
def check(spec, warnings, **_):
    if spec.get("pages", 1) > 9:
        raise kopf.AdmissionError("too many pages", code=422)
    if spec.get("pages", 1) > 5:
        warnings.append("that is a lot of pages")


@kopf.on.create("example.com", "v1", "sites")
@kopf.on.update("example.com", "v1", "sites", field="spec")
def publish(spec, name, namespace, patch, **_):
    body = {"metadata": {"name": f"site-{name}"}, "data": {"title": spec["title"]}}
    try:
        core.create_namespaced_config_map(namespace, body)
    except kubernetes.client.ApiException as error:
        if error.status != 409:
            raise
        core.patch_namespaced_config_map(f"site-{name}", namespace, body)
    patch.status["pages"] = spec.get("pages", 1)


@kopf.on.delete("example.com", "v1", "sites")
def withdraw(name, namespace, **_):
    core.delete_namespaced_config_map(f"site-{name}", namespace)
