//! One operation, and everything that must be true after it.

use super::expect::{Expected, Place, foretell, place};
use super::ops::{Fault, Op, Verb};
use super::view::{Make, State};
use super::world::{End, Seen, World};
use crate::support::answers::schema_faults;
use crate::support::has_python;
use std::collections::BTreeSet;

/// At most so many attempts are remembered, where a history is kept at all.
const HISTORY: usize = 20;

/// What the agent says when it makes a slot active that nobody has confirmed, as the only one that boots.
const FOR_GOOD: &str = "neither slot is proven";

macro_rules! ensure {
    ($condition:expr, $($said:tt)+) => {
        if !$condition {
            return Err(format!($($said)+));
        }
    };
}

/// Makes an operation happen. Errors: what is not as it should be.
pub fn step(world: &mut World, op: Op) -> Result<(), String> {
    let name = op.to_string();
    let verb = name.split_whitespace().next().unwrap();
    match op.verb {
        Verb::Restart | Verb::RestartSkipping | Verb::RestartUncounted | Verb::RestartByHand => {
            world.restart(op)?;
            world.look_at_variables();
        }
        Verb::SpoilState | Verb::SpoilSlot | Verb::SpoilBlock => {
            if !world.spoil(op) {
                return Ok(());
            }
            world.settled = false;
            world.look();
        }
        _ => command(world, op)?,
    }
    world.count(verb);
    let phase = world.now.state.as_ref().map(|state| format!("phase {}", state.phase));
    phase.into_iter().for_each(|phase| world.count(&phase));
    always(world)
}

/// Runs the agent and holds what it did.
fn command(world: &mut World, op: Op) -> Result<(), String> {
    let foretold = foretell(world, op);
    let end = world.agent(op);
    let before = world.look();
    let running = world.running;
    ensure!(before.bytes_of(running) == world.now.bytes_of(running), "the running slot was written");
    if op.is_look() || op.verb == Verb::Repair {
        ensure!(before.bytes == world.now.bytes, "a slot was written");
        ensure!(kept(&before, op) == kept(&world.now, op), "a file of the agent's was written");
    }
    if op.is_look() {
        ensure!(before.blocks == world.now.blocks, "the boot variables were written");
    }
    if op.verb != Verb::Apply {
        ensure!(before.content == world.now.content, "a slot was changed");
    }
    let code = match &end {
        End::Killed(_) => {
            world.count("killed");
            world.count(&format!(
                "killed at {}",
                if let Fault::Kill(call, _) = op.fault { super::ops::CALLS[call] } else { "" }
            ));
            None
        }
        End::Exit(run) => {
            if op.fault == Fault::Unwritable {
                world.count("unwritable");
            }
            if op.verb == Verb::Status && has_python("jsonschema") {
                let faults = schema_faults(&[&run.stdout]);
                ensure!(faults.is_empty(), "status: {faults}\n{}", run.stdout);
            }
            Some(run.code)
        }
    };
    if before.bytes_of(running.other()) != world.now.bytes_of(running.other())
        && before.of(running.other()) != world.now.of(running.other())
    {
        world.set_proven(running.other(), false);
    }
    if was_confirmed(world, op, &before) {
        forget(world, op)?;
    }
    let said = match &end {
        End::Killed(said) => said.clone(),
        End::Exit(run) => format!("{}{}", run.stdout, run.stderr),
    };
    // By a run that could not record it, or by one that was cut off: this one has found it.
    if was_called_off(world, &before.state_or_idle(), &world.now.state_or_idle())
        && let Some(digest) = world.now.of(running).digest.clone().filter(|d| !world.now.failed().contains(d))
    {
        world.must_refuse.remove(&digest);
        world.blamed.remove(&digest);
    }
    boot_moves(world, op, &before, &said)?;
    state_moves(world, op, &before)?;
    let (old, new) = (before.state_or_idle(), world.now.state_or_idle());
    match (old.phase.as_str(), new.phase.as_str(), new.error_kind.as_deref()) {
        ("staged" | "activated" | "rolled_back", "idle", _) => world.count("called off"),
        ("activated", "failed", Some("boot")) => world.count("never tried"),
        _ => {}
    }
    let insisted = match op.verb {
        Verb::Apply => Some(world.offer(op).medium.digest.clone()),
        _ => world.now.of(running.other()).digest.clone(),
    };
    world.insisted.extend(insisted.filter(|_| op.retry));
    nothing_blamed_is_tried(world, &before)?;
    if let Some(code) = code {
        world.count(&format!("exit {code}"));
        ensure!(documented(op).contains(&code), "exit code {code}:\n{said}");
        let is_known_bad = must_be_refused(world, &before, &world.offer(op).medium.digest);
        ensure!(op.verb != Verb::Check || code != 0 || !is_known_bad, "`check` offers what failed here:\n{said}");
        let unwritable = op.fault == Fault::Unwritable;
        if let Some(expected) = foretold.filter(|_| !unwritable) {
            let found = found(world, code);
            ensure!(matches(&expected, &found), "expected {expected:?}\nfound {found:?}\n{said}");
        }
        if op.verb == Verb::Repair {
            ensure!(world.now.sound && before.vars == world.now.vars, "the boot variables are not mended:\n{said}");
        }
        remember(world, op, &before, code, unwritable)?;
    } else {
        world.settled = false;
        if matches!(op.verb, Verb::HealthPass | Verb::HealthFail) {
            // What that check has decided is not known.
            world.unchecked.clear();
        }
        // Healthy, and killed before that was confirmed: it may be forgotten already that it failed before.
        let running = world.now.of(running).digest.clone();
        if op.verb == Verb::HealthPass
            && let Some(digest) = running.filter(|digest| !world.now.failed().contains(digest))
        {
            world.must_refuse.remove(&digest);
        }
    }
    Ok(())
}

