//! What the agent should answer, told from the situation alone, where it has seen everything that happened.

use super::ops::{Op, Verb};
use super::view::{Content, Make, Offer, State};
use super::world::World;
use kubesolo_update::parts::offer::version::Version;
use kubesolo_update::parts::slot::record::Slot;
use std::cmp::Ordering;

/// An answer, and what is so afterwards.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    /// Exit codes, any of them.
    pub codes: Vec<i32>,
    pub phase: String,
    /// Active slot, `boot_success`, `boot_counter`.
    pub boot: (Slot, bool, u8),
}

/// Where the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The running slot is active and confirmed.
    Confirmed,
    /// The running slot is on trial.
    OnTrial,
    /// The other slot waits for its first boot.
    Waits,
    /// The other slot is active and confirmed, and waits for the restart.
    GoesBack,
}

pub fn place(world: &World) -> Place {
    match (world.now.vars.success, world.now.vars.active == world.running) {
        (true, true) => Place::Confirmed,
        (false, true) => Place::OnTrial,
        (false, false) => Place::Waits,
        (true, false) => Place::GoesBack,
    }
}

/// What the gates make of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    UpToDate,
    /// A person has to mend it.
    Fault,
    Refused,
}

fn verdict(world: &World, op: Op, offer: &Offer) -> Verdict {
    let running = world.now.of(world.running).version.as_deref().unwrap();
    let order = Version::parse(&offer.release.version).unwrap().cmp(&Version::parse(running).unwrap());
    let is_known_bad = world.refused(&world.now).contains(&offer.medium.digest);
    let is_what_runs = world.now.of(world.running).digest.as_ref() == Some(&offer.medium.digest);
    match (offer.make, order) {
        (Make::Foreign, _) => Verdict::Fault,
        (_, Ordering::Equal) if is_what_runs => Verdict::UpToDate,
        (Make::Expired, _) => Verdict::Fault,
        // What is staged was insisted on.
        (_, Ordering::Less | Ordering::Equal)
            if !op.downgrade && !is_staged(world, &world.now.state_or_idle(), offer) =>
        {
            Verdict::Refused
        }
        _ if is_known_bad && !op.retry => Verdict::Refused,
        _ => Verdict::Take,
    }
}

/// Foretells a command. `None`: it depends on what only the agent knows.
pub fn foretell(world: &World, op: Op) -> Option<Expected> {
    let seen = &world.now;
    let state = seen.state_or_idle();
    let (vars, running) = (seen.vars, world.running);
    let same = (vars.active, vars.success, vars.counter);
    let nothing = |codes: &[i32]| Expected { codes: codes.into(), phase: state.phase.clone(), boot: same };
    let becomes = |code: i32, phase: &str, boot| Expected { codes: vec![code], phase: phase.into(), boot };
    let (place, other) = (place(world), running.other());
    match (op.verb, place) {
        (Verb::Status, _) => Some(nothing(&[0])),
        (Verb::Verify | Verb::Repair, _) => {
            let is_sound = op.verb == Verb::Repair || seen.sound;
            let is_whole = seen.content.iter().all(|content| content.whole);
            Some(nothing(&[if is_sound && is_whole { 0 } else { 7 }]))
        }
        // The trial cannot end by itself: GRUB went for the way back, and that did not load (`reconcile::no_way_back`).
        (Verb::HealthFail, Place::OnTrial) if world.skipped == Some(other) && seen.state.is_some() => {
            let is_known = !world.switched && vars.rollback_from.is_none();
            is_known.then(|| becomes(9, "rolled_back", (running, true, vars.counter)))
        }
        _ if !world.settled => None,
        (Verb::Check, place) => Some(nothing(&[match verdict(world, op, world.offer(op)) {
            Verdict::UpToDate => 3,
            Verdict::Take if place == Place::Confirmed && is_staged(world, &state, world.offer(op)) => 3,
            Verdict::Take if place == Place::Confirmed => 0,
            _ => 4,
        }])),
        (Verb::Apply, Place::Confirmed) => Some(apply(world, op, &state)),
        (Verb::Apply, _) => Some(nothing(&[4])),
        (Verb::Activate, Place::Confirmed) => Some(activate(world, &state)),
        (Verb::Activate, Place::OnTrial) => Some(nothing(&[4])),
        (Verb::Activate, _) => Some(nothing(&[3])),
        (Verb::Rollback, Place::GoesBack) => Some(nothing(&[3])),
        (Verb::Rollback, Place::Waits) => {
            // Of a trial that could not be recorded there is nothing to forget.
            let is_known = ["staged", "activated", "rolled_back"].contains(&state.phase.as_str());
            Some(becomes(0, if is_known { "idle" } else { &state.phase }, (running, true, vars.counter)))
        }
        (Verb::Rollback, Place::OnTrial) => Some(match seen.of(other).whole && world.skipped != Some(other) {
            true => becomes(0, "rolled_back", (other, true, vars.counter)),
            false => nothing(&[7]),
        }),
        (Verb::Rollback, Place::Confirmed) => Some(rollback(world, op, &state)),
        (Verb::HealthPass, Place::OnTrial) => {
            let phase = if is_ours(world, &state) { "success" } else { &state.phase };
            Some(becomes(0, phase, (running, true, vars.counter)))
        }
        (Verb::HealthFail, Place::OnTrial) if world.skipped == Some(other) => None,
        (Verb::HealthFail, Place::OnTrial) => {
            let phase = if is_ours(world, &state) { "failed" } else { &state.phase };
            Some(becomes(9, phase, same))
        }
        (Verb::HealthPass, _) => Some(nothing(&[0])),
        (Verb::HealthFail, _) => Some(nothing(&[9])),
        _ => None,
    }
}

