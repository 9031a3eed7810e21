//! Deployments that a site depends on (CoreDNS, say): does each have an available replica? Pure.
//!
//! Must never: call one available that the API server does not report on.

use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use miniserde::{Deserialize, json};

/// Most deployments in the list.
const MAX_WORKLOADS: usize = 16;
/// Longest name of a namespace or deployment. Source: Kubernetes, DNS subdomain names (RFC 1123).
const MAX_NAME: usize = 253;

/// Names a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    namespace: String,
    name: String,
}

impl Workload {
    /// Parses `NAMESPACE/NAME[, NAMESPACE/NAME...]`.
    /// Errors: Config: malformed, or too many.
    pub fn parse_list(text: &str) -> Result<Vec<Workload>> {
        let bad = |word: &str| {
            Error::new(
                Kind::Config,
                format!("`{word}` is not a deployment such as kube-system/coredns (namespace/name, in small letters)"),
            )
        };
        let mut list = Vec::new();
        for word in text.split(',').map(str::trim) {
            let (namespace, name) = word.split_once('/').ok_or_else(|| bad(word))?;
            if !is_name(namespace) || !is_name(name) {
                return Err(bad(word));
            }
            list.push(Workload { namespace: namespace.to_owned(), name: name.to_owned() });
        }
        match list.len() > MAX_WORKLOADS {
            true => Err(Error::new(Kind::Config, format!("more than {MAX_WORKLOADS} deployments"))),
            false => Ok(list),
        }
    }

    /// Returns its API path.
    pub fn path(&self) -> String {
        format!("apis/apps/v1/namespaces/{}/deployments/{}", self.namespace, self.name)
    }

    /// Judges the API server's answer. Returns: its name and how many replicas are available.
    /// Errors: Unhealthy: none is, it is not known yet, or the deployment does not exist. Source: the answer is malformed.
    pub fn judge(&self, status: u16, answer: &[u8]) -> Result<String> {
        let (namespace, name) = (&self.namespace, &self.name);
        let unhealthy = |why: String| Err(Error::new(Kind::Unhealthy, format!("deployment {namespace}/{name} {why}")));
        match status {
            200 => {}
            404 => return unhealthy("does not exist".into()),
            other => return unhealthy(format!("cannot be asked for: the API server answered {other}")),
        }
        let text = std::str::from_utf8(answer).unwrap_or_default();
        let found: Deployment = json::from_str(text).map_err(|_| {
            Error::new(Kind::Source, format!("the answer about {namespace}/{name} is not a Deployment"))
        })?;
        if found.kind.as_deref() != Some("Deployment") {
            let kind = printable(&found.kind.unwrap_or_default());
            return Err(Error::new(Kind::Source, format!("the answer about {namespace}/{name} is a `{kind}`")));
        }
        let status = found.status.unwrap_or_default();
        let generation = found.metadata.and_then(|metadata| metadata.generation);
        if status.observed_generation.unwrap_or(0) < generation.unwrap_or(0) {
            return unhealthy("was changed, and its controller has not looked at it yet".into());
        }
        match status.available_replicas.unwrap_or(0) {
            0 => unhealthy(format!("has no available replica (of {})", status.replicas.unwrap_or(0))),
            available => Ok(format!("{namespace}/{name}: {available} available")),
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_part) && !text.starts_with(['.', '-'])
}

/// Source: Kubernetes API, apps/v1 Deployment.
#[derive(Deserialize)]
struct Deployment {
    kind: Option<String>,
    metadata: Option<Metadata>,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    generation: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(rename = "observedGeneration")]
    observed_generation: Option<u64>,
    replicas: Option<u64>,
    #[serde(rename = "availableReplicas")]
    available_replicas: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_what_is_none_is_refused() {
        let list = Workload::parse_list("kube-system/coredns, shop/db.v2").unwrap();
        let paths: Vec<String> = list.iter().map(Workload::path).collect();
        assert_eq!(
            paths,
            [
                "apis/apps/v1/namespaces/kube-system/deployments/coredns",
                "apis/apps/v1/namespaces/shop/deployments/db.v2"
            ]
        );
        for bad in
            ["", "coredns", "kube-system/", "/coredns", "a/b/c", "a/b,", "A/b", "a/..", "a/b?x=1", "a/b c", "off"]
        {
            assert_eq!(Workload::parse_list(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        assert!(Workload::parse_list(&["a/b"; 17].join(",")).is_err());
    }

    #[test]
    fn one_available_replica_is_enough_and_nothing_else_is() {
        let coredns = &Workload::parse_list("kube-system/coredns").unwrap()[0];
        let answer = |status: &str| {
            format!(
                r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"coredns","generation":3}},"spec":{{"replicas":1}},"status":{status}}}"#
            )
        };
        let judged = |status, text: &str| coredns.judge(status, text.as_bytes()).map_err(|e| e.to_string());
        let ready = answer(
            r#"{"observedGeneration":3,"replicas":1,"readyReplicas":1,"availableReplicas":1,"conditions":[{"type":"Available","status":"True"}]}"#,
        );
        assert_eq!(judged(200, &ready).unwrap(), "kube-system/coredns: 1 available");
        for (status, text, words) in [
            (
                200,
                answer(r#"{"observedGeneration":3,"replicas":1,"unavailableReplicas":1}"#),
                "no available replica (of 1)",
            ),
            (200, answer(r#"{"observedGeneration":3,"availableReplicas":0}"#), "no available replica (of 0)"),
            (200, answer("{}"), "has not looked at it yet"),
            (200, answer(r#"{"observedGeneration":2,"availableReplicas":1}"#), "has not looked at it yet"),
            (200, r#"{"kind":"Deployment"}"#.into(), "no available replica"),
            (200, ready.replacen("Deployment", "Status", 1), "is a `Status`"),
            (200, "<html>".into(), "is not a Deployment"),
            (404, String::new(), "does not exist"),
            (403, String::new(), "answered 403"),
        ] {
            let why = judged(status, &text).unwrap_err();
            assert!(why.contains(words) && why.contains("kube-system/coredns"), "{words}: {why}");
        }
    }
}
