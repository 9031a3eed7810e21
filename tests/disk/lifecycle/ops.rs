//! What can happen to a machine: one line of text each, so that a failing sequence can be printed and run again.

use proptest::prelude::*;
use std::fmt;

/// A thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Apply,
    Check,
    Status,
    Verify,
    Repair,
    Activate,
    Rollback,
    HealthPass,
    HealthFail,
    /// GRUB decides.
    Restart,
    /// GRUB decides, and cannot load the slot that it tries first.
    RestartSkipping,
    /// GRUB decides, and cannot write; with `which=1` it cannot load the slot that it tries first, either.
    RestartUncounted,
    /// A person chooses the slot that is not active in GRUB's menu.
    RestartByHand,
    /// `state.json` gets cut short, or becomes garbage, or goes.
    SpoilState,
    /// A bit flips in the slot that does not run.
    SpoilSlot,
    /// One copy of the boot variables is damaged.
    SpoilBlock,
}

pub const VERBS: [(Verb, &str); 16] = [
    (Verb::Apply, "apply"),
    (Verb::Check, "check"),
    (Verb::Status, "status"),
    (Verb::Verify, "verify"),
    (Verb::Repair, "repair"),
    (Verb::Activate, "activate"),
    (Verb::Rollback, "rollback"),
    (Verb::HealthPass, "health-pass"),
    (Verb::HealthFail, "health-fail"),
    (Verb::Restart, "restart"),
    (Verb::RestartSkipping, "restart-skipping"),
    (Verb::RestartUncounted, "restart-uncounted"),
    (Verb::RestartByHand, "restart-by-hand"),
    (Verb::SpoilState, "spoil-state"),
    (Verb::SpoilSlot, "spoil-slot"),
    (Verb::SpoilBlock, "spoil-block"),
];

/// So many releases, from the first on, are good and newer than what a machine begins with.
const GOOD: usize = 3;

/// The system calls at which a command can be killed.
pub const CALLS: [&str; 9] =
    ["fsync", "rename", "pwrite64", "write", "fsconfig", "fsmount", "unlink", "openat", "exit_group"];

/// What goes wrong while a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// `kill -9` before the system call of [`CALLS`] is made for the so-many-th time.
    Kill(usize, u16),
    /// The data partition takes nothing.
    Unwritable,
}

/// One operation. Fields that the verb has no use for are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    pub verb: Verb,
    /// Which release, or which kind of damage.
    pub which: usize,
    pub activate: bool,
    pub retry: bool,
    pub downgrade: bool,
    pub fault: Fault,
}

impl Op {
    pub fn new(verb: Verb) -> Op {
        Op { verb, which: 0, activate: false, retry: false, downgrade: false, fault: Fault::None }
    }

    pub fn with(self, which: usize) -> Op {
        Op { which, ..self }
    }

    /// Says whether the agent may change something.
    pub fn is_change(self) -> bool {
        use Verb::*;
        matches!(self.verb, Apply | Activate | Rollback | HealthPass | HealthFail)
    }