/// Says whether a rollback was taken out without being counted: the slot runs that was to be left.
fn was_called_off(world: &World, old: &State, new: &State) -> bool {
    old.under_way && !new.under_way && old.target == Some(world.running) && new.counted == old.counted
}

/// The agent's files. A repair takes the lock, and may have made it.
fn kept(seen: &Seen, op: Op) -> Vec<(&String, &Vec<u8>)> {
    seen.files.iter().filter(|(name, _)| op.verb != Verb::Repair || *name != "lock").collect()
}

fn documented(op: Op) -> &'static [i32] {
    match op.verb {
        Verb::Status => &[0],
        Verb::Check => &[0, 3, 4],
        Verb::Verify | Verb::Repair => &[0, 7],
        Verb::Apply => &[0, 3, 4, 5, 7],
        Verb::HealthPass if op.fault != Fault::None => &[0, 7],
        Verb::HealthFail if op.fault != Fault::None => &[9, 7],
        Verb::HealthPass => &[0],
        Verb::HealthFail => &[9],
        _ => &[0, 3, 4, 7],
    }
}

fn found(world: &World, code: i32) -> Expected {
    let vars = world.now.vars;
    let phase = world.now.state_or_idle().phase;
    Expected { codes: vec![code], phase, boot: (vars.active, vars.success, vars.counter) }
}

fn matches(expected: &Expected, found: &Expected) -> bool {
    expected.codes.contains(&found.codes[0]) && (&expected.phase, expected.boot) == (&found.phase, found.boot)
}

/// What may become of the boot variables.
fn boot_moves(world: &mut World, op: Op, before: &Seen, said: &str) -> Result<(), String> {
    let (old, new, running) = (before.vars, world.now.vars, world.running);
    world.switched |= (old.active, old.success) != (new.active, new.success);
    // `status` repeats it.
    if op.is_change() && said.contains(FOR_GOOD) {
        // Documented: GRUB has given up the running one, or tries to, and the other one does not load.
        let was_given_up = old.rollback_from == Some(running) || (old.active, old.success) == (running, false);
        let is_last = was_given_up && world.skipped == Some(running.other());
        ensure!(is_last, "slot {running} is active for good: {}", old.line());
        world.count(FOR_GOOD);
        world.set_proven(running, true);
    }
    if (old.active, old.success) == (new.active, new.success) {
        // GRUB could not load what was on trial; that was recorded, and it was activated once more, all in one run.
        let is_anew = !world.settled && old.active != running && !new.success && new.counter == 3;
        ensure!(old.counter == new.counter || is_anew, "the counter was moved without a trial");
        return Ok(());
    }
    if new.success && was_confirmed(world, op, before) {
        world.set_proven(running, true);
        world.count("confirmed");
        return Ok(());
    }
    if new.success {
        ensure!(world.is_proven(new.active), "slot {} is confirmed by nobody: {}", new.active, new.line());
    } else {
        ensure!(new.counter == 3, "a trial of {} boots", new.counter);
        let from = new.active;
        ensure!(world.now.of(from).whole, "slot {from} is on trial and not whole");
        ensure!(from == running || world.now.vars.canary, "a trial that GRUB may not count");
    }
    Ok(())
}

