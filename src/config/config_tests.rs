//! Tests of the configuration.

use super::lines::URL_KEYS;
use super::*;
use crate::config::lines::{KEYS, is_hidden};

fn read(text: &str, flags: &Common) -> Result<Config> {
    validate(&Raw::parse(text)?, flags, &|p| Path::new("/root").join(p.trim_start_matches('/')))
}

fn flags() -> Common {
    Common::default()
}

fn with(flags: Flags) -> Common {
    Common { flags, ..Common::default() }
}

#[test]
fn a_whole_file() {
    let text = "# where from\nregistry = reg.example:5000/os/kubesolo # the one in the basement\n\ttag=v1\n\
        channel = edge\nsignature = off\nca_file = /etc/ca.pem\nmaintenance_window = Sat,Sun 22:00-04:00\nplain_http = no\n";
    let config = read(text, &flags()).unwrap();
    let Some(SourceSpec::Registry { reference, plain_http: PlainHttp::No, .. }) = config.source else { panic!() };
    assert_eq!(
        (reference.host(), reference.port(), reference.repository()),
        ("reg.example", Some(5000), "os/kubesolo")
    );
    assert_eq!(reference.tag(), "v1");
    assert_eq!((config.channel.as_str(), config.signature), ("edge", SignaturePolicy::Off));
    assert_eq!(config.ca_file, Some(PathBuf::from("/root/etc/ca.pem")));
    assert!(config.window.is_some());
}

#[test]
fn nothing_is_secure_and_stable() {
    let config = read("", &flags()).unwrap();
    assert!(config.source.is_none() && config.window.is_none());
    assert_eq!((config.channel.as_str(), config.signature), ("stable", SignaturePolicy::Required));
}

#[test]
fn a_typed_source_beats_the_file() {
    let typed = with(Flags { layout: Some("stick".into()), ..Flags::default() });
    for file in ["server = https://up.example/\n", "registry = r.example/os\ntag = prod\n"] {
        let config = read(file, &typed).unwrap();
        assert_eq!(
            config.source,
            Some(SourceSpec::Layout { path: "stick".into(), tag: None, is_typed: true }),
            "{file}"
        );
    }
    let typed = with(Flags { tag: Some("v9".into()), ..Flags::default() });
    let Some(SourceSpec::Registry { reference, .. }) = read("registry = r.example/os:v1\n", &typed).unwrap().source
    else {
        panic!()
    };
    assert_eq!(reference.tag(), "v9");
}

#[test]
fn a_server_may_be_a_reference() {
    for text in ["oci://r.example/os:v1", "r.example/os:v1"] {
        let config = read(&format!("server = {text}\n"), &flags()).unwrap();
        assert!(matches!(config.source, Some(SourceSpec::Registry { .. })), "{text}");
    }
    let config = read("server = HTTPS://up.example/\n", &flags()).unwrap();
    assert!(matches!(config.source, Some(SourceSpec::Http { .. })));
}

/// What people type as a server. One line is one case.
#[test]
fn a_server_that_is_none_is_told_how_one_begins() {
    let how = "(an HTTP server begins with http:// or https://)";
    for text in
        ["example.com", "example.com:8080", "localhost:5000/", "ftp://example.com/x", "htp://x", "//x", "http:/x/y"]
    {
        let typed = with(Flags { server: Some(text.into()), ..Flags::default() });
        let (typed, written) =
            (read("", &typed).unwrap_err(), read(&format!("server = {text}"), &flags()).unwrap_err());
        assert_eq!((typed.kind(), written.kind()), (Kind::Usage, Kind::Config), "{text}");
        let (typed, written) = (typed.to_string(), written.to_string());
        assert!(typed.starts_with("use --server: ") && typed.ends_with(how), "{typed}");
        assert!(written.starts_with("line 1: ") && written.ends_with(how), "{written}");
    }
    let typed = with(Flags { registry: Some("example.com".into()), ..Flags::default() });
    let said = read("", &typed).unwrap_err().to_string();
    assert!(said.starts_with("use --registry: ") && !said.contains(how), "{said}");
}

