use super::*;

/// Output of `kubectl get --raw /api/v1/nodes`, shortened.
const LIST: &str = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"512","name":"not this"},"items":[{"metadata":
{"name":"edge-7","uid":"6d0c","labels":{"kubernetes.io/arch":"amd64","name":"nor this"},"managedFields":[{"manager":"kubelet","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{}}}}}}]},
"spec":{"podCIDR":"10.42.0.0/24","unschedulable":false,"taints":null},"status":{"capacity":{"cpu":"4","memory":"8052428Ki"},
"conditions":[{"type":"MemoryPressure","status":"False","reason":"KubeletHasSufficientMemory","message":"x"},
{"type":"Ready","status":"True","lastHeartbeatTime":"2026-11-23T10:00:00Z","reason":"KubeletReady","message":"kubelet is posting ready status","new":[1,-2.5e3,true,{}]},
{"type":"ReadyForNothing","status":"False"}],
"nodeInfo":{"machineID":"3a","bootID":"11111111-2222-3333-4444-555555555555","kubeletVersion":"v1.33.1","name":"x"},
"images":[{"names":["a\u00e9\n","\ud83d\ude00"],"sizeBytes":1}]}}]}"#;

fn read(text: &str, piece: usize) -> Result<Vec<Node>> {
    let mut list = NodeList::default();
    for bytes in text.as_bytes().chunks(piece) {
        list.feed(bytes)?;
    }
    list.finish()
}

#[test]
fn reads_the_same_in_pieces_of_any_length() {
    let whole = read(LIST, LIST.len()).unwrap();
    assert_eq!(whole.len(), 1);
    let node = &whole[0];
    assert_eq!((node.name.as_str(), node.ready.as_str(), node.reason.as_str()), ("edge-7", "True", "KubeletReady"));
    assert_eq!((node.kubelet_version.as_str(), &node.boot_id[..8]), ("v1.33.1", "11111111"));
    for piece in 1..40 {
        assert_eq!(read(LIST, piece).unwrap(), whole);
    }
}

#[test]
fn what_is_cut_or_changed_is_refused_or_read_and_never_a_panic() {
    for end in 0..LIST.len() {
        assert!(read(&LIST[..end].chars().filter(|c| c.is_ascii()).collect::<String>(), 64).is_err(), "{end}");
    }
    for (old, new) in [("[{", "[["), ("}]}", "}}}"), ("\"kind\":", "\"kind\""), ("}]}", "}]},"), ("\\u00e9", "\\u00x9")]
    {
        assert!(read(&LIST.replacen(old, new, 1), 7).is_err(), "{old}");
    }
    assert!(read(&format!("{LIST} {{"), 9).is_err() && read("\"a\nb\"", 9).is_err());
    let other = read(&LIST.replacen("NodeList", "Status", 1), 100).unwrap_err();
    assert!(other.to_string().contains("not a list of nodes"));
    assert!(read(&"[".repeat(100), 10).unwrap_err().to_string().contains("too deeply"));
}

#[test]
fn memory_does_not_grow_with_the_list() {
    let node =
        r#"{"metadata":{"name":"n"},"status":{"conditions":[{"type":"Ready","status":"True","message":"MM"}]}},"#;
    let mut list = NodeList::default();
    list.feed(br#"{"kind":"NodeList","items":["#).unwrap();
    for _ in 1..MAX_NODES {
        list.feed(node.replace("MM", &"m".repeat(2000)).as_bytes()).unwrap();
    }
    list.feed(b"{\"images\":[").unwrap();
    for _ in 0..100_000 {
        list.feed(br#"{"names":["a","b"]},"#).unwrap();
    }
    list.feed(b"{}]}]}").unwrap();
    assert!(list.text.capacity() <= 2 * MAX_TEXT && list.path.capacity() <= 2 * MAX_DEPTH);
    let nodes = list.finish().unwrap();
    assert!(nodes.len() == MAX_NODES && nodes.iter().all(|n| n.message.len() <= MAX_TEXT));
}

/// Regression: a node beyond the limit overwrote the last one kept: ours, which was not ready, then seemed ready.
#[test]
fn no_node_is_left_out() {
    let node = |name: &str, ready: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
        )
    };
    for count in [1, 2, 15, 16, 17, MAX_NODES - 1, MAX_NODES, MAX_NODES + 1, 1000] {
        for ours in [0, 14, 15, count - 1].into_iter().filter(|at| *at < count) {
            let one = |at| if at == ours { node("edge-7", "False") } else { node("other", "True") };
            let items = (0..count).map(one).collect::<Vec<_>>().join(",");
            let judged = read(&format!(r#"{{"kind":"NodeList","items":[{items}]}}"#), 999)
                .and_then(|nodes| judge(&nodes, "edge-7", None));
            let why = judged.unwrap_err().to_string();
            let word = if count > MAX_NODES { "more than 64 nodes" } else { "edge-7 is not ready" };
            assert!(why.contains(word), "{ours} of {count}: {why}");
        }
    }
}

/// The same table is checked against a real API server: tests/kubernetes/node_lists.rs.
const TABLE: &str = include_str!("../../tests/fixtures/node-lists.tsv");
const THIS: &str = "11111111-2222-3333-4444-555555555555";

/// Parses nodes from `NAME READY BOOT, ...`.
fn nodes(text: &str) -> Vec<Node> {
    let node = |words: &str| {
        let [name, ready, boot] = words.split(' ').collect::<Vec<_>>().try_into().expect(words);
        let boot_id = match boot {
            "this" => THIS,
            "other" => "99999999-2222-3333-4444-555555555555",
            _ => "",
        };
        let ready = if ready == "-" { "" } else { ready };
        let (name, ready, boot_id) = (name.into(), ready.into(), boot_id.into());
        Node { name, ready, boot_id, kubelet_version: "v1.33.1".into(), ..Node::default() }
    };
    text.split(", ").filter(|words| !words.is_empty()).map(node).collect()
}

#[test]
fn the_node_of_this_boot_decides() {
    let mut cases = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [host, list, is, words] = line.split('\t').collect::<Vec<_>>().try_into().expect(line);
        let (judged, healthy) = (judge(&nodes(list), host, Some(THIS)), is == "healthy");
        assert_eq!(judged.is_ok(), healthy, "{line}: {judged:?}");
        let said = judged.unwrap_or_else(|e| e.to_string());
        assert!(said.contains(words), "{line}: {said}");
        cases += 1;
    }
    assert!(cases > 20, "{cases}");
}

#[test]
fn where_this_boots_id_is_not_known_names_decide() {
    let judged = |list: &str, host: &str| judge(&nodes(list), host, None).map_err(|e| e.to_string());
    assert_eq!(judged("edge-7 True this", "EDGE-7").unwrap(), "edge-7 is ready, v1.33.1");
    assert!(judged("edge-7 True other, pump-17 Unknown this", "edge-7").is_ok());
    assert!(judged("edge-7 True other, pump-17 Unknown this", "third").unwrap_err().contains("pump-17"));
}

#[test]
fn why_a_node_is_not_ready_is_told_with_the_kubelets_words() {
    let boot = Some(THIS);
    let judged = |text: &str| judge(&read(text, 1000).unwrap(), "edge-7", boot);
    assert_eq!(judged(LIST).unwrap(), "edge-7 is ready, v1.33.1");
    let not_ready = LIST.replacen("\"status\":\"True\"", "\"status\":\"False\"", 1);
    let said = |text: &str, word: &str| {
        let error = judged(text).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    };
    said(&not_ready, "Ready is False, KubeletReady, kubelet is posting");
    said(&LIST.replacen("\"Ready\"", "\"Steady\"", 1), "not known yet");
    said(r#"{"kind":"NodeList","items":[]}"#, "no node has registered");
}
