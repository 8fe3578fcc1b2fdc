// An informer of @kubernetes/client-node: prints what it hears about the ConfigMaps of a namespace, a line each.
import { CoreV1Api, KubeConfig, makeInformer } from "@kubernetes/client-node";

const config = new KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const namespace = process.argv[2];
const core = config.makeApiClient(CoreV1Api);
const informer = makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, () =>
  core.listNamespacedConfigMap({ namespace }),
);
for (const what of ["add", "update", "delete"]) {
  informer.on(what, (map) => console.log(what, map.metadata.name, JSON.stringify(map.data ?? {})));
}
informer.on("connect", () => console.log("connected"));
informer.on("error", (error) => console.log("error", error));
await informer.start();
