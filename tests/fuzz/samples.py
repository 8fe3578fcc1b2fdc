"""Good inputs that fuzzing starts from: objects, their JSON, patches of them."""

from __future__ import annotations

import json
from typing import Any

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "namespace": "default",
        "labels": {"app": "web", "example.com/tier": "x"},
        "annotations": {"note": "ü"},
        "managedFields": [
            {
                "manager": "m",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2026-01-02T03:04:05Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}}}}},
            }
        ],
    },
    "spec": {
        "containers": [
            {
                "name": "a",
                "image": "b:1",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                "env": [{"name": "A", "value": "$(B)"}],
                "readinessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 3},
            }
        ],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "c", "configMap": {"name": "x"}}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "h"}]}},
    },
}
OBJECTS: tuple[dict[str, Any], ...] = (
    POD,
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m"},
        "data": {"a": "b"},
        "binaryData": {"x": "AA=="},
    },
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}, "type": "Opaque"},
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "targetPort": "web"}], "selector": {"a": "b"}, "sessionAffinity": "ClientIP"},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD["spec"]},
        },
    },
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c"},
        "spec": {
            "schedule": "*/5 1-3 * JAN mon",
            "timeZone": "Europe/Berlin",
            "jobTemplate": {"spec": {"template": {"spec": {**POD["spec"], "restartPolicy": "Never"}}}},
        },
    },
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"n": {"type": "integer", "default": 1}, "p": {"pattern": "^a+$"}},
                                    "x-kubernetes-validations": [{"rule": "self.n > 0 && has(self.n)"}],
                                }
                            },
                        }
                    },
                }
            ],
        },
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "r"},
        "rules": [
            {"verbs": ["*"], "resources": ["pods/log"], "apiGroups": [""]},
            {"nonResourceURLs": ["/a/*"], "verbs": ["get"]},
        ],
    },
    {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-01-02T03:04:05.678901Z",
        "involvedObject": {},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "n"},
        "spec": {
            "podSelector": {},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        },
    },
)
JSONS = tuple(json.dumps(obj).encode() for obj in OBJECTS)
YAMLS = (
    b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata: &d\n  when: 2020-01-01\n  oct: 0644\n  'y': yes\n",
    b"a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    b"- |\n  text\n- >-\n  folded\n- {a: b, ? c : d}\n- !!str 12\n- 12:30:45\n- 1_000\n- .inf\n- ~\n",
    b"base: &base {a: 1}\nmore:\n  <<: *base\n  b: 2\n",
    json.dumps(POD).encode(),
)
PATCHES = (
    b'[{"op":"add","path":"/spec/containers/-","value":{"name":"z"}},{"op":"test","path":"/metadata/name","value":"web"}]',
    b'[{"op":"move","from":"/metadata/labels/app","path":"/metadata/labels/b~1c"},{"op":"copy","from":"/spec","path":"/x"}]',
    b'[{"op":"remove","path":"/spec/containers/0"},{"op":"replace","path":"","value":{}}]',
    b'{"metadata":{"labels":{"app":null,"b":"c"}},"spec":{"containers":[{"name":"a","image":"c"}]}}',
    b'{"spec":{"containers":[{"$patch":"delete","name":"a"}],"$setElementOrder/containers":[{"name":"b"},{"name":"a"}]}}',
    b'{"spec":{"$retainKeys":["containers"],"$patch":"replace"},"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}',
)