/// What is typed in addition to a file, and the error: it names the typed option, unless the line of the file is at fault.
#[test]
fn what_was_typed_wrong_is_blamed_on_the_option() {
    let text = |text: &str| Some(text.to_string());
    let pinned = format!("r.example/os@sha256:{}", "0".repeat(64));
    let source = |option: &str, value: &str, tag: Option<&str>| {
        let mut flags = Flags { tag: tag.map(str::to_owned), ..Flags::default() };
        match option {
            "server" => flags.server = text(value),
            "registry" => flags.registry = text(value),
            _ => flags.layout = (!value.is_empty()).then(|| value.into()),
        }
        with(flags)
    };
    let tag = |tag: &str| source("", "", Some(tag));
    let no_tags = ": the source is an HTTP server, which has no tags";
    for (file, flags, kind, words) in [
        ("", source("server", "http://", None), Kind::Usage, "use --server: read URL 'http://': host is missing"),
        ("", source("server", "https://a/", Some("v1")), Kind::Usage, &format!("use --tag v1{no_tags}")),
        ("server = https://a/", tag("v1"), Kind::Usage, &format!("use --tag v1{no_tags}")),
        ("", source("registry", "r.example/UP", Some("v1")), Kind::Usage, "use --registry: read OCI reference"),
        ("", source("registry", "r.example/os", Some("../x")), Kind::Usage, "use --tag ../x: tag is malformed"),
        ("registry = r.example/os", tag("-x"), Kind::Usage, "use --tag -x: tag is malformed"),
        ("", source("registry", &pinned, Some("v1")), Kind::Usage, "use --tag v1: the reference names a digest"),
        // An invalid line is not the fault of the typed tag.
        ("registry = r.example/UP", tag("v1"), Kind::Config, "line 1: read OCI reference"),
    ] {
        let e = read(file, &flags).unwrap_err();
        assert!(e.kind() == kind && e.to_string().starts_with(words), "{file} {words}: {e}");
    }
    // The file's tag is ignored if another source is typed.
    let taken = read("registry = r.example/os\ntag = -x\n", &source("registry", "r.example/os", None)).unwrap();
    assert!(matches!(taken.source, Some(SourceSpec::Registry { reference, .. }) if reference.tag() == "latest"));
    let secret = source("registry", "r.example/os", Some("https://user:SECRET@a/"));
    assert!(!read("", &secret).unwrap_err().to_string().contains("SECRET"));
}

#[test]
fn a_layout_in_the_file_lies_below_the_root() {
    let config = read("layout = /mnt/stick\n", &flags()).unwrap();
    assert_eq!(config.source, Some(SourceSpec::Layout { path: "/root/mnt/stick".into(), tag: None, is_typed: false }));
}

/// What editors, shells and word processors make of a line, and the error, or nothing if it is accepted. One line is one case.
#[test]
fn what_an_editor_adds_is_read_or_named() {
    for (text, says) in [
        ("\u{feff}channel = edge\n", ""),
        ("\u{feff}# a comment\nchannel = edge\n", ""),
        ("channel = edge\r\n", ""),
        ("channel\u{a0}=\u{a0}edge\u{a0}\n", ""),
        ("channel\t=\tedge\t# a comment\n", ""),
        ("# \u{feff}\u{200b}\nchannel = edge # \u{200b}\n", ""),
        ("signature = off\n\u{feff}channel = edge\n", "line 2: it holds U+FEFF"),
        ("channel = edge\u{200b}\n", "line 1: it holds U+200B"),
        ("\u{200b}channel = edge\n", "line 1: it holds U+200B"),
        ("chan\u{ad}nel = edge\n", "line 1: it holds U+00AD"),
        ("channel = \u{202e}edge\n", "line 1: it holds U+202E"),
        ("channel = ed\0ge\n", "line 1: it holds U+0000"),
        ("channel = edge\rsignature = off\n", "line 1: it holds U+000D"),
        ("channel = \u{1b}[1medge\n", "line 1: it holds U+001B"),
        ("channel = \"edge\"\n", "line 1: `channel` has quotation marks"),
        ("channel = 'edge'\n", "line 1: `channel` has quotation marks"),
        ("channel = \"edge\" # a comment\n", "line 1: `channel` has quotation marks"),
        ("channel = \"edge\n", "line 1: `channel` has quotation marks"),
        ("channel = `edge`\n", "line 1: `channel` has quotation marks"),
        ("channel = \u{201c}edge\u{201d}\n", "line 1: `channel` has quotation marks"),
        ("channel = \u{201e}edge\u{201c}\n", "line 1: `channel` has quotation marks"),
        ("server = \"https://user:SECRET@up.example/\"\n", "line 1: `server` has quotation marks"),
        ("channel = \"\"\n", "line 1: `channel` has quotation marks"),
    ] {
        match (read(text, &flags()), says) {
            (Ok(config), "") => assert_eq!(config.channel, "edge", "{text:?}"),
            (Err(e), _) if !says.is_empty() => {
                let said = e.to_string();
                assert!(e.exit_code() == 2 && said.contains(says) && !said.contains("SECRET"), "{text:?}: {said}");
                assert!(!said.contains(is_hidden), "{said:?}");
            }
            (other, _) => panic!("{text:?}: {other:?}"),
        }
    }
}

