//! GRUB's decision table (DESIGN section 4), as a function. Pure.
//!
//! The same as `grub/grub.cfg`, which Rust cannot call: `tests/fixtures/boot-cases.tsv` drives this and a real GRUB, and the
//! results must agree. Must never: decide what grub.cfg does not.

use crate::boot::block::Block;
use crate::boot::vars::BootVars;
use crate::slot::record::Slot;

/// Content of a copy of the environment block that GRUB finds valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vars {
    /// The slot that boots next.
    pub active: Slot,
    /// Trial boots left, 0 to 3.
    pub counter: u8,
    /// False: the active slot is on trial.
    pub success: bool,
    /// The slot that GRUB gave up on.
    pub rollback_from: Option<Slot>,
    /// GRUB has proven that it can write.
    pub canary: bool,
}

impl Vars {
    /// Reads a copy as `read_copy` in grub.cfg does.
    /// Input: any bytes, of any length.   Returns: `None` where GRUB refuses the block, or a value is invalid.
    ///
    /// More lenient than the agent, which never acts on a damaged block: GRUB reads the same in every block that the agent
    /// accepts, but accepts more.
    pub fn read(bytes: &[u8]) -> Option<Vars> {
        let mut block = Block::decode_lenient(bytes)?;
        // To GRUB, an empty variable is the same as an unset one. (The others must be set.)
        if block.get("boot_canary") == Some(b"") {
            block.remove("boot_canary");
        }
        let vars = BootVars::read_whole(&block).ok()?;
        Some(Vars {
            active: vars.active_slot?,
            counter: vars.boot_counter?,
            success: vars.boot_success?,
            rollback_from: vars.rollback_from,
            canary: vars.boot_canary,
        })
    }

    /// Returns whether the next boot would decide alike. The canary decides nothing.
    fn decides_as(self, other: Vars) -> bool {
        Vars { canary: other.canary, ..self } == other
    }
}

/// Reason why a slot is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is active, and nothing is on trial.
    Confirmed,
    /// It is on trial, and the boot was counted.
    Counted,
    /// The other slot has used up its trial boots.
    UsedUp,
    /// The other slot is on trial, and its boot could not be counted.
    NotCounted,
    /// Neither copy of the block is good.
    Blind,
}

/// What GRUB finds in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Kernel and initramfs load, and match `slot.crc32`, or there is no `slot.crc32`.
    Whole,
    /// They do not match it, or it is unreadable; GRUB would load them.
    Differs,
    /// They do not load.
    Broken,
}

/// The slot that GRUB tries first, and why. The other is next, inside GRUB, if that does not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The slot.
    pub first: Slot,
    /// The reason.
    pub why: Why,
}

impl Decision {
    /// Returns the slot that boots. `None`: neither loads; GRUB waits and starts over.
    ///
    /// The slot tried second is the last resort, unchecked; after it comes the first one again, which a damaged `slot.crc32`
    /// must not keep from booting if there is no other.
    pub fn boots_by(self, content: impl Fn(Slot) -> Content) -> Option<Slot> {
        let [first, second] = [self.first, self.first.other()];
        match (content(first), content(second)) {
            (Content::Whole, _) => Some(first),
            (_, Content::Whole | Content::Differs) => Some(second),
            (Content::Differs, Content::Broken) => Some(first),
            (Content::Broken, Content::Broken) => None,
        }
    }

    /// As [`Decision::boots_by`], for slots that either load or do not.
    pub fn boots(self, loads: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.boots_by(|slot| if loads(slot) { Content::Whole } else { Content::Broken })
    }
}

/// Decides as GRUB does.
///
/// Input: the content of both copies, main first; which slots have a record; and `save`, which stands for `save_env` to both
/// copies and returns their content afterwards: what was to be written, what was there before, or (with a duplicate name)
/// something of each.
/// Power cut: `save` writes main first. Before it: the decision is made again. Between the copies: main wins. The boot
/// variables are in one sector, so a copy is old or new; if a disk tears that, the other copy is old or new.
pub fn decide(copies: [Option<Vars>; 2], recorded: [bool; 2], save: &mut Save<'_>) -> Decision {
    let Some(now) = first_good(copies) else {
        // A slot without a record is one whose update was interrupted.
        let first = if recorded == [false, true] { Slot::B } else { Slot::A };
        return Decision { first, why: Why::Blind };
    };
    if now.success {
        if !now.canary {
            save(Vars { canary: true, ..now });
        }
        return Decision { first: now.active, why: Why::Confirmed };
    }
    let mut why = Why::UsedUp;
    if let Some(left) = now.counter.checked_sub(1) {
        let counted = Vars { counter: left, canary: true, ..now };
        if first_good(save(counted)).is_some_and(|read| read.decides_as(counted)) {
            return Decision { first: now.active, why: Why::Counted };
        }
        why = Why::NotCounted;
    }
    give_up(now, save);
    Decision { first: now.active.other(), why }
}

