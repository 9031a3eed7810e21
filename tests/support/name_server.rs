//! A name server in a network of its own, which answers as it is told, and a command whose resolver knows it alone.
//!
//! What is tested is the C library's resolver and what the agent makes of it; no name server of the field can be made to
//! be silent, or to lie, by its configuration.

use super::PYTHON;
use super::net::Net;
use super::registry::Guard;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

/// Source: RFC 1035, section 4.1.
const PROGRAM: &str = r#"
import socket, struct, sys
address, log, how = sys.argv[1:]
served = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
served.bind((address, 53))
print("ready", flush=True)
while True:
    query, peer = served.recvfrom(512)
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    with open(log, "a") as out:
        print(".".join(labels), kind, file=out)
    if how == "silent":
        continue
    code = int(how.removeprefix("code ")) if how.startswith("code ") else 0
    answer = b""
    if how[0].isdigit() and kind == 1:
        answer = struct.pack(">HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton(how)
    head = query[:2] + struct.pack(">5H", 0x8180 | code, 1, 1 if answer else 0, 0, 0)
    served.sendto(head + query[12:at + 5] + answer, peer)
"#;

/// It ends with the test.
pub struct NameServer {
    queries: PathBuf,
    resolv_conf: PathBuf,
    _child: Guard,
    _said: BufReader<ChildStdout>,
}

impl NameServer {
    /// Starts one. Input: `how`: `silent`; `code N`, as in RFC 1035; an address for every name; `options`: for the resolver.
    pub fn start(net: &Net, dir: &Path, how: &str, options: &str) -> NameServer {
        let at = "127.0.0.53";
        let (queries, resolv_conf) = (dir.join("queries"), dir.join("resolv.conf"));
        fs::write(&queries, "").unwrap();
        fs::write(&resolv_conf, format!("nameserver {at}\noptions {options}\n")).unwrap();
        let mut serve = net.wrapper();
        serve.args([PYTHON, "-c", PROGRAM, at]).arg(&queries).arg(how).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Guard(serve.spawn().unwrap());
        let (mut said, mut line) = (BufReader::new(child.0.stdout.take().unwrap()), String::new());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        NameServer { queries, resolv_conf, _child: child, _said: said }
    }

    /// What runs a program in this network, where this server alone knows names: its name and arguments follow.
    pub fn wrapper(&self, net: &Net) -> Command {
        let mut enter = net.wrapper();
        let own = "mount --bind \"$1\" /etc/resolv.conf && mount --bind /dev/null /etc/hosts && shift && exec \"$@\"";
        enter.args(["unshare", "--mount", "sh", "-c", own, "sh"]).arg(&self.resolv_conf);
        enter
    }

    /// Names and types that it was asked for.
    pub fn queries(&self) -> String {
        fs::read_to_string(&self.queries).unwrap()
    }
}
