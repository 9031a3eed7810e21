//! `deploy/kubernetes/`: what a real kustomize builds is valid for several versions of Kubernetes and keeps the rules
//! of `support/kubernetes_rules.jq`; what breaks them is found. Its containers run in `kubernetes_run.rs`.

use crate::support::kubernetes::{IMAGE, Manifests, need_kustomize, to_yaml, validate};
use crate::support::kubernetes_site::config_json;
use crate::support::root::jq;
use crate::support::{command, need, need_python, run};
use std::fs;
use std::path::Path;
use std::process::Command;

const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];
const PARTS: [&str; 3] = ["base", "overlays/http", "overlays/registry"];
const COMPONENTS: [&str; 5] = ["activate", "reboot", "credentials", "tls", "servicemonitor"];

/// What is wrong with objects, by `support/kubernetes_rules.jq`.
fn faults(objects: &str, elsewhere: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("objects.json");
    fs::write(&file, objects).unwrap();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kubernetes_rules.jq");
    let mut jq = command("jq");
    jq.args(["-c", "--arg", "image", &format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"))]);
    run(jq.args(["--argjson", "elsewhere", elsewhere, "-f"]).arg(rules).arg(file)).trim().to_string()
}

/// Every build there is, with its name.
fn builds(manifests: &Manifests) -> Vec<(String, String)> {
    fs::write(manifests.path("components/credentials/config.json"), config_json("registry.example.com")).unwrap();
    let mut built = vec![("healthcheck".to_string(), manifests.build("healthcheck"))];
    for part in PARTS {
        assert_eq!(manifests.build(part), manifests.build_site(part, &[], ""), "{part}");
        for set in 0..1 << COMPONENTS.len() {
            let chosen: Vec<&str> =
                (0..COMPONENTS.len()).filter(|n| set & (1 << n) != 0).map(|n| COMPONENTS[n]).collect();
            built.push((format!("{part} {chosen:?}"), manifests.build_site(part, &chosen, "")));
        }
    }
    built
}

#[apply(test)]
fn every_build_is_valid_and_keeps_the_rules() {
    need_kustomize();
    need_python("jsonschema");
    let manifests = Manifests::new();
    let builds = builds(&manifests);
    assert_eq!(builds.len(), 97);
    for (name, objects) in &builds {
        let elsewhere = if name == "healthcheck" { r#"["ServiceAccount/kubesolo-update"]"# } else { "[]" };
        assert_eq!(faults(objects, elsewhere), "[]", "{name}");
    }
    let all: Vec<&str> = builds.iter().map(|(_, objects)| objects.as_str()).collect();
    let all = jq(&format!("[{}]", all.join(",")), "add | unique");
    // Its schema is not among Kubernetes's own.
    let monitors = jq(&all, "map(select(.kind == \"ServiceMonitor\"))");
    let known = jq(&all, "map(select(.kind != \"ServiceMonitor\"))");
    assert_eq!(jq(&monitors, "length"), "1");
    assert_eq!(monitor_faults(&jq(&monitors, ".[0]")), "");
    for version in VERSIONS {
        let out = validate(&known, version);
        let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        assert!(out.status.success(), "{version}: {said}");
        let passed = said.lines().filter(|l| l.contains(" passed for resource ")).count();
        assert_eq!(passed.to_string(), jq(&known, "length"), "{version}: {said}");
    }
}

/// Where a ServiceMonitor is not what the operator's CRD describes.
fn monitor_faults(monitor: &str) -> String {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = Command::new("node");
    node.arg(repo.join("tests/support/servicemonitor.mjs")).arg(repo.join(".tools/kubernetes-models")).arg(monitor);
    run(&mut node)
}

#[apply(test)]
fn a_broken_manifest_is_refused_by_the_validators() {
    need_kustomize();
    need_python("jsonschema");
    let manifests = Manifests::new();
    let good = manifests.build_site("overlays/registry", &["servicemonitor"], "");
    let known = jq(&good, "map(select(.kind != \"ServiceMonitor\"))");
    let cron = "(.[] | select(.kind == \"CronJob\") | .spec)";
    let pod = "(.[] | select(.kind == \"CronJob\") | .spec.jobTemplate.spec.template.spec)";
    for change in [
        format!("{cron}.concurencyPolicy = \"Forbid\""),
        format!("{cron}.schedule = 6"),
        format!("del({cron}.schedule)"),
        format!("{cron}.jobTemplate.spec.backoffLimit = \"0\""),
        format!("{pod}.containers[0].securityContext.readOnlyRootFileSystem = true"),
        format!("{pod}.containers[0].args[2] = 1800"),
        format!("{pod}.volumes[0].hostPath.typ = \"Directory\""),
        "del(.[] | select(.kind == \"DaemonSet\") | .spec.selector)".into(),
    ] {
        let out = validate(&jq(&known, &change), "1.33");
        assert!(!out.status.success(), "{change}: {}", String::from_utf8_lossy(&out.stdout));
    }
    let monitor = jq(&good, "map(select(.kind == \"ServiceMonitor\")) | .[0]");
    for change in [
        ".spec.endpoints[0].scrapeInterval = \"1m\"",
        ".spec.endpoints[0].interval = \"a minute\"",
        ".spec.endpoints[0].port = 9199",
        "del(.spec.selector)",
        ".spec.selector.matchlabels = {}",
    ] {
        assert_ne!(monitor_faults(&jq(&monitor, change)), "", "{change}");
    }
}

#[apply(test)]
fn what_breaks_a_rule_is_found() {
    need_kustomize();
    let manifests = Manifests::new();
    fs::write(manifests.path("components/credentials/config.json"), config_json("registry.example.com")).unwrap();
    let good = manifests.build_site("overlays/registry", &COMPONENTS, "");
    assert_eq!(faults(&good, "[]"), "[]");
    let table = [
        (". += [{kind: \"ClusterRoleBinding\", metadata: {name: \"x\"}}]", "the agent needs no rights"),
        ("(K(\"ServiceAccount\")).automountServiceAccountToken = true", "a token is handed out"),
        ("(K(\"DaemonSet\") | .spec.template.spec.automountServiceAccountToken) = true", "a token is mounted"),
        ("(K(\"Service\") | .metadata.namespace) = \"default\"", "another namespace"),
        ("del(K(\"ConfigMap\"))", "there is no ConfigMap kubesolo-update-source"),
        ("del(K(\"ConfigMap\") | .data.registry)", "has no registry"),
        ("del(K(\"Secret\"))", "there is no Secret kubesolo-update-registry"),
        ("(K(\"Secret\") | .data) = {\"config.json\": \"e30=\"}", "has no .dockerconfigjson"),
        ("del(P | .volumes[] | select(.name == \"update\"))", "there is no volume update"),
        ("(P | .volumes) += [{name: \"more\", emptyDir: {}}]", "a volume that is mounted nowhere"),
        ("del(P | .containers[0].volumeMounts[] | select(.name == \"config\") | .readOnly)", "can be written"),
        (
            "(P | .volumes[] | select(.name == \"config\")) = {name: \"config\", configMap: {name: \"x\"}}",
            "is not the machine's",
        ),
        (
            "(P | .containers[0].volumeMounts) += [{name: \"run\", mountPath: \"/etc/kubesolo/update-keys.d\"}]",
            "/etc/kubesolo/update-keys.d is not the machine's",
        ),
        ("(P | .containers[0].volumeMounts) += [{name: \"run\", mountPath: \"/etc\"}]", "over /etc"),
        // KubeSolo's own configuration, with its edge key.
        (
            "(P | .volumes[] | select(.name == \"config\") | .hostPath.path) = \"/etc/kubesolo\"",
            "hostPath /etc/kubesolo",
        ),
        (
            "(P | .volumes[] | select(.name == \"keys\") | .hostPath.path) = \"/etc/kubesolo/config.yaml\"",
            "hostPath /etc",
        ),
        ("(P | .volumes[] | select(.name == \"tls\") | .hostPath.path) = \"/etc\"", "hostPath /etc"),
        (
            "del(P | .containers[0].volumeMounts[] | select(.name == \"keys\"))",
            "does not see the machine's configuration",
        ),
        ("del(P | .containers[0].volumeMounts[] | select(.name == \"tls\") | .readOnly)", "can be written"),
        ("(P | .volumes[] | select(.name == \"credentials\") | .secret.defaultMode) = 420", "others can read"),
        ("(P | .containers[0].args) += [\"--allow-downgrade\"]", "--allow-downgrade"),
        ("(P | .containers[0].args) += [\"--config\", \"/tmp/x\"]", "--config"),
        ("(P | .containers[0].env) += [{name: \"HTTPS_PROXY\", value: \"x\"}]", "the environment says HTTPS_PROXY"),
        ("del(P | .containers[0].env)", "nothing sets KUBESOLO_REGISTRY"),
        ("(P | .containers[0].args[2]) = \"0\"", "no jitter"),
        ("(P | .shareProcessNamespace) = true", "the API server refuses it"),
        ("del(P | .hostPID)", "restarts nothing"),
        ("(P | .hostNetwork) = true", "hostNetwork"),
        ("(K(\"DaemonSet\") | .spec.template.spec.hostPID) = true", "hostPID without --reboot"),
        ("(P | .restartPolicy) = \"OnFailure\"", "restartPolicy"),
        ("(P | .containers[0].image) = \"x:latest\"", "image x:latest"),
        ("(P | .containers[0].terminationMessagePath) = \"/dev/termination-log\"", "a file in /dev"),
        ("(K(\"CronJob\") | .spec.schedule) = \"0 * * * *\"", "not every six hours"),
        ("(K(\"CronJob\") | .spec.concurrencyPolicy) = \"Replace\"", "two may run at once"),
        ("(K(\"CronJob\") | .spec.jobTemplate.spec.activeDeadlineSeconds) = 1800", "its deadline"),
        (
            "(K(\"Service\") | .spec.selector[\"app.kubernetes.io/component\"]) = \"update\"",
            "does not find the DaemonSet's",
        ),
        ("del(K(\"Service\") | .spec.selector[\"app.kubernetes.io/component\"])", "does not find the DaemonSet's"),
        ("(K(\"Service\") | .spec.ports[0].targetPort) = \"http\"", "leads nowhere"),
        ("(K(\"DaemonSet\") | .spec.template.spec.containers[0].ports[0].containerPort) = 9100", "leads nowhere"),
        ("(K(\"DaemonSet\") | .spec.template.metadata.labels[\"app.kubernetes.io/component\"]) = \"x\"", "its pods"),
        ("(K(\"DaemonSet\") | .spec.template.spec.containers[0].args[2]) = \"127.0.0.1:9199\"", "listens elsewhere"),
        ("(K(\"ServiceMonitor\") | .spec.endpoints[0].port) = \"http\"", "does not find the Service"),
    ];
    let words = "def K($k): .[] | select(.kind == $k); def P: K(\"CronJob\") | .spec.jobTemplate.spec.template.spec;";
    for (change, fault) in table {
        let found = faults(&jq(&good, &format!("{words} {change}")), "[]");
        assert!(found.contains(fault), "{change}: '{fault}' is not among {found}");
    }
}

#[apply(test)]
fn the_manual_says_what_is_there() {
    need_kustomize();
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes.md")).unwrap();
    // What a site writes, as it stands there.
    let blocks: Vec<&str> = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let manifests = Manifests::new();
    for (name, block) in ["site/image", "site", "site/healthcheck"].into_iter().zip(&blocks) {
        assert!(manual.contains(&format!("`{name}/kustomization.yaml`")), "{name}");
        fs::create_dir_all(manifests.path(name)).unwrap();
        fs::write(manifests.path(name).join("kustomization.yaml"), block).unwrap();
    }
    fs::write(manifests.path("components/credentials/config.json"), "{}").unwrap();
    // One image, for the CronJob, the DaemonSet and the Job.
    let pinned = "test(\"^registry.example.internal/.*@sha256:[0-9a-f]{64}$\")";
    let images = format!("[.. | .image? // empty] | unique | length == 1 and (.[0] | {pinned})");
    let job = manifests.build("site/healthcheck");
    assert_eq!(jq(&job, &images), "true", "{job}");
    assert_eq!(jq(&job, "map(.kind)"), r#"["Job"]"#);
    let objects = manifests.build("site");
    for version in VERSIONS {
        let known = jq(&objects, "map(select(.kind != \"ServiceMonitor\"))");
        let out = validate(&known, version);
        assert!(out.status.success(), "{}", to_yaml(&known));
    }
    assert_eq!(jq(&objects, &images), "true");
    assert_eq!(
        jq(&objects, ".[] | select(.kind == \"ConfigMap\") | .data.registry"),
        "registry.example.internal/os/kubesolo:stable"
    );
    assert_eq!(jq(&objects, ".[] | select(.kind == \"CronJob\") | .spec.schedule"), "41 1 * * 6");
    // Every part and component has its place in it.
    for name in PARTS.iter().chain(&["healthcheck"]).chain(&COMPONENTS) {
        assert!(manual.contains(name), "{name}");
    }
}

/// What a site makes of it, and its password, is not committed by accident.
#[apply(test)]
fn what_a_site_makes_is_ignored_by_git() {
    need("git");
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    fs::copy(repo.join(".gitignore"), dir.path().join(".gitignore")).unwrap();
    let credentials = "deploy/kubernetes/components/credentials";
    fs::create_dir_all(dir.path().join(credentials)).unwrap();
    let own = format!("{credentials}/.gitignore");
    if repo.join(&own).exists() {
        fs::copy(repo.join(&own), dir.path().join(&own)).unwrap();
    }
    run(Command::new("git").arg("init").arg("-q").arg(dir.path()));
    for (path, is_ignored) in [
        ("deploy/kubernetes/site/kustomization.yaml", true),
        ("deploy/kubernetes/site/image/kustomization.yaml", true),
        ("deploy/kubernetes/site/healthcheck/kustomization.yaml", true),
        ("deploy/kubernetes/components/credentials/config.json", true),
        ("deploy/kubernetes/components/credentials/kustomization.yaml", false),
        ("deploy/kubernetes/base/cronjob.yaml", false),
        ("src/trust/site.rs", false),
    ] {
        let out = Command::new("git").arg("-C").arg(dir.path()).args(["check-ignore", "-q", path]).output().unwrap();
        assert_eq!(out.status.success(), is_ignored, "{path}");
    }
}

/// Of a machine that is on from 13:30 to 17:30 UTC.
#[apply(test)]
fn a_machine_that_is_on_four_hours_a_day_runs_it() {
    need_kustomize();
    let objects = Manifests::new().build("base");
    let cron = |filter: &str| jq(&objects, &format!(".[] | select(.kind == \"CronJob\") | {filter}"));
    let schedule = cron(".spec.schedule");
    let [minute, hours, "*", "*", "*"] = schedule.split(' ').collect::<Vec<_>>()[..] else { panic!("{schedule}") };
    let every: u64 = hours.strip_prefix("*/").expect("a period that divides the day").parse().unwrap();
    let (period, offset) = (every * 3600, minute.parse::<u64>().unwrap() * 60);
    assert_eq!(24 % every, 0);
    // The CronJob controller starts the last run that was missed, unless that is longer ago than the deadline.
    let deadline: u64 = cron(".spec.startingDeadlineSeconds").parse().unwrap();
    for on_at in (0..24 * 60).map(|minutes| minutes * 60) {
        let missed = (on_at + 24 * 3600 - offset) % period;
        assert!(missed <= deadline, "on at {on_at} s: the run of {missed} s ago is not started any more");
    }
    // And it counts no more than 100 of them. Source: CronJob, "Job creation" (Kubernetes documentation).
    assert!(deadline / period < 100);
    // Whatever is the matter with the only node.
    let pods = "(.spec.jobTemplate.spec.template.spec // .spec.template.spec // empty)";
    for objects in [&objects, &Manifests::new().build("healthcheck")] {
        let excused = jq(objects, &format!("map({pods} | [.tolerations, .priorityClassName]) | unique"));
        assert_eq!(excused, r#"[[[{"operator":"Exists"}],"system-node-critical"]]"#);
    }
}
