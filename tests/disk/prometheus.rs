//! Where people look: a real Prometheus scrapes the agent, every query of the dashboard finds something, and every alert
//! fires where it should, and only there.

use crate::support::disk::{need_disks, wait_for};
use crate::support::prometheus::{Prometheus, need_prometheus, need_promtool};
use crate::support::root::jq;
use crate::support::served::{PATIENCE, Served};
use crate::support::trial::Trial;
use crate::support::{self, command, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn deployed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deployed(name)).unwrap()
}

#[apply(long_test)]
fn every_alert_is_whole_and_fires_in_a_test() {
    need_promtool();
    let rules = read("prometheus-rules.yaml");
    run(command("promtool").args(["check", "rules", "--lint-fatal"]).arg(deployed("prometheus-rules.yaml")));
    let tests = read("prometheus-rules-test.yaml");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 10);
    let docs = fs::read_to_string(deployed("../docs/metrics.md")).unwrap();
    let mut names = BTreeSet::new();
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        for part in ["severity: ", " summary: ", " description: ", " runbook: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} fires in no test");
        let severity = alert.split("severity: ").nth(1).unwrap().split('}').next().unwrap();
        let is_told =
            |line: &str| line.starts_with(&format!("| {name} |")) && line.ends_with(&format!("| {severity} |"));
        assert!(docs.lines().any(is_told), "docs/metrics.md does not have {name}, {severity}");
    }
    run(command("promtool").args(["test", "rules", "prometheus-rules-test.yaml"]).current_dir(deployed("")));
}