    /// Says whether the agent only looks.
    pub fn is_look(self) -> bool {
        matches!(self.verb, Verb::Check | Verb::Status | Verb::Verify)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Op {
        let mut words = text.split_whitespace();
        let name = words.next().expect("an operation has a name");
        let (verb, _) = VERBS.iter().find(|(_, n)| *n == name).unwrap_or_else(|| panic!("no operation `{name}`"));
        let mut op = Op::new(*verb);
        for word in words {
            match word.split_once('=') {
                None if word == "activate" => op.activate = true,
                None if word == "retry" => op.retry = true,
                None if word == "downgrade" => op.downgrade = true,
                None if word == "unwritable" => op.fault = Fault::Unwritable,
                Some(("which", n)) => op.which = n.parse().unwrap(),
                Some(("kill", place)) => {
                    let (call, when) = place.split_once(':').expect("kill=CALL:NUMBER");
                    let call = CALLS.iter().position(|c| *c == call).expect("a known call");
                    op.fault = Fault::Kill(call, when.parse().unwrap());
                }
                _ => panic!("`{word}` in `{text}`"),
            }
        }
        op
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = VERBS.iter().find(|(verb, _)| *verb == self.verb).unwrap().1;
        write!(f, "{name}")?;
        if self.which > 0 {
            write!(f, " which={}", self.which)?;
        }
        for (word, is_set) in [("activate", self.activate), ("retry", self.retry), ("downgrade", self.downgrade)] {
            if is_set {
                write!(f, " {word}")?;
            }
        }
        match self.fault {
            Fault::None => Ok(()),
            Fault::Kill(call, when) => write!(f, " kill={}:{when}", CALLS[call]),
            Fault::Unwritable => write!(f, " unwritable"),
        }
    }
}

/// A sequence as one line.
pub fn script(ops: &[Op]) -> String {
    ops.iter().map(Op::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads such a line.
pub fn parse_script(text: &str) -> Vec<Op> {
    text.split(';').filter(|part| !part.trim().is_empty()).map(Op::parse).collect()
}

fn fault() -> impl Strategy<Value = Fault> {
    let call = prop_oneof![4 => 0..3usize, 1 => 3..CALLS.len()];
    let when = prop_oneof![3 => 1u16..=3, 2 => 1u16..=20];
    let kill = (call, when).prop_map(|(call, when)| {
        // Some calls are made once or a few times: a kill at the twentieth would hit nothing.
        let most = match CALLS[call] {
            "exit_group" => 1,
            "fsmount" | "pwrite64" => 4,
            "rename" | "unlink" => 8,
            _ => 20,
        };
        Fault::Kill(call, (when - 1) % most + 1)
    });
    prop_oneof![8 => Just(Fault::None), 4 => kill, 1 => Just(Fault::Unwritable)]
}

/// Which release: the good ones come first.
fn which(releases: usize) -> impl Strategy<Value = usize> {
    prop_oneof![5 => 0..GOOD, 2 => 0..releases]
}

fn apply(releases: usize) -> impl Strategy<Value = Op> {
    let flags = (prop::bool::weighted(0.4), prop::bool::weighted(0.3), prop::bool::weighted(0.4));
    (which(releases), flags, fault()).prop_map(|(which, (activate, retry, downgrade), fault)| Op {
        which,
        activate,
        retry,
        downgrade,
        fault,
        ..Op::new(Verb::Apply)
    })
}

fn change() -> impl Strategy<Value = Op> {
    let verb = prop_oneof![
        4 => Just(Verb::Activate),
        4 => Just(Verb::Rollback),
        4 => Just(Verb::HealthPass),
        2 => Just(Verb::HealthFail),
    ];
    (verb, prop::bool::weighted(0.4), fault()).prop_map(|(verb, retry, fault)| {
        let retry = retry && verb == Verb::Rollback;
        Op { retry, fault, ..Op::new(verb) }
    })
}

fn rest(releases: usize) -> impl Strategy<Value = Op> {
    let look = (0..releases, prop_oneof![2 => Just(Verb::Check), 1 => Just(Verb::Status), 2 => Just(Verb::Verify)])
        .prop_map(|(which, verb)| Op::new(verb).with(if verb == Verb::Check { which } else { 0 }));
    let restart = prop_oneof![
        5 => Just(Op::new(Verb::Restart)),
        2 => Just(Op::new(Verb::RestartSkipping)),
        2 => (0..2usize).prop_map(|which| Op::new(Verb::RestartUncounted).with(which)),
        1 => Just(Op::new(Verb::RestartByHand)),
    ];
    let damage =
        (0..6usize, prop_oneof![1 => Just(Verb::SpoilState), 2 => Just(Verb::SpoilSlot), 1 => Just(Verb::SpoilBlock)])
            .prop_map(|(which, verb)| Op::new(verb).with(which));
    prop_oneof![3 => look, 5 => restart, 3 => damage, 1 => Just(Op::new(Verb::Repair))]
}

/// What people do in one go; without these a machine would rarely get through an update.
fn habit(releases: usize) -> impl Strategy<Value = Vec<Op>> {
    let flags = (prop::bool::weighted(0.5), prop::bool::weighted(0.5));
    (which(releases), flags, 0..6u8).prop_map(move |(which, (retry, downgrade), kind)| {
        let apply = Op { activate: true, retry, downgrade, ..Op::new(Verb::Apply) }.with(which);
        let restart = Op::new(Verb::Restart);
        match kind {
            0 | 1 => vec![apply, restart, Op::new(Verb::HealthPass)],
            2 => vec![apply, restart, restart, restart, restart],
            3 => vec![Op { retry, ..Op::new(Verb::Rollback) }, restart],
            _ => vec![apply, restart],
        }
    })
}

/// A life of a machine. Input: how many releases there are.
pub fn life(releases: usize) -> impl Strategy<Value = Vec<Vec<Op>>> {
    let one = prop_oneof![3 => apply(releases), 4 => change(), 4 => rest(releases)].prop_map(|op| vec![op]);
    // Most machines have shown that GRUB can write; the first boot is where that happens.
    let first = prop_oneof![1 => Just(vec![]), 5 => Just(vec![vec![Op::new(Verb::Restart)]])];
    let others = prop::collection::vec(prop_oneof![3 => one, 1 => habit(releases)], 4..28);
    (first, others).prop_map(|(first, others)| [first, others].concat())
}