/// A slip: a URL with a secret in it, where a path or a word belongs.
#[test]
fn a_url_where_none_belongs_is_named_without_its_secret() {
    let urls = [
        "https://user:SECRET@up.example/os",
        "http://SECRET@up.example/",
        "oci://user:SECRET@up.example/os:v1",
        "https://up.example/os?token=SECRET",
        "https://up.example/os?a=b@c&token=SECRET",
        "https://user:SEC?RET=SECRET@up.example/",
        "user:SECRET@up.example/os",
    ];
    for key in KEYS.iter().filter(|key| !URL_KEYS.contains(key)) {
        for url in urls {
            let e = read(&format!("{key} = {url}\n"), &flags()).unwrap_err();
            let said = e.to_string();
            assert!(e.exit_code() == 2 && !said.contains("SECRET"), "{key} = {url}: {said}");
            assert!(said.starts_with(&format!("line 1: `{key}` takes no URL")), "{key} = {url}: {said}");
        }
    }
    for (key, value) in
        [("containerd_socket", "unix:///run/containerd/containerd.sock"), ("layout", "file:///media/usb")]
    {
        let said = read(&format!("{key} = {value}\n"), &flags()).unwrap_err().to_string();
        assert!(said.contains(value) && said.contains("a path is written as /dir/file"), "{said}");
    }
    for layout in ["/media/usb@2/os", "/media/a:b@c/os", "media/os@home", "/media/os:v1"] {
        assert!(read(&format!("layout = {layout}\n"), &flags()).is_ok(), "{layout}");
    }
}

/// It is read when the server is asked: a trial boot is not to fail for it.
#[test]
fn a_malformed_url_of_the_file_is_no_fault_of_the_file() {
    assert!(read("server = https://:x/\n", &flags()).unwrap().source.is_some());
}

#[test]
fn bad_lines_are_named() {
    for (text, line, word) in [
        ("chanel = edge\n", "line 1", "chanel"),
        ("\n\nchannel edge\n", "line 3", "key = value"),
        ("channel = edge\nchannel = edge\n", "line 2", "line 1"),
        ("server =\n", "line 1", "no value"),
        ("server = https://a/\n# x\nregistry = r.example/os\n", "line 3", "cannot be used together"),
        ("signature = false\n", "line 1", "required, off"),
        ("plain_http = true\n", "line 1", "auto, yes, no"),
        ("maintenance_window = always\n", "line 1", "02:00-05:00"),
        ("channel = two words\n", "line 1", "blanks"),
        ("registry = r.example/UPPER\n", "line 1", "UPPER"),
        ("server = https://a/\ntag = v1\n", "line 2", "has no tags"),
        ("registry = r.example/os\n\ntag = -x\n", "line 3", "tag is malformed"),
    ] {
        let e = read(text, &flags()).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{e}");
        assert!(e.to_string().contains(line) && e.to_string().contains(word), "{text}: {e}");
    }
}

#[test]
fn two_typed_sources_are_a_usage_error() {
    let typed = with(Flags { server: Some("https://a/".into()), layout: Some("x".into()), ..Flags::default() });
    assert_eq!(read("", &typed).unwrap_err().kind(), Kind::Usage);
    let typed = with(Flags { registry: Some("https://a/".into()), ..Flags::default() });
    assert_eq!(read("", &typed).unwrap_err().exit_code(), 2);
}

