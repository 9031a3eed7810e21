//! Records what happened since the last run: carries out the plan of `plan`.
//!
//! Must never: decide anything outside the plan.

use crate::base::error::Result;
use crate::update::plan::Look;
use crate::update::session::Recording::Due;
use crate::update::session::Session;

impl Session<'_> {
    /// Records what happened since the last run.
    /// Power cut: see [`crate::update::plan::Plan`].
    pub(super) fn settle(&mut self) -> Result<()> {
        let mut open = None;
        self.carry_out(Due, &mut |plan, here| {
            open = plan.follow(here)?;
            Ok(())
        })?;
        // Findings so far are recorded first: reading a slot takes minutes on slow flash.
        let Some(finding) = open else { return Ok(()) };
        let mut look = Some(self.look_at_other());
        self.carry_out(Due, &mut |plan, here| match look.take() {
            Some(look) => plan.answer(here, &finding, look),
            None => Ok(()),
        })
    }

    /// Reads the inactive slot.
    pub fn look_at_other(&self) -> Look {
        match self.machine.scrub(self.target(), &mut |_| {}) {
            Ok((_, true)) => Look::Mended,
            Ok((_, false)) => Look::Whole,
            Err(e) if e.is_in_use() => Look::InUse(e),
            Err(e) => Look::Damaged(e),
        }
    }
}