/// Says whether a passed check has confirmed the running slot. In the same run that may have been put on trial: where GRUB
/// could not load the other one.
fn was_confirmed(world: &World, op: Op, before: &Seen) -> bool {
    let (old, new, running) = (before.vars, world.now.vars, world.running);
    let was_on_trial = (old.active, old.success) == (running, false);
    let has_taken_over = old.active != running && old.success && world.skipped == Some(running.other());
    let is_confirmed = new.success && new.active == running;
    op.verb == Verb::HealthPass && is_confirmed && (was_on_trial || has_taken_over)
}

/// Phases that a command may go to by itself, or to record what happened before.
fn may_go_to(op: Op) -> &'static [&'static str] {
    match op.verb {
        Verb::Apply => &["idle", "checking", "downloading", "staged", "activated", "success", "failed", "rolled_back"],
        Verb::Activate | Verb::Rollback => &["idle", "activated", "success", "failed", "rolled_back"],
        Verb::HealthPass | Verb::HealthFail => &["idle", "verifying", "activated", "success", "failed", "rolled_back"],
        _ => &[],
    }
}

/// DESIGN section 5, and that a slot whose record is good may be activated from where nothing is half-done.
fn table(from: &str) -> &'static [&'static str] {
    match from {
        "idle" => &["checking", "activated", "rolled_back"],
        "checking" => &["downloading", "failed"],
        "downloading" => &["staged", "failed"],
        "staged" => &["idle", "checking", "activated", "failed", "rolled_back"],
        "activated" => &["idle", "verifying", "success", "failed", "rolled_back"],
        "verifying" => &["success", "failed", "rolled_back"],
        "success" => &["checking", "activated", "rolled_back"],
        "failed" => &["checking", "verifying", "activated", "rolled_back"],
        "rolled_back" => &["idle", "checking", "activated", "rolled_back"],
        other => panic!("no phase {other}"),
    }
}

/// Phases that the table leads to. A check that took nothing goes back to where it began.
fn reachable(before: &State, op: Op) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = [before.phase.clone()].into();
    if before.phase == "checking" {
        found.insert(before.resume_phase.clone().unwrap_or_else(|| "idle".into()));
    }
    // A check that is answered ends the failure of those before it.
    if found.contains("failed") && op.verb == Verb::Apply {
        found.extend(["idle", "success", "rolled_back"].map(String::from));
    }
    loop {
        let next: BTreeSet<String> =
            found.iter().flat_map(|phase| table(phase)).map(|phase| phase.to_string()).collect();
        let next = next.into_iter().filter(|phase| may_go_to(op).contains(&phase.as_str()));
        let known = found.len();
        found.extend(next.collect::<Vec<_>>());
        if found.len() == known {
            return found;
        }
    }
}

/// Says whether a digest may not be taken by itself: it failed, and that is not recorded yet, or refused by what is.
fn must_be_refused(world: &World, before: &Seen, digest: &String) -> bool {
    world.must_refuse.contains(digest) && (!before.failed().contains(digest) || world.refused(before).contains(digest))
}

/// What is to blame boots again only if a person insists.
fn nothing_blamed_is_tried(world: &World, before: &Seen) -> Result<(), String> {
    let other = world.running.other();
    let is_new = !world.now.vars.success && world.now.vars.active == other && before.vars.active != other;
    let Some(digest) = world.now.of(other).digest.as_ref().filter(|_| is_new) else { return Ok(()) };
    let is_blamed = world.must_refuse.contains(digest) && world.blamed.contains(digest);
    ensure!(!is_blamed || world.insisted.contains(digest), "what is to blame is on trial again");
    Ok(())
}

/// The first check of the slot that runs decides who is to blame.
fn control(world: &mut World, op: Op, before: &Seen, code: i32) {
    let on_trial = !before.vars.success && before.vars.active == world.running;
    if on_trial || !matches!(code, 0 | 9) || !matches!(op.verb, Verb::HealthPass | Verb::HealthFail) {
        return;
    }
    let running = world.now.of(world.running).digest.clone();
    let (own, checked): (BTreeSet<String>, BTreeSet<String>) =
        std::mem::take(&mut world.unchecked).into_iter().partition(|digest| Some(digest) == running.as_ref());
    world.unchecked = own;
    if op.verb == Verb::HealthPass {
        if !checked.is_empty() {
            world.count("blamed after a check");
        }
        world.blamed.extend(checked);
    }
}

