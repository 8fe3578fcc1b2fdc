"""What people do all day with kubectl, done with the kubectl of today, of two, four and five years ago."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cluster import BUSYBOX, Cluster, Kubectl
from tests.e2e.objects import config_map, pod, web

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def test_it_finds_out_what_there_is(kubectl: Kubectl) -> None:
    """Discovery, documentation and versions."""
    resources = kubectl("api-resources").splitlines()
    assert any(line.split()[:2] == ["deployments", "deploy"] for line in resources)
    assert "configmaps" in kubectl("api-resources", "--namespaced=true", "-o", "name", "--verbs=list,watch")
    assert {"v1", "apps/v1", "batch/v1"} <= set(kubectl("api-versions").split())
    assert "restartPolicy" in kubectl("explain", "pod.spec")
    assert "PodSpec is a description of a pod" in kubectl("explain", "pod.spec")
    assert "restartPolicy" in kubectl("explain", "pod.spec.restartPolicy")
    assert "strategy" in kubectl("explain", "deployments", "--recursive")
    assert "v1.36" in kubectl("version")
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert "is running at" in kubectl("cluster-info")


def test_a_misspelt_field_is_refused(kubectl: Kubectl) -> None:
    """Old clients find it by the published schema, new ones let the server say it; nothing is made."""
    text = json.dumps({**config_map("misspelt"), "datta": {"a": "b"}})
    assert 'unknown field "datta"' in kubectl.run("create", "-f", "-", input=text, code=1).stderr
    assert kubectl("get", "cm", "misspelt", "--ignore-not-found") == ""


def test_it_shows_objects_in_every_form(kubectl: Kubectl) -> None:
    """Tables, wide tables, YAML, JSON, names, paths, columns; selectors; watches."""
    kubectl("create", "configmap", "shown", "--from-literal=color=red")
    kubectl("label", "configmap", "shown", "team=blue")
    assert kubectl("get", "cm", "shown").splitlines()[0].split() == ["NAME", "DATA", "AGE"]
    assert "color: red" in kubectl("get", "cm", "shown", "-o", "yaml")
    assert kubectl.get("cm", "shown")["data"] == {"color": "red"}
    assert kubectl("get", "cm", "-l", "team=blue", "-o", "name") == "configmap/shown\n"
    assert kubectl("get", "cm", "-l", "team!=blue,team", "-o", "name") == ""
    assert kubectl("get", "cm", "--field-selector=metadata.name=shown", "-o", "name") == "configmap/shown\n"
    assert kubectl("get", "cm", "shown", "-o", "jsonpath={.data.color}") == "red"
    assert kubectl("get", "cm", "shown", "-o", "custom-columns=N:.metadata.name").split() == ["N", "shown"]
    assert "team=blue" in kubectl("get", "cm", "shown", "--show-labels")
    assert "INTERNAL-IP" in kubectl("get", "nodes", "-o", "wide")
    assert "default" in kubectl("get", "serviceaccounts", "--sort-by=.metadata.name")
    assert "color:" in kubectl("describe", "configmap", "shown")
    with kubectl.start("get", "cm", "--watch") as watching:
        watching.line(lambda line: line.startswith("shown"))
        kubectl("create", "configmap", "later", "--from-literal=a=b")
        watching.line(lambda line: line.startswith("later"))
    missing = kubectl.run("get", "cm", "nope", code=1)
    assert 'Error from server (NotFound): configmaps "nope" not found' in missing.stderr


def test_it_changes_objects_in_every_way(kubectl: Kubectl, tmp_path: Path) -> None:
    """label, annotate, three kinds of patch, edit, replace, apply, diff, set, delete."""
    kubectl.apply(config_map("changed", a="1", b="2"))
    kubectl("annotate", "cm", "changed", "note=hello")
    kubectl("annotate", "cm", "changed", "note=again", "--overwrite")
    kubectl("label", "cm", "changed", "x=1", "y=2")
    kubectl("label", "cm", "changed", "y-")
    kubectl("patch", "cm", "changed", "-p", '{"data":{"strategic":"yes"}}')
    kubectl("patch", "cm", "changed", "--type=merge", "-p", '{"data":{"merge":"yes","a":null}}')
    kubectl("patch", "cm", "changed", "--type=json", "-p", '[{"op":"add","path":"/data/json","value":"yes"}]')
    changed = kubectl.get("cm", "changed")
    assert changed["data"] == {"b": "2", "strategic": "yes", "merge": "yes", "json": "yes"}
    assert changed["metadata"]["labels"] == {"x": "1"}
    assert changed["metadata"]["annotations"]["note"] == "again"
    kubectl("edit", "cm", "changed", env={"EDITOR": "sed -i s/strategic/edited/"})
    assert kubectl.get("cm", "changed")["data"]["edited"] == "yes"
    file = tmp_path / "changed.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: changed}\ndata: {b: three}\n")
    diff = kubectl.run("diff", "-f", str(file), code=1)
    assert "+  b: three" in diff.stdout
    assert "configured" in kubectl("apply", "-f", str(file))
    assert "unchanged" in kubectl("apply", "-f", str(file))
    assert kubectl.run("diff", "-f", str(file)).stdout == ""
    assert "serverside-applied" in kubectl(
        "apply", "-f", str(file), "--server-side", "--force-conflicts", "--field-manager=e2e"
    )
    assert "replaced" in kubectl("replace", "-f", str(file))
    assert kubectl.get("cm", "changed")["data"] == {"b": "three"}
    assert "created (server dry run)" in kubectl("create", "configmap", "dry", "--dry-run=server")
    assert "deleted" in kubectl("delete", "-f", str(file))
    refused = kubectl.run("create", "configmap", "Not_A_Name", code=1)
    assert "Invalid value" in refused.stderr


def test_it_applies_a_kustomization(kubectl: Kubectl, tmp_path: Path) -> None:
    """apply -k with a generator and a prefix; delete -k takes it away."""
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: pre-\nconfigMapGenerator:\n- name: generated\n  literals: [a=b]\n"
        "generatorOptions: {disableNameSuffixHash: true}\n"
    )
    assert "configmap/pre-generated created" in kubectl("apply", "-k", str(tmp_path))
    assert "deleted" in kubectl("delete", "-k", str(tmp_path))


def test_it_asks_who_may_what(kubectl: Kubectl) -> None:
    """Roles made with create, judged by auth can-i, tried by impersonation; tokens."""
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    listed = kubectl("auth", "can-i", "--list").splitlines()
    assert listed[0].split() == ["Resources", "Non-Resource", "URLs", "Resource", "Names", "Verbs"]
    assert listed[1].split() == ["*.*", "[]", "[]", "[*]"]
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "role", "reads", "--verb=get,list", "--resource=configmaps")
    who = f"{kubectl.namespace}:reader"
    kubectl("create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={who}")
    me = f"--as=system:serviceaccount:{who}"
    assert kubectl("auth", "can-i", "list", "cm", me).strip() == "yes"
    assert kubectl.run("auth", "can-i", "delete", "cm", me, code=1).stdout.strip() == "no"
    refused = kubectl.run("get", "secrets", me, code=1)
    assert f'User "system:serviceaccount:{who}" cannot list resource "secrets"' in refused.stderr
    if kubectl.minor >= 24:
        token = kubectl("create", "token", "reader").strip()
        assert token.count(".") == 2
        bare = ("--kubeconfig=/dev/null", f"--server={_server(kubectl)}", "--insecure-skip-tls-verify")
        assert "kube-root-ca.crt" in kubectl(*bare, f"--token={token}", "get", "cm", "-o", "name")
        assert kubectl.run(*bare, f"--token={token}", "get", "secrets", code=1).returncode == 1


def test_it_reconciles_roles_and_says_who_one_is(kubectl: Kubectl, tmp_path: Path) -> None:
    """auth reconcile makes, widens, narrows, and binds anew what can only be bound anew; auth whoami."""
    file, name = tmp_path / "roles.yaml", kubectl.namespace
    rbac = "apiVersion: rbac.authorization.k8s.io/v1"

    def reconcile(role: str, verbs: str, *more: str) -> None:
        file.write_text(
            f"{rbac}\nkind: ClusterRole\nmetadata: {{name: {name}}}\n"
            f"rules: [{{apiGroups: [''], resources: [pods], verbs: [{verbs}]}}]\n---\n"
            f"{rbac}\nkind: ClusterRoleBinding\nmetadata: {{name: {name}}}\n"
            f"roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}\n"
            f"subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]\n"
        )
        told = kubectl("auth", "reconcile", "-f", str(file), *more)
        assert told.count("reconciled") == 2

    def may(verb: str) -> bool:
        asked = kubectl.run("auth", "can-i", verb, "pods", f"--as={name}", code=None)
        return asked.stdout.strip() == "yes"

    reconcile(name, "get, list")
    assert may("list") and not may("watch")
    reconcile(name, "get, watch")
    assert may("list") and may("watch")
    reconcile(name, "get", "--remove-extra-permissions")
    assert may("get") and not may("list") and not may("watch")
    reconcile("view", "get")
    assert may("list")
    kubectl("delete", "-f", str(file))
    if kubectl.minor >= 28:
        said = kubectl("auth", "whoami", f"--as={name}", "--as-group=x", "--as-uid=7", "-o", "json")
        wanted = {"username": name, "uid": "7", "groups": ["x", "system:authenticated"]}
        assert json.loads(said)["status"]["userInfo"] == wanted


def _server(kubectl: Kubectl) -> str:
    return kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")


def test_it_runs_a_deployment_through_its_life(kubectl: Kubectl) -> None:
    """create, wait, scale, set image, rollout status, history, undo, restart, expose, describe, delete."""
    kubectl("create", "deployment", "app", f"--image={BUSYBOX}", "--", "sleep", "3600")
    patch = '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":0}}}}'
    kubectl("patch", "deployment", "app", "-p", patch)
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    kubectl("scale", "deployment", "app", "--replicas=3")
    kubectl("wait", "deployment/app", "--for=condition=Available", "--timeout=60s")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert kubectl("get", "deployment", "app").splitlines()[1].split()[1] == "3/3"
    kubectl("set", "env", "deployment/app", "COLOR=red")
    kubectl("annotate", "deployment", "app", "kubernetes.io/change-cause=red")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert "red" in kubectl("rollout", "history", "deployment/app")
    assert "COLOR" in kubectl("rollout", "history", "deployment/app", "--revision=3")
    kubectl("rollout", "undo", "deployment/app")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert "env" not in kubectl.get("deployment", "app")["spec"]["template"]["spec"]["containers"][0]
    kubectl("rollout", "pause", "deployment/app")
    kubectl("rollout", "resume", "deployment/app")
    kubectl("rollout", "restart", "deployment/app")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    kubectl("expose", "deployment", "app", "--port=80", "--target-port=8080")
    assert "Endpoints" in kubectl("describe", "service", "app")
    described = kubectl("describe", "deployment", "app")
    assert "ScalingReplicaSet" in described and "NewReplicaSetAvailable" in described
    kubectl("delete", "deployment,service", "app", "--timeout=60s")


def test_it_runs_single_pods_and_jobs(kubectl: Kubectl) -> None:
    """run, run --rm -i, describe with events, wait for a job, delete with a condition."""
    kubectl("run", "one", f"--image={BUSYBOX}", "--restart=Never", "--command", "--", "sh", "-c", "echo done")
    kubectl.until("pod/one", wanted=lambda line: "Completed" in line)
    assert kubectl("logs", "one") == "done\n"
    described = kubectl("describe", "pod", "one")
    assert all(reason in described for reason in ("Scheduled", "Created", "Started"))
    assert "Started" in kubectl("get", "events")
    shown = kubectl("run", "-i", "--rm", "two", f"--image={BUSYBOX}", "--restart=Never", "--", "cat", input="through\n")
    assert "through" in shown
    kubectl("create", "job", "work", f"--image={BUSYBOX}", "--", "true")
    kubectl("wait", "job/work", "--for=condition=complete", "--timeout=60s")
    kubectl("delete", "job/work", "pod/one")
    assert kubectl("get", "pods", "-l", "job-name=work", "-o", "name") == ""


def test_it_cares_for_nodes(kubectl: Kubectl, cluster: Cluster) -> None:
    """cordon, drain of one app, uncordon, taint, describe, top."""
    node = kubectl("get", "nodes", "-o", "name").strip().removeprefix("node/")
    app = web("drained", 1)
    app["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    kubectl.apply(app, pod("bare", "sleep 3600"))
    kubectl("rollout", "status", "deployment/drained", "--timeout=60s")
    try:
        kubectl("cordon", node)
        assert "SchedulingDisabled" in kubectl("get", "node", node)
        drained = kubectl("drain", node, "--pod-selector=app=drained", "--timeout=60s")
        assert "evicted" in drained
    finally:
        kubectl("uncordon", node)
    kubectl("rollout", "status", "deployment/drained", "--timeout=60s")
    kubectl("taint", "node", node, "e2e=yes:PreferNoSchedule")
    kubectl("taint", "node", node, "e2e-")
    described = kubectl("describe", "node", node)
    assert "Allocated resources" in described and "KubeletReady" in described
    assert node in kubectl("top", "nodes")
    assert "bare" in kubectl("top", "pods")
    kubectl("delete", "deployment/drained", "pod/bare", "--wait=false")