/// Saves to both copies and reads them: see [`decide`].
pub type Save<'a> = dyn FnMut(Vars) -> [Option<Vars>; 2] + 'a;

/// Makes the other slot active and confirmed, unless only part of that can be saved.
fn give_up(now: Vars, save: &mut Save<'_>) {
    let back = Vars {
        active: now.active.other(),
        success: true,
        rollback_from: Some(now.active),
        canary: true,
        counter: now.counter,
    };
    let read = first_good(save(back));
    let settled = read.is_some_and(|read| read.decides_as(back) || read.decides_as(now));
    if !settled {
        save(Vars { canary: true, ..now });
    }
}

fn first_good(copies: [Option<Vars>; 2]) -> Option<Vars> {
    copies.into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Slot::{A, B};

    const TRIAL: Vars = Vars { active: B, counter: 3, success: false, rollback_from: None, canary: true };

    /// Boots repeatedly, with saves that work, until nothing changes.
    fn boots(mut now: Vars) -> (Vec<Slot>, Vars) {
        let mut slots = Vec::new();
        loop {
            let before = now;
            slots.push(decide([Some(now), Some(now)], [true; 2], &mut |v| {
                now = v;
                [Some(v), Some(v)]
            }));
            if now == before {
                return (slots.into_iter().map(|d| d.first).collect(), now);
            }
        }
    }

    #[test]
    fn a_trial_ends_after_three_boots() {
        let (slots, end) = boots(TRIAL);
        assert_eq!(slots, [B, B, B, A, A]);
        assert_eq!(end, Vars { active: A, counter: 0, success: true, rollback_from: Some(B), canary: true });
    }

    #[test]
    fn every_state_comes_to_rest_and_only_trials_are_counted() {
        for active in [A, B] {
            for counter in 0..=3 {
                for success in [true, false] {
                    for rollback_from in [None, Some(A), Some(B)] {
                        for canary in [true, false] {
                            let (slots, end) = boots(Vars { active, counter, success, rollback_from, canary });
                            let on_trial = if success { 0 } else { usize::from(counter) };
                            let (trial, rest) = slots.split_at(on_trial);
                            assert!(trial.iter().all(|s| *s == active));
                            assert!(rest.iter().all(|s| *s == if success { active } else { active.other() }));
                            assert!(end.success && end.canary && slots.len() <= 5);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_save_that_changes_nothing_never_boots_the_trial() {
        for counter in 0..=3 {
            let now = Some(Vars { counter, ..TRIAL });
            assert_eq!(decide([now, None], [true; 2], &mut |_| [now, None]).first, A);
        }
    }

    #[test]
    fn a_rollback_saved_in_part_is_taken_back() {
        let now = Vars { counter: 0, canary: false, ..TRIAL };
        let mut asked = Vec::new();
        // Duplicate name boot_success.
        let decision = decide([Some(now), None], [true; 2], &mut |v| {
            asked.push(v);
            [Some(Vars { success: false, ..v }), None]
        });
        assert_eq!(decision, Decision { first: A, why: Why::UsedUp });
        assert_eq!(asked.last(), Some(&Vars { canary: true, ..now }));
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn what_does_not_load_or_differs_is_passed_over() {
        use Content::{Broken, Differs, Whole};
        let d = Decision { first: B, why: Why::Confirmed };
        for (b, a, boots) in [
            (Whole, Whole, Some(B)),
            (Whole, Broken, Some(B)),
            (Differs, Whole, Some(A)),
            (Differs, Differs, Some(A)),
            (Differs, Broken, Some(B)),
            (Broken, Whole, Some(A)),
            (Broken, Differs, Some(A)),
            (Broken, Broken, None),
        ] {
            assert_eq!(d.boots_by(|slot| if slot == A { a } else { b }), boots, "{b:?} {a:?}");
        }
    }

    #[test]
    fn grub_reads_the_same_in_whatever_the_agent_takes() {
        let mut block = Block::fresh(B);
        block.set("mine", b"a\\b\nc").unwrap();
        let whole = block.encode().unwrap();
        let (mut taken, mut lax) = (0, 0);
        for at in 0..200 {
            for byte in [0, b'\n', b'\r', b'#', b'=', b'\\', b'0', b'1', b'A', b'B', 0xff] {
                let mut bytes = whole;
                if let Some(b) = bytes.get_mut(at) {
                    *b = byte;
                }
                let agent = Block::decode(&bytes).ok().and_then(|b| BootVars::read_whole(&b).ok());
                let grub = Vars::read(&bytes);
                let Some(agent) = agent else {
                    lax += usize::from(grub.is_some());
                    continue;
                };
                let grub = grub.expect("GRUB takes it as well");
                assert_eq!(
                    (Some(grub.active), Some(grub.success), Some(grub.counter), grub.rollback_from, grub.canary),
                    (agent.active_slot, agent.boot_success, agent.boot_counter, agent.rollback_from, agent.boot_canary)
                );
                taken += 1;
            }
        }
        assert!(taken > 100 && lax > 10, "{taken} {lax}");
    }
}