#[test]
fn a_missing_default_file_is_fine_and_a_missing_named_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::new(dir.path());
    assert!(load(&system, &flags()).is_ok());
    let named = with(Flags { config: Some(dir.path().join("x.conf")), ..Flags::default() });
    assert_eq!(load(&system, &named).unwrap_err().exit_code(), 2);
    std::fs::write(dir.path().join("x.conf"), vec![b'#'; 70_000]).unwrap();
    assert_eq!(load(&system, &named).unwrap_err().exit_code(), 2);
}

#[test]
fn a_broken_file_does_not_keep_the_commands_for_damaged_machines_from_working() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::new(dir.path());
    std::fs::create_dir_all(dir.path().join("etc/kubesolo")).unwrap();
    std::fs::write(system.config_file(), "chanel = edge\n").unwrap();
    assert!(load(&system, &flags()).is_err());
    let moved = with(Flags { state: Some("s.json".into()), ..Flags::default() });
    let config = load_leniently(&system, &moved).unwrap();
    assert_eq!((config.channel.as_str(), config.state_file), ("stable", moved.flags.state));
    assert!(config.fault.unwrap().to_string().contains("unknown key `chanel`"));
    let typed = with(Flags { server: Some("https://a/".into()), layout: Some("x".into()), ..Flags::default() });
    assert_eq!(load_leniently(&system, &typed).unwrap_err().kind(), Kind::Usage);
    std::fs::write(system.config_file(), "").unwrap();
    assert_eq!(load_leniently(&system, &typed).unwrap_err().kind(), Kind::Usage);
    assert_eq!(load_leniently(&system, &flags()).unwrap().fault, None);
}

#[test]
fn how_long_and_how_often() {
    let config = read("retries = 0\nstall_timeout = 90\ndownload_timeout = 7200\n", &flags()).unwrap();
    assert_eq!(config.retries, Some(0));
    assert_eq!(config.stall_timeout, Some(Duration::from_secs(90)));
    assert_eq!(config.download_timeout, Some(Duration::from_secs(7200)));
    let unset = read("", &flags()).unwrap();
    assert_eq!((unset.retries, unset.stall_timeout, unset.download_timeout), (None, None, None));
    for (line, words) in [
        ("retries = 101", "not between 0 and 100"),
        ("retries = -1", "not between"),
        ("stall_timeout = 0", "not between 1 and 604800"),
        ("stall_timeout = 5s", "not between"),
        ("download_timeout = 604801", "not between"),
    ] {
        let e = read(&format!("channel = edge\n{line}\n"), &flags()).unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains(words) && e.to_string().contains("line 2"), "{e}");
    }
}

#[test]
fn a_wrong_mirror_is_named_by_its_line_and_without_its_secrets() {
    for mirror in
        ["https://user:hunter2@m.example/x?sig=hunter2", "ftp://m.example/x?sig=hunter2", "https://:hunter2@/"]
    {
        let text = format!("server = https://s.example/os\nmirror = https://good.example/os\nmirror = {mirror}\n");
        let e = read(&text, &flags()).unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains("line 3"), "{e}");
        assert!(!e.to_string().contains("hunter2"), "{e}");
    }
}

#[test]
fn no_line_shows_a_secret() {
    for line in [
        "mirror https://user:hunter2@m.example/x",
        "mirror https://m.example/x?sig=hunter2",
        "mirror https://user:hunter2=hunter2@m.example/x",
        "https://m.example/x?hunter2=hunter2",
        "https://user:hunter2=@m.example",
        "mirrors = https://user:hunter2@m.example/?sig=hunter2",
        "server = ftp://user:hunter2@m.example/?sig=hunter2",
        "server = oci://user:hunter2@m.example/os",
        "registry = https://user:hunter2@m.example/os?sig=hunter2",
        "registry = user:hunter2@m.example/os:v1",
    ] {
        let e = read(&format!("channel = edge\n{line}\n"), &flags()).unwrap_err().to_string();
        assert!(e.contains("line 2") && !e.contains("hunter2"), "{line}: {e}");
    }
    let e = read("registry = r.example/os\nmirror = m.example\nmirror = u:hunter2@m.example\n", &flags()).unwrap_err();
    assert!(e.to_string().contains("line 3") && !e.to_string().contains("hunter2"), "{e}");
}
