//! How many bytes of files came from where. Pure.
//!
//! Must never: wrap around.

/// Bytes of one update, or of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the source; chunk indexes are not counted.
    pub fetched_bytes: u64,
    /// From the running slot.
    pub copied_bytes: u64,
}

impl Traffic {
    /// Adds what came since.
    pub fn add(&mut self, more: Traffic) {
        self.fetched_bytes = self.fetched_bytes.saturating_add(more.fetched_bytes);
        self.copied_bytes = self.copied_bytes.saturating_add(more.copied_bytes);
    }
}