#[apply(test)]
fn the_dashboard_is_complete() {
    let dashboard = read("grafana-dashboard.json");
    assert_eq!(jq(&dashboard, ".schemaVersion >= 36 and .uid != null and .title != null"), "true");
    let bad = r#"[.panels[] | select(.type != "row") | select((.title // "") == "" or (.description // "") == ""
        or (.fieldConfig.defaults.unit // "") == "" or .datasource.uid != "${datasource}" or (.targets | length) == 0
        or any(.targets[]; .datasource.uid != "${datasource}" or (.expr // "") == "")) | .id]"#;
    assert_eq!(jq(&dashboard, bad), "[]");
    assert_eq!(jq(&dashboard, "(.panels | map(.id) | unique | length) == (.panels | length)"), "true");
    assert_eq!(
        jq(&dashboard, "[.panels[] | select(.type == \"row\") | .title]"),
        r#"["Fleet","One machine: $instance"]"#
    );
    assert_eq!(jq(&dashboard, "[.templating.list[].name]"), r#"["datasource","job","instance"]"#);
    // No two panels cover each other.
    let places = jq(&dashboard, "[.panels[].gridPos | [.x, .y, .w, .h]]");
    let overlap = "[. as $p | range(length) as $i | range($i) as $j | select($p[$i][0] < $p[$j][0] + $p[$j][2]
        and $p[$j][0] < $p[$i][0] + $p[$i][2] and $p[$i][1] < $p[$j][1] + $p[$j][3]
        and $p[$j][1] < $p[$i][1] + $p[$i][3]) | [$i, $j]]";
    assert_eq!(jq(&places, overlap), "[]");
    assert_eq!(jq(&places, "all(.[]; .[0] + .[2] <= 24)"), "true");
}

/// What Grafana makes of a query: `All` of the jobs, and one machine.
fn filled_in(query: &str, instance: &str) -> String {
    let filled = query.replace("$job", "kubesolo.*").replace("$instance", instance);
    assert!(!filled.contains('$'), "{filled}");
    filled
}

#[apply(test)]
fn a_prometheus_scrapes_and_every_query_finds_something() {
    Trial::ready();
    need_disks();
    need_prometheus();
    // One is back on its old version, one has nothing at all but word that this is meant so.
    let mut trial = Trial::booted();
    trial.root.agent(&["rollback"]).expect(0, &[]);
    trial.boot(support::disk::A);
    for name in ["meminfo", "stat"] {
        fs::write(trial.root.path("proc").join(name), fs::read(format!("/proc/{name}")).unwrap()).unwrap();
    }
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir_all(empty.path().join("etc/kubesolo")).unwrap();
    fs::write(empty.path().join("etc/kubesolo/update.conf"), "signature = off\n").unwrap();
    let (machine, nowhere) = (Served::of(&trial.root), Served::nowhere(empty.path()));
    let prometheus = Prometheus::scraping(&[machine.address(), nowhere.address()]);
    assert_eq!(prometheus.query("kubesolo_os_info{version=\"1.0.0\",slot=\"A\"}"), 1);
    assert_eq!(prometheus.query("kubesolo_os_info{slot=\"unknown\"}"), 1);
    // Each query of the dashboard, also those of variables and annotations.
    let dashboard = read("grafana-dashboard.json");
    let queries = jq(&dashboard, "[.panels[] | .targets[]?.expr] | join(\"\\u0001\")");
    let queries: Vec<&str> = queries.split('\u{1}').collect();
    assert!(queries.len() >= 25, "{}", queries.len());
    // `increase` needs two scrapes.
    let counted = || prometheus.query("increase(kubesolo_update_rollbacks_total[1d])") == 2;
    assert!(wait_for(PATIENCE, counted), "it does not scrape again");
    for query in &queries {
        // "No error at all" is the answer for the other machine.
        let instance = if query.ends_with("== 0") { nowhere.address() } else { machine.address() };
        let query = filled_in(query, &instance);
        assert!(prometheus.query(&query) > 0, "nothing: {query}");
    }
    for variable in ["kubesolo_os_info", "kubesolo_os_info{job=~\".*\"}"] {
        let answer = prometheus.ask("/api/v1/series", &format!("match[]={variable}")).unwrap();
        assert_eq!(jq(&answer, "[.data[] | .job] | unique"), r#"["kubesolo"]"#);
    }
    for annotation in jq(&dashboard, "[.annotations.list[].expr // empty] | join(\"\\u0001\")").split('\u{1}') {
        prometheus.query(&filled_in(annotation, &machine.address()));
    }
    // Every series that the agent has is scraped, and every one that a query or a rule names is one of them.
    let page = machine.scrape();
    let series: BTreeSet<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &series {
        assert!(prometheus.query(name) > 0, "{name} is not scraped");
    }
    let docs = fs::read_to_string(deployed("../docs/metrics.md")).unwrap();
    for (file, text) in [
        ("dashboard", dashboard.as_str()),
        ("rules", &read("prometheus-rules.yaml")),
        ("rule tests", &read("prometheus-rules-test.yaml")),
        ("docs", &docs),
    ] {
        for name in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("kubesolo_"))
        {
            assert!(series.contains(name), "{file}: there is no {name}");
        }
    }
    for name in &series {
        assert!(docs.contains(&format!("`{name}")), "docs/metrics.md does not have {name}");
    }
    the_rules_are_evaluated(&prometheus);
}

/// Where no clock is set, every time is that of the build or of a release: it says nothing of how old the last word is. (promtool's
/// time begins in 1970, so its tests cannot tell.)
#[apply(test)]
fn no_agent_is_called_stale_for_a_clock_that_is_not_set() {
    Trial::ready();
    need_prometheus();
    let trial = Trial::staged();
    let (state, last) = (trial.root.state().unwrap(), trial.root.state_field("updated_at"));
    let path = trial.root.path("var/lib/kubesolo/update/state.json");
    fs::write(path, state.replace(&last, "2020-06-01T00:00:00Z")).unwrap();
    let booted_at =
        |secs: u64| fs::write(trial.root.path("proc/stat"), format!("cpu  1 1 1 1\nbtime {secs}\n")).unwrap();
    booted_at(1_700_000_000);
    let machine = Served::of(&trial.root);
    let prometheus = Prometheus::scraping(&[machine.address()]);
    let rules = read("prometheus-rules.yaml");
    let rule = rules.split("- alert: KubesoloAgentStale").nth(1).and_then(|rest| rest.split("expr: |").nth(1));
    let rule = rule.and_then(|rest| rest.split("for: ").next()).expect("the rule has an expression");
    assert_eq!(prometheus.query(rule), 1);
    booted_at(100);
    assert!(wait_for(PATIENCE, || prometheus.query(rule) == 0), "it is called stale");
}

/// The rules that the real Prometheus has loaded: none fails, no text has a template error, and what must fire does.
fn the_rules_are_evaluated(prometheus: &Prometheus) {
    let pending = || prometheus.query("ALERTS{alertname=\"KubesoloRolledBack\"}") == 1;
    assert!(wait_for(PATIENCE, pending), "a rollback is no alert");
    let rules = prometheus.ask("/api/v1/rules", "type=alert").unwrap();
    assert_eq!(jq(&rules, "[.data.groups[].rules[] | select(.health != \"ok\") | .name]"), "[]");
    let alerts = prometheus.ask("/api/v1/alerts", "x=y").unwrap();
    assert!(!alerts.contains("error expanding template"), "{alerts}");
    let texts = "[.data.alerts[] | select(.labels.alertname == \"KubesoloRolledBack\") | .annotations.summary]";
    assert!(jq(&alerts, texts).contains("went back to its other slot"), "{alerts}");
}