/// What may become of the state.
fn state_moves(world: &mut World, op: Op, before: &Seen) -> Result<(), String> {
    if let Some(phase) = world.witness().filter(|_| matches!(op.verb, Verb::HealthPass | Verb::HealthFail)) {
        world.count(&format!("phase {phase}"));
    }
    let was_spoilt = before.state.is_none();
    let Some(new) = &world.now.state else {
        ensure!(was_spoilt && before.state_file == world.now.state_file, "state.json was damaged");
        return Ok(());
    };
    let old = before.state_or_idle();
    let goes = reachable(&old, op);
    ensure!(goes.contains(&new.phase), "{} became {}, which is not in the table", old.phase, new.phase);
    // A check that was cut off goes back to where it began.
    let before_check = old.resume_phase.as_deref().unwrap_or(&old.phase);
    let was_success = before_check == "success" || (before_check == "failed" && op.verb == Verb::Apply);
    if new.phase == "success" && !was_success {
        let vars = world.now.vars;
        ensure!(vars.success && world.is_proven(vars.active), "success, and nothing was confirmed: {}", vars.line());
    }
    let digest = &world.offer(op).medium.digest;
    let is_blamed = world.must_refuse.contains(digest) && world.blamed.contains(digest);
    let takes = op.verb == Verb::Apply && !op.retry && (is_blamed || must_be_refused(world, before, digest));
    match new.total.checked_sub(old.total) {
        Some(1) if takes => return Err("what failed here before was tried again by itself".into()),
        Some(0) if new.to_version != old.to_version => {
            // A rollback of another version, or the activation of one that was staged before.
            let is_right = new.phase == "activated" || new.rollbacks > old.rollbacks;
            ensure!(is_right, "another target without an attempt");
            ensure!(new.count == 0, "attempt_count is {}, of another version", new.count);
        }
        Some(0) => {
            // Two rollbacks in one run: of another version, and of this one again.
            let is_anew = !world.settled && new.count == 0 && new.rollbacks == old.rollbacks + 2;
            let is_right = new.count == old.count || is_anew;
            ensure!(is_right, "attempt_count moved without an attempt: {} to {}", old.count, new.count);
        }
        Some(1) if op.verb == Verb::Apply => {
            let (target, make) = (&world.offer(op).release.version, world.offer(op).make);
            // What a gate finds a fault with was not taken: an attempt, and none at that version.
            let is_taken = make != Make::Foreign && make != Make::Expired;
            let again = if old.to_version.as_ref() == Some(target) { old.count + 1 } else { 1 };
            let expected = if is_taken { again } else { old.count };
            // A rollback that was recorded in this very run names another version first.
            let is_anew = !world.settled && new.count == u64::from(is_taken);
            let is_right = new.count == expected || is_anew;
            ensure!(!is_taken || new.to_version.as_ref() == Some(target), "an attempt at {:?}", new.to_version);
            ensure!(is_right, "attempt_count is {} after {} at {:?}", new.count, old.count, old.to_version);
        }
        total => return Err(format!("attempts_total went from {} by {total:?}", old.total)),
    }
    // Called off before it was booted, a rollback is none.
    let recorded = new.rollbacks + u64::from(was_called_off(world, &old, new));
    ensure!(recorded >= old.rollbacks && recorded <= old.rollbacks + 2, "rollbacks_total, and what waits for it");
    ensure!(new.counted >= old.counted, "rollbacks_total went back from {} to {}", old.counted, new.counted);
    Ok(())
}

/// What has proven itself is no failure any more, wherever the run was killed.
fn forget(world: &mut World, op: Op) -> Result<(), String> {
    let Some(digest) = world.now.of(world.running).digest.clone() else { return Ok(()) };
    let is_forgotten = !world.now.failed().contains(&digest);
    ensure!(is_forgotten || op.fault == Fault::Unwritable, "what has proven itself is still remembered as failed");
    world.must_refuse.remove(&digest);
    world.blamed.remove(&digest);
    world.unchecked.remove(&digest);
    Ok(())
}

