//! One round of checks: containerd, the API server, the node, then the site's own.
//!
//! Must never: run a check that builds on one that failed.

use super::apiserver::ApiServer;
use super::workloads::Workload;
use super::{Ending, Outcome, Round, containerd, executables};
use crate::base::error::{Error, Result};
use crate::health::watchdog::LONGEST_STEP;
use crate::os::files::read_bounded;
use crate::os::progress::detail;
use crate::os::system::System;
use std::cell::{Ref, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest host name that is read, in bytes; the kernel's own limit is 64.
const HOST_MAX_BYTES: u64 = 256;

/// What to check on this machine, besides the site's executables.
pub struct Subjects {
    /// containerd's socket; `None`: there is none.
    pub containerd: Option<PathBuf>,
    /// How the API server is reached; `None`: there is none.
    pub kubeconfig: Option<PathBuf>,
    /// Deployments that must be available.
    pub workloads: Vec<Workload>,
    /// This boot's id, which identifies this machine's node.
    pub boot_id: Option<String>,
    /// Why these could not be read.
    pub fault: Option<Error>,
}

/// What is checked, and how long each check may take.
pub struct Plan<'a> {
    system: &'a System,
    subjects: Subjects,
    limit: Duration,
    running: RefCell<String>,
}

impl<'a> Plan<'a> {
    /// Makes a plan. Input: `limit`: for each check.
    pub fn new(system: &'a System, subjects: Subjects, limit: Duration) -> Plan<'a> {
        Plan { system, subjects, limit, running: RefCell::default() }
    }

    /// Returns the name of the running check, or of the last one.
    pub fn running(&self) -> Ref<'_, String> {
        self.running.borrow()
    }

    /// Runs every check once. Checks after a failed required one are not run, since they build on it.
    /// Input: `alive`: called at least every [`LONGEST_STEP`].
    /// Errors: Config: the checks cannot be listed, or the agent's configuration cannot be read: a system that could
    /// never be updated again is not healthy.
    pub fn run(&self, alive: &mut dyn FnMut()) -> Result<Round> {
        let Subjects { containerd, kubeconfig, workloads, boot_id, fault } = &self.subjects;
        if let Some(fault) = fault {
            return Err(fault.clone());
        }
        let mut run = Run { round: Round::default(), broken: false, alive, running: &self.running };
        // `alive` cannot be called during these checks, so they get a shorter limit.
        let limit = self.limit.min(LONGEST_STEP / 2);
        if let Some(socket) = containerd {
            run.check("containerd", true, &mut |_| containerd::check(socket, limit));
        }
        if let Some(kubeconfig) = kubeconfig {
            let mut server = None;
            run.check("apiserver", true, &mut |_| {
                server.insert(ApiServer::open(self.system, kubeconfig, limit)?).ready()
            });
            run.check("node", true, &mut |_| match &server {
                Some(server) => server.node(&host(self.system), boot_id.as_deref()),
                None => Ok(String::new()),
            });
            if !workloads.is_empty() {
                run.check("workloads", true, &mut |_| match &server {
                    Some(server) => server.workloads(workloads),
                    None => Ok(String::new()),
                });
            }
        }
        let dir = self.system.health_dir();
        for (dir, is_required) in [(dir.clone(), true), (dir.join("required"), true), (dir.join("wanted"), false)] {
            let listed = match executables::list(&dir) {
                Err(e) if !is_required => {
                    // A check that only warns must not cost a trial boot.
                    run.check("wanted", false, &mut |_| Err(e.clone()));
                    continue;
                }
                listed => listed?,
            };
            for path in listed {
                run.check(&executables::name(&path), is_required, &mut |alive| {
                    executables::run(&path, self.limit, alive)
                });
            }
        }
        Ok(run.round)
    }
}

struct Run<'a> {
    round: Round,
    broken: bool,
    alive: &'a mut dyn FnMut(),
    running: &'a RefCell<String>,
}

impl Run<'_> {
    fn check(&mut self, name: &str, is_required: bool, run: &mut dyn FnMut(&mut dyn FnMut()) -> Result<String>) {
        if self.broken {
            (self.alive)();
            let outcome = Outcome::new(name, is_required, Ok(String::new()), 0);
            self.round.0.push(Outcome { ending: Ending::NotRun, ..outcome });
            return;
        }
        name.clone_into(&mut self.running.borrow_mut());
        (self.alive)();
        let start = Instant::now();
        let ended = run(self.alive);
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        detail(&|| match &ended {
            Ok(said) => format!("{name}: ok, {millis} ms {said}"),
            Err(e) => format!("{name}: failed, {millis} ms: {e}"),
        });
        self.broken = is_required && ended.is_err();
        self.round.0.push(Outcome::new(name, is_required, ended, millis));
    }
}

fn host(system: &System) -> String {
    let bytes = read_bounded(&system.host_name(), HOST_MAX_BYTES).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
