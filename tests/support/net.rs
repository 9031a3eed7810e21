//! A network of the test's own, which nobody else is on: an address that is not loopback, and no way out.

use super::registry::Guard;
use super::{command, run};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A network namespace; it goes when the test ends.
pub struct Net {
    /// Where everything in it listens. Source: RFC 5737.
    pub address: &'static str,
    holder: Guard,
}

impl Net {
    pub fn new() -> Net {
        let mut hold = command("unshare");
        hold.args(["--net", "sh", "-c", "echo ready; read -r end"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Guard(hold.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let net = Net { address: "192.0.2.1", holder };
        run(net.command("ip").args(["link", "set", "lo", "up"]));
        run(net.command("ip").args(["address", "add", "192.0.2.1/24", "dev", "lo"]));
        net
    }

    /// What runs a program in this network: its name and arguments follow.
    pub fn wrapper(&self) -> Command {
        let mut enter = command("nsenter");
        enter.arg(format!("--net=/proc/{}/ns/net", self.holder.0.id()));
        enter
    }

    /// A command of a program in this network.
    pub fn command(&self, program: &str) -> Command {
        let mut enter = self.wrapper();
        enter.arg(super::find(program).unwrap_or_else(|| panic!("{program} is not installed")));
        enter
    }
}
