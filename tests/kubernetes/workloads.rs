//! `tests/fixtures/workloads.tsv`, held against kube-apiserver itself, which counts the generations of a deployment by its own
//! rules; what its controller would say of it is written by kubectl.

use super::node_lists::Bench;
use crate::support::root::jq;

const TABLE: &str = include_str!("../fixtures/workloads.tsv");

/// Where objects of a kind are.
fn path(kind: &str, namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/{}s", kind.to_lowercase())
}

/// A Deployment or StatefulSet.
#[derive(Clone, Copy)]
struct Object<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    replicas: &'a str,
}

/// Input: `image`: another one is a change; `status`: what its controller says.
fn object(Object { kind, namespace, name, replicas }: Object<'_>, image: &str, status: &str) -> String {
    let more = if kind == "StatefulSet" { r#""serviceName":"x","# } else { "" };
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"{kind}","metadata":{{"name":"{name}","namespace":"{namespace}"}},"spec":{{{more}"replicas":{replicas},
        "selector":{{"matchLabels":{{"app":"x"}}}},"template":{{"metadata":{{"labels":{{"app":"x"}}}},"spec":{{"containers":[
        {{"name":"x","image":"{image}"}}]}}}}}},"status":{status}}}"#
    )
}

/// Puts one into the server. Input: `NAMESPACE/NAME REPLICAS AVAILABLE SEEN`, as the table has it.
pub fn put(bench: &Bench, words: &str) {
    let [what, replicas, available, seen] = words.split(' ').collect::<Vec<_>>().try_into().expect(words);
    let (kind, what) = what.split_once(':').unwrap_or(("Deployment", what));
    let (namespace, name) = what.split_once('/').expect(words);
    let (all, one) = (path(kind, namespace), format!("{}/{name}", path(kind, namespace)));
    let it = Object { kind, namespace, name, replicas };
    let generation = || jq(&bench.api.get(&one), ".metadata.generation").parse::<u64>().unwrap();
    bench.api.create(&all, &object(it, "a", "{}"));
    assert_eq!(generation(), 1, "{words}");
    if seen != "new" {
        let status = format!(
            r#"{{"observedGeneration":1,"replicas":{replicas},"updatedReplicas":{replicas},"readyReplicas":{available},"availableReplicas":{available}}}"#
        );
        bench.api.replace(&format!("{one}/status"), &object(it, "a", &status));
    }
    if seen == "changed" {
        bench.api.replace(&one, &object(it, "b", "{}"));
        assert_eq!(generation(), 2, "{words}");
    }
}

#[apply(test)]
fn a_real_api_server_agrees_with_the_table() {
    Bench::ready();
    let (bench, mut wrong, mut cases) = (Bench::new(), Vec::new(), 0);
    bench.register("edge-7 True this");
    bench.api.create("/api/v1/namespaces", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}"#);
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [workloads, objects, is, words] = line.split('\t').collect::<Vec<_>>().try_into().expect(line);
        for namespace in ["kube-system", "shop"] {
            ["Deployment", "StatefulSet"].iter().for_each(|kind| bench.api.delete(&path(kind, namespace)));
        }
        objects.split(", ").filter(|words| !words.is_empty()).for_each(|words| put(&bench, words));
        bench.root.configure_node(&format!("containerd_socket = off\nworkloads = {workloads}\n"));
        let said = bench.says("workloads");
        let text = said.as_ref().unwrap_or_else(|why| why);
        if said.is_ok() != (is == "healthy") || !text.contains(words) {
            wrong.push(format!("{line}: {said:?}"));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 20, "{cases}");
}
