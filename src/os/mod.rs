//! Operating-system services shared by all wings: system calls (the only `unsafe`), paths, small files, progress on stderr.
//!
//! May import: base. Must never import: a subject: it does not know what an update is.

pub mod directory;
pub mod files;
pub mod mountinfo;
pub mod obstacles;
pub mod onlooker;
pub mod paths;
pub mod permissions;
pub mod progress;
pub mod sys;
pub mod system;