/// Keeps what a test must know of the past.
fn remember(world: &mut World, op: Op, before: &Seen, code: i32, unwritable: bool) -> Result<(), String> {
    if !op.is_change() {
        return Ok(());
    }
    let failed = world.now.failed();
    if unwritable {
        // Going back and confirming work without the data partition; what cannot be recorded is not remembered.
        world.must_refuse.retain(|digest| failed.contains(digest));
        world.rollbacks_known = None;
        world.settled = false;
        return Ok(());
    }
    if op.verb == Verb::Rollback && code == 0 {
        let was = |slot| before.of(slot).digest.clone();
        let left = match (before.vars.success, before.vars.active == world.running) {
            (true, false) => None,
            // What never ran is forgotten; and so is what a rollback blamed that is itself called off.
            (false, false) => {
                if let Some(digest) = was(world.running).filter(|digest| !failed.contains(digest)) {
                    world.must_refuse.remove(&digest);
                }
                None
            }
            (true, true) if before.state_or_idle().phase == "staged" => None,
            _ => was(world.running),
        };
        let left = left.filter(|_| world.settled);
        world.blamed.extend(left.clone());
        world.must_refuse.extend(left);
    }
    control(world, op, before, code);
    if code != 7 {
        for digest in &world.must_refuse {
            ensure!(failed.contains(digest), "{digest} is not remembered as failed");
        }
        let recorded = world.now.state_or_idle().rollbacks;
        if let Some((known, gave_up)) = world.rollbacks_known.take() {
            // A run that was killed after its record and before the boot variables: GRUB tried that slot again.
            let before = before.state_or_idle();
            let was_recorded = before.phase == "rolled_back" && before.target == Some(gave_up);
            ensure!(recorded > known || was_recorded, "GRUB went back, and it was not recorded");
        }
    }
    world.settled = code != 7 || world.settled;
    match world.now.state_or_idle() {
        // The state follows the boot variables.
        State { phase, .. } if phase == "staged" && world.settled => {
            ensure!(world.now.vars.success, "staged, while a trial is pending");
        }
        State { phase, target, .. } if ["activated", "verifying"].contains(&phase.as_str()) && world.settled => {
            let vars = world.now.vars;
            ensure!(!vars.success && target == Some(vars.active), "{phase}, and no trial: {}", vars.line());
        }
        _ => {}
    }
    Ok(())
}

/// What is true at every moment.
fn always(world: &World) -> Result<(), String> {
    let (now, vars) = (&world.now, world.now.vars);
    ensure!(now.of(world.running).whole, "the running slot is not whole");
    if vars.success {
        ensure!(world.is_proven(vars.active), "slot {} is confirmed and proven by nobody", vars.active);
    } else {
        let back = vars.active.other();
        ensure!(world.is_proven(back) && now.of(back).whole, "slot {back}, the way back, is not proven or not whole");
    }
    let end = world.destiny()?;
    let confirmed = if vars.success { vars.active } else { vars.active.other() };
    ensure!(end == confirmed, "without a passed check, the machine ends in slot {end}, not {confirmed}");
    if let Some(state) = &now.state {
        let has_error = state.error.is_some() && state.error_kind.is_some();
        match state.phase.as_str() {
            "failed" | "rolled_back" => ensure!(has_error, "{} without last_error", state.phase),
            "success" => ensure!(state.error.is_none() && state.error_kind.is_none(), "success with last_error"),
            "staged" | "activated" | "verifying" => ensure!(state.target.is_some(), "{} without a target", state.phase),
            _ => {}
        }
        ensure!(state.phase != "staged" || world.settled_staged(), "staged, and the slot holds something else");
        ensure!(state.history.is_some(), "state.json has no history");
        if let Some(history) = &state.history {
            // One that is downloading may turn out to be one more of the same.
            let most = HISTORY + usize::from(state.phase == "downloading");
            ensure!(history.len() <= most, "a history of {} attempts", history.len());
            ensure!(history.iter().all(|(began, count)| !began.is_empty() && *count > 0), "odd: {history:?}");
            // What happened again stands where it happened last, with the time of the first.
            let times: Vec<&String> = history.iter().filter(|(_, count)| *count == 1).map(|(began, _)| began).collect();
            ensure!(times.is_sorted(), "the newest attempt is not the last of the history: {history:?}");
        }
    }
    Ok(())
}

impl World<'_> {
    /// Says whether what is staged is there, as far as nobody has damaged it.
    fn settled_staged(&self) -> bool {
        let state = self.now.state_or_idle();
        let Some(target) = state.target else { return false };
        target == self.running || place(self) != Place::Confirmed || self.now.of(target).fits
    }
}
