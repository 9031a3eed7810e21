//! What `main.rs`, `src/bin/` and `tests/` use of the wings, by the same paths. Not an interface. Everything else is private to
//! the crate, so that the compiler tells what nothing uses.
//!
//! Must never: hand out a whole module.
#![allow(missing_docs)] // each is documented where it lives

pub mod base {
    pub mod base64 {
        pub use crate::base::base64::encode;
    }
    pub mod clock {
        pub use crate::base::clock::Now;
    }
    pub mod digest {
        pub use crate::base::digest::Digest;
    }
    pub mod error {
        pub use crate::base::error::{Error, Kind, Result};
    }
    pub mod text {
        pub use crate::base::text::short_digests;
    }
    pub mod time {
        pub use crate::base::time::{parse_rfc3339, rfc3339, weekday_and_minute};
    }
    pub mod url {
        pub use crate::base::url::Url;
    }
}
pub mod boot {
    pub mod block {
        pub use crate::boot::block::Block;
    }
    pub mod damage {
        pub use crate::boot::damage::{BLOCK_BYTES, Damage, Refused};
    }
    pub mod env_copy {
        pub use crate::boot::env_copy::{EnvCopy, Fault};
    }
    pub mod env_files {
        pub use crate::boot::env_files::EnvFiles;
    }
    pub mod grub_table {
        pub use crate::boot::grub_table::{Content, Decision, Vars, Why, decide};
    }
    pub mod salvage {
        pub use crate::boot::salvage::Known;
    }
    pub mod this_boot {
        pub use crate::boot::this_boot::BootedFrom;
    }
    pub mod vars {
        pub use crate::boot::vars::BootVars;
    }
}
pub mod chunks {
    pub mod cut {
        pub use crate::chunks::cut::{Rule, cut};
    }
    pub mod index {
        pub use crate::chunks::index::{Index, MAX_CHUNKS};
    }
    pub mod plan {
        pub use crate::chunks::plan::{Search, join, push, ranges, to_fetch};
    }
}
pub mod cli {
    pub use crate::cli::{Cli, Command, Common};
    pub mod usage {
        pub use crate::cli::usage::{Form, Typed, help, parse};
    }
}
pub mod cmd {
    pub use crate::cmd::{Outcome, finish};
    pub mod activate {
        pub use crate::cmd::activate::run;
    }
    pub mod answer {
        pub use crate::cmd::answer::Reply;
    }
    pub mod apply {
        pub use crate::cmd::apply::run;
    }
    pub mod check {
        pub use crate::cmd::check::run;
    }
    pub mod device {
        pub use crate::cmd::device::run;
    }
    pub mod healthcheck {
        pub use crate::cmd::healthcheck::run;
    }
    pub mod inspect {
        pub use crate::cmd::inspect::run;
    }
    pub mod lint {
        pub use crate::cmd::lint::run;
    }
    pub mod metrics {
        pub use crate::cmd::metrics::run;
    }
    pub mod rollback {
        pub use crate::cmd::rollback::run;
    }
    pub mod status {
        pub use crate::cmd::status::run;
    }
    pub mod verify {
        pub use crate::cmd::verify::run;
    }
    pub mod words {
        pub use crate::cmd::words::say;
    }
}
pub mod config {
    pub use crate::config::{SignaturePolicy, load, load_leniently};
}
pub mod disk {
    pub mod ext4 {
        pub use crate::disk::ext4::{Identity, Plan};
    }
    pub mod mount {
        pub use crate::disk::mount::{Mounted, hold, mount, mount_alone};
    }
    pub mod partition {
        pub use crate::disk::partition::{Partition, find};
    }
    pub mod superblock {
        pub use crate::disk::superblock::{FileSystem, PROBE_BYTES, read};
    }
}
pub mod health {
    pub mod kubeconfig {
        pub use crate::health::kubeconfig::{Credential, Kubeconfig};
    }
}
pub mod http {
    pub use crate::http::{Client, HttpOptions, PlainHttp};
    pub mod tls {
        pub use crate::http::tls::Pem;
    }
}
pub mod ledger {
    pub mod state {
        pub use crate::ledger::state::Phase;
    }
    pub mod store {
        pub use crate::ledger::store::Store;
    }
}
pub mod oci {
    pub mod reference {
        pub use crate::oci::reference::Reference;
    }
}
pub mod offer {
    pub mod artifact {
        pub use crate::offer::artifact::Artifact;
    }
    pub mod version {
        pub use crate::offer::version::Version;
    }
}
pub mod os {
    pub mod progress {
        pub use crate::os::progress::{be_quiet, be_verbose, is_quiet};
    }
    pub mod sys {
        pub use crate::os::sys::{Access, FileSystemContext, hear_of_children, try_lock, try_lock_for};
    }
    pub mod system {
        pub use crate::os::system::System;
    }
}
pub mod slot {
    pub mod record {
        pub use crate::slot::record::{DIGESTS, INITRAMFS, KERNEL, RECORD, Record, Slot, VERSION, digests};
    }
    pub mod stage {
        pub use crate::slot::stage::invalidate;
    }
}
pub mod source {
    pub use crate::source::Source;
    pub mod spec {
        pub use crate::source::spec::{SourceSpec, open_source};
    }
}
pub mod trust {
    pub mod bundle {
        pub use crate::trust::bundle::Bundle;
    }
    pub mod key {
        pub use crate::trust::key::{Algorithm, Key};
    }
    pub mod keyring {
        pub use crate::trust::keyring::{Demand, Keyring, SignaturePolicy};
    }
    pub mod tally {
        pub use crate::trust::tally::Tally;
    }
}
