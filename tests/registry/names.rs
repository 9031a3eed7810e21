//! Names that have to be looked up, in a network and with a name server of the test's own.

use crate::support::disk::need_disks;
use crate::support::machine::Machine;
use crate::support::name_server::NameServer;
use crate::support::net::Net;
use crate::support::pull::{assert_staged, configure, published};
use crate::support::registry::{Registry, Settings};
use crate::support::root::Run;
use crate::support::run;
use crate::support::{PYTHON, need_all};
use std::time::{Duration, Instant};

/// The resolver's own limit: 30 s for each of five questions.
const SLOW: &str = "timeout:30 attempts:5";
const QUICK: &str = "timeout:1 attempts:1";
/// Far below the resolver's limit; far above what is configured, for a busy machine.
const LATE: Duration = Duration::from_secs(20);

fn ready() {
    need_disks();
    need_all(&["ip", "nsenter", "unshare", PYTHON]);
}

fn agent(machine: &Machine, net: &Net, names: &NameServer, variables: &[(&str, &str)]) -> Run {
    let mut command = machine.root.command_under(names.wrapper(net), &["check"]);
    command.envs(variables.iter().copied()).output().unwrap().into()
}

#[apply(test)]
fn a_silent_name_server_costs_no_more_than_a_connection() {
    ready();
    let (net, machine, dir) = (Net::new(), Machine::new(), tempfile::tempdir().unwrap());
    let names = NameServer::start(&net, dir.path(), "silent", SLOW);
    let said = "no answer from the name server for 1 s";
    let proxy = [("HTTPS_PROXY", "http://proxy.example:3128")];
    for (source, variables, words) in [
        ("server = https://r.example\nretries = 0", &[][..], said),
        ("registry = r.example/os:v1\nretries = 0", &[], said),
        ("server = https://r.example.\nretries = 0", &[], said),
        ("server = https://192.0.2.1\nretries = 0", &proxy, said),
        ("server = https://r.example\nmirror = https://s.example\nretries = 0", &[], said),
        ("server = https://127.0.0.1:1\nmirror = https://s.example\nretries = 0", &[], "trying s.example"),
        // Tried again as long as there is time, and no longer: the whole counts.
        ("server = https://r.example\nretries = 100\ndownload_timeout = 3", &[], "name server"),
    ] {
        configure(&machine, &format!("{source}\nstall_timeout = 1\n"), None);
        let start = Instant::now();
        agent(&machine, &net, &names, variables).expect(6, &[words]);
        assert!(start.elapsed() < LATE, "{source}: {:?}", start.elapsed());
    }
    assert!(names.queries().contains("r.example") && names.queries().contains("proxy.example"), "{}", names.queries());
}

#[apply(test)]
fn a_name_that_leads_nowhere_is_told_from_a_name_server_that_does_not_answer() {
    ready();
    let (net, machine) = (Net::new(), Machine::new());
    configure(&machine, "server = https://r.example\nretries = 0\nstall_timeout = 5\n", None);
    for (how, words) in [
        ("code 3", "no such name"),
        ("code 0", "no address"),
        ("code 2", "no answer from the name server"),
        ("silent", "no answer from the name server"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let names = NameServer::start(&net, dir.path(), how, QUICK);
        let said = agent(&machine, &net, &names, &[]).expect(6, &[words]);
        assert_eq!(said.stderr.contains("no such name"), how == "code 3", "{how}: {}", said.stderr);
        assert!(names.queries().contains("r.example 1\n"), "{how}: {}", names.queries());
    }
}

/// Whoever answers for `localhost` would get plain HTTP and the password in it.
#[apply(test)]
fn localhost_is_this_machine_and_nobody_is_asked() {
    ready();
    need_all(&["docker-registry", "oras"]);
    let (dir, _, _) = published();
    let mut net = Net::new();
    run(net.command("ip").args(["address", "add", "10.1.2.3/32", "dev", "lo"]));
    let names = NameServer::start(&net, dir.path(), "10.1.2.3", QUICK);
    net.address = "127.0.0.1";
    let registry = Registry::start_with(dir.path(), &Settings { inside: Some(&net), ..Settings::default() });
    let machine = Machine::new();
    for host in ["localhost", "LocalHost", "a.localhost", "x.y.localhost"] {
        for rule in ["", "plain_http = yes"] {
            configure(&machine, &format!("registry = {host}:{}/os:v1\nretries = 0\n{rule}\n", registry.port), None);
            agent(&machine, &net, &names, &[]).expect(0, &["2.0.0"]);
        }
    }
    for host in ["localhost.", "a.localhost."] {
        configure(&machine, &format!("server = http://{host}:{}/x\nretries = 0\n", registry.port), None);
        // There is no latest.json: it was this machine that said so.
        agent(&machine, &net, &names, &[]).expect(6, &["404"]);
    }
    assert_eq!(names.queries(), "", "somebody was asked");
    // Other names are asked for, and are not this machine: no plain HTTP to them.
    for host in ["localhost.example", "notlocalhost"] {
        configure(&machine, &format!("server = http://{host}:{}/x\nretries = 0\n", registry.port), None);
        agent(&machine, &net, &names, &[]).expect(2, &["plain HTTP is not allowed"]);
        configure(&machine, &format!("server = https://{host}:{}/x\nretries = 0\n", registry.port), None);
        agent(&machine, &net, &names, &[]);
        assert!(names.queries().contains(&format!("{host} 1\n")), "{}", names.queries());
    }
}

/// Kernels before 5.2 mount by way of another mount namespace, which nobody may enter whose directories somebody shares: a
/// look-up that was given up on still runs then.
#[apply(test)]
fn a_look_up_that_was_given_up_on_is_in_nobodys_way() {
    ready();
    need_all(&["docker-registry", "oras", "strace"]);
    let (dir, release, _) = published();
    let mut net = Net::new();
    let names = NameServer::start(&net, dir.path(), "silent", SLOW);
    net.address = "127.0.0.1";
    let registry = Registry::start_with(dir.path(), &Settings { inside: Some(&net), ..Settings::default() });
    let source = format!("registry = r.example/os:v1\nmirror = {}/os\n", registry.host());
    let machine = Machine::new();
    configure(&machine, &format!("{source}retries = 0\nstall_timeout = 1\n"), None);
    let mut wrapper = names.wrapper(&net);
    wrapper.args(["strace", "-f", "-o", "/dev/null", "-e", "trace=fsopen", "-e", "inject=fsopen:error=ENOSYS"]);
    let run: Run = machine.root.command_under(wrapper, &["apply"]).output().unwrap().into();
    run.expect(0, &["no answer from the name server", "2.0.0 is staged"]);
    assert_staged(&machine, &release);
}