/// Says whether the trial is that of the attempt in the state.
fn is_ours(world: &World, state: &State) -> bool {
    let running = world.now.of(world.running);
    ["activated", "verifying", "failed"].contains(&state.phase.as_str())
        && state.target == Some(world.running)
        && state.digest == running.digest
}

/// Says whether an offer lies in the other slot, staged, as far as that can be told without reading it.
fn is_staged(world: &World, state: &State, offer: &Offer) -> bool {
    let target = world.now.of(world.running.other());
    state.phase == "staged" && target.fits && target.digest.as_ref() == Some(&offer.medium.digest)
}

/// Says whether the other slot holds what was taken back before it ever booted.
fn is_called_off(world: &World, state: &State) -> bool {
    state.called_off.is_some() && state.called_off == world.now.of(world.running.other()).digest
}

fn apply(world: &World, op: Op, state: &State) -> Expected {
    let (seen, other, offer) = (&world.now, world.running.other(), world.offer(op));
    let same = (seen.vars.active, seen.vars.success, seen.vars.counter);
    let stays = |code: i32, phase: &str| Expected { codes: vec![code], phase: phase.into(), boot: same };
    let is_staged = state.phase == "staged";
    match verdict(world, op, offer) {
        Verdict::UpToDate => return stays(3, &state.answered),
        Verdict::Refused => return stays(4, &state.answered),
        Verdict::Fault => return stays(4, if is_staged { "staged" } else { "failed" }),
        Verdict::Take => {}
    }
    let target = seen.of(other);
    let is_there = target.whole && self::is_staged(world, state, offer);
    if !is_there && offer.make == Make::Damaged {
        return stays(5, "failed");
    }
    match (op.activate, seen.vars.canary) {
        (false, _) => stays(if is_there { 3 } else { 0 }, "staged"),
        (true, false) => stays(7, "staged"),
        (true, true) => Expected { codes: vec![0], phase: "activated".into(), boot: (other, false, 3) },
    }
}

fn activate(world: &World, state: &State) -> Expected {
    let (seen, other) = (&world.now, world.running.other());
    let same = (seen.vars.active, seen.vars.success, seen.vars.counter);
    let stays = |code: i32| Expected { codes: vec![code], phase: state.phase.clone(), boot: same };
    let target = seen.of(other);
    let is_meant = match state.phase.as_str() {
        "staged" => true,
        _ => target.fits && is_newer(world, target) && !is_called_off(world, state),
    };
    let is_it = state.phase != "staged" || target.digest == state.digest;
    let is_refused = target.digest.as_ref().is_some_and(|digest| world.refused(seen).contains(digest));
    if state.phase == "staged" && is_refused && !state.insisted {
        return stays(4);
    }
    match (is_meant, seen.vars.canary && target.whole && is_it) {
        (false, _) => stays(3),
        (true, false) => stays(7),
        (true, true) => Expected { codes: vec![0], phase: "activated".into(), boot: (other, false, 3) },
    }
}

/// A slot may be tried although no state speaks of it: newer than what runs, and it did not fail here.
fn is_newer(world: &World, target: &Content) -> bool {
    let version = |content: &Content| content.version.as_deref().and_then(|version| Version::parse(version).ok());
    let is_known_bad = target.digest.as_ref().is_some_and(|digest| world.refused(&world.now).contains(digest));
    version(target) > version(world.now.of(world.running)) && !is_known_bad
}

fn rollback(world: &World, op: Op, state: &State) -> Expected {
    let (seen, other) = (&world.now, world.running.other());
    let same = (seen.vars.active, seen.vars.success, seen.vars.counter);
    let stays = |codes: &[i32]| Expected { codes: codes.into(), phase: state.phase.clone(), boot: same };
    if state.phase == "staged" {
        return Expected { phase: "idle".into(), ..stays(&[0]) };
    }
    if is_called_off(world, state) {
        return stays(&[3]);
    }
    let target = seen.of(other);
    let is_known_bad = target.digest.as_ref().is_some_and(|digest| world.refused(seen).contains(digest));
    match (seen.vars.canary, is_known_bad && !op.retry, target.whole) {
        (false, ..) => stays(&[7]),
        // Of what has no record, the state may know that it failed.
        (true, _, false) if !target.fits => stays(&[4, 7]),
        (true, true, _) => stays(&[4]),
        (true, false, false) => stays(&[7]),
        (true, false, true) => Expected { codes: vec![0], phase: "rolled_back".into(), boot: (other, false, 3) },
    }
}
