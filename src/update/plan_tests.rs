//! Tests that machines settle from any starting state: the plan under GRUB's table.

use super::*;
use crate::boot::grub_table;
use crate::update::reconcile::{no_way_back, pending_trial, worth_a_restart};

fn state(phase: Phase) -> State {
    let switched_boot_id = Some("first".to_string());
    State { phase, target_slot: Some(Slot::B), switched_boot_id, ..State::default() }
}

#[derive(Debug)]
/// A machine whose slot B does not load and whose slot A never becomes healthy, under a GRUB as in `boot.rs`.
struct Hopeless {
    block: Block,
    state: State,
    boots: u32,
    /// GRUB can write.
    saves: bool,
    /// GRUB reports what it skipped.
    says: bool,
    /// Slot B is damaged, so that Linux sees it as well.
    damaged: bool,
    /// The state survives a restart.
    keeps: bool,
}

struct World {
    running: Slot,
    id: String,
    skipped: Option<Slot>,
}

impl World {
    fn seen<'a>(&'a self, block: &Block) -> Boot<'a> {
        let vars = BootVars::read_whole(block).unwrap();
        Boot { running: self.running, vars, boot_id: Some(&self.id), skipped: self.skipped }
    }
}

impl Hopeless {
    /// One boot, with `healthcheck --reboot-on-failure` in it. Returns: whether that restarts the machine.
    fn boot(&mut self) -> bool {
        let before = grub_table::Vars::read(&self.block.encode().unwrap());
        let (saves, mut saved) = (self.saves, before);
        let decision = grub_table::decide([before, before], [true; 2], &mut |vars| {
            saved = if saves { Some(vars) } else { saved };
            [saved, saved]
        });
        self.save(saved.unwrap());
        let running = decision.boots(|slot| slot == Slot::A).unwrap();
        let skipped = (self.says && decision.first != running).then_some(decision.first);
        self.boots += 1;
        if !self.keeps {
            self.state = State::default();
        }
        let boot = World { running, id: format!("boot {}", self.boots), skipped };
        self.settle(&boot);
        let seen = boot.seen(&self.block);
        if seen.vars.boot_success != Some(false) || seen.vars.active_slot != Some(running) {
            return self.keeps && worth_a_restart(&self.state, &seen);
        }
        let lost = no_way_back(&self.state, &seen);
        if lost {
            self.carry_out(&boot, &mut |plan, here| plan.take_over(here, "", true));
        }
        !lost
    }

