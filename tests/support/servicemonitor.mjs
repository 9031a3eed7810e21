// Says where a ServiceMonitor is not what the operator's CRD describes, by the models that are published with it.
// Usage: node servicemonitor.mjs DIR-WITH-NODE_MODULES JSON
const [dir, text] = process.argv.slice(2);
const models = `${dir}/node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js`;
const { ServiceMonitor } = await import(models);
const monitor = JSON.parse(text);
try {
  new ServiceMonitor(monitor).validate();
} catch (e) {
  console.log(e.message);
}
// The models let unknown fields pass, as the API server prunes them.
const unknown = (object, known) => Object.keys(object ?? {}).filter((name) => !known.includes(name));
const fields = [
  ...unknown(monitor.spec, ["endpoints", "selector"]),
  ...unknown(monitor.spec?.selector, ["matchLabels"]),
  ...(monitor.spec?.endpoints ?? []).flatMap((e) => unknown(e, ["port", "path", "interval", "scrapeTimeout"])),
];
for (const name of fields) console.log(`unknown field ${name}`);