    /// Carries a plan out, as a session does; the slots' content has no names.
    fn carry_out(&mut self, world: &World, make: &mut dyn FnMut(&mut Plan, &Here<'_>) -> Result<()>) {
        let view = |slot| View::unreadable(slot, Error::new(Kind::Slot, "no record"));
        let here = Here {
            running: world.running,
            boot_id: Some(world.id.clone()),
            skipped: world.skipped,
            view: &view,
            proven: &Proven::default(),
            now_secs: 0,
        };
        let (state, block) = (self.state.clone(), self.block.clone());
        let mut plan = Plan { state, failures: Failures::default(), block, said: Vec::new(), write: BootWrite::No };
        make(&mut plan, &here).unwrap();
        (self.state, self.block) = (plan.state, plan.block);
    }

    /// As `Session::settle`.
    fn settle(&mut self, world: &World) {
        let mut open = None;
        self.carry_out(world, &mut |plan, here| {
            open = plan.follow(here)?;
            Ok(())
        });
        let Some(finding) = open else { return };
        let is_damaged = self.damaged;
        self.carry_out(world, &mut |plan, here| {
            let look = match is_damaged {
                true => Look::Damaged(Error::new(Kind::Slot, "rotten")),
                false => Look::Whole,
            };
            plan.answer(here, &finding, look)
        });
    }

    fn save(&mut self, vars: grub_table::Vars) {
        let mark = vars.rollback_from.map_or(String::new(), |slot| slot.to_string());
        for (name, value) in [
            ("active_slot", vars.active.to_string()),
            ("boot_success", u8::from(vars.success).to_string()),
            ("boot_counter", vars.counter.to_string()),
            ("rollback_from", mark),
            ("boot_canary", u8::from(vars.canary).to_string()),
        ] {
            self.block.set(name, value.as_bytes()).unwrap();
        }
    }

    /// Boots until nothing restarts it any more. Returns: the number of restarts.
    fn rest(&mut self) -> u32 {
        (0..10).find(|_| !self.boot()).expect("it restarts for ever")
    }
}

/// GRUB returns to a confirmed slot, and one read of it fails, once.
#[test]
fn a_slot_that_does_not_load_once_is_tried_again() {
    let mut block = Block::fresh(Slot::B);
    block.set("active_slot", b"A").unwrap();
    block.set("rollback_from", b"B").unwrap();
    let mut machine =
        Hopeless { block, state: state(Phase::Failed), boots: 0, saves: true, says: true, damaged: false, keeps: true };
    let skipping = World { running: Slot::B, id: "boot 1".into(), skipped: Some(Slot::A) };
    machine.settle(&skipping);
    let vars = BootVars::read_whole(&machine.block).unwrap();
    assert_eq!((vars.active_slot, vars.boot_success, vars.rollback_from), (Some(Slot::A), Some(true), Some(Slot::B)));
    assert_eq!((machine.state.phase, machine.state.target_slot), (Phase::RolledBack, Some(Slot::B)));
    assert!(worth_a_restart(&machine.state, &skipping.seen(&machine.block)));
    let loaded = World { running: Slot::A, id: "boot 2".into(), skipped: None };
    machine.settle(&loaded);
    let vars = BootVars::read_whole(&machine.block).unwrap();
    assert_eq!((vars.active_slot, vars.boot_success, vars.rollback_from), (Some(Slot::A), Some(true), None));
    assert!(!worth_a_restart(&machine.state, &loaded.seen(&machine.block)));
}

/// Every state of a machine that affects decisions.
fn every_start(visit: &mut dyn FnMut(Hopeless)) {
    let switches = [0b0000, 0b0001, 0b0010, 0b0011, 0b0100, 0b0101, 0b0110, 0b0111].into_iter();
    let switches: Vec<[bool; 4]> =
        switches.flat_map(|n: u8| [n, n | 8]).map(|n| [1, 2, 4, 8].map(|bit| n & bit != 0)).collect();
    for active in [Slot::A, Slot::B] {
        for counter in 0..=3 {
            for success in [true, false] {
                for rollback_from in [None, Some(Slot::A), Some(Slot::B)] {
                    for phase in Phase::ALL.into_iter().filter(|p| !p.is_unfinished()) {
                        for target in [Slot::A, Slot::B] {
                            for [saves, says, damaged, keeps] in &switches {
                                let state = State { target_slot: Some(target), ..state(phase) };
                                let (saves, says, damaged, keeps) = (*saves, *says, *damaged, *keeps);
                                let block = Block::fresh(active);
                                let mut start = Hopeless { block, state, boots: 0, saves, says, damaged, keeps };
                                start.save(grub_table::Vars { active, counter, success, rollback_from, canary: true });
                                visit(start);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_machine_without_a_healthy_slot_comes_to_rest_and_can_be_updated() {
    let mut starts = 0;
    every_start(&mut |mut machine| {
        // A GRUB that neither counts nor reports what it skipped would loop; ours reports it.
        if !machine.saves && !machine.says {
            return;
        }
        starts += 1;
        let start = format!("{machine:?}");
        // Put on trial, three counted boots, the one in which GRUB has given it up, and one in which the other may load. The
        // power fails twice: a pending restart has then taken place.
        let restarts = machine.rest() + machine.rest() + machine.rest();
        assert!(restarts <= 5, "{restarts} restarts: {start}");
        // From here on, no restart causes another.
        let rest = machine.block.clone();
        assert_eq!(machine.rest(), 0, "{start}\n{machine:?}");
        assert_eq!(machine.block, rest, "{start}");
        // Slot B can be written: the recovery. (For the agent, a trial that GRUB cannot count is still pending.)
        let vars = BootVars::read_whole(&machine.block).unwrap();
        // Without a state nothing is decided, and nothing could be installed.
        if (machine.says || machine.damaged) && machine.saves && machine.keeps {
            let found = (vars.active_slot, vars.boot_success, vars.rollback_from);
            assert_eq!(found, (Some(Slot::A), Some(true), None), "{start}\n{machine:?}");
            assert_eq!(pending_trial(Slot::A, &vars), None);
        }
    });
    assert!(starts > 5000, "{starts}");
}
