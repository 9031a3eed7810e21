//! Update agent of KubeSolo OS. The binary is a thin shell around this library.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod atomic;
pub mod base64;
pub mod boot;
pub mod cli;
pub mod cmd;
pub mod cmdline;
pub mod config;
pub mod credentials;
pub mod crypto;
pub mod error;
pub mod failed;
pub mod gate;
pub mod gpt;
pub mod grubenv;
pub mod grubenv_file;
pub mod gzip;
pub mod health;
pub mod http;
pub mod inspect;
pub mod json;
pub mod machine;
pub mod mount;
pub mod oci;
pub mod partition;
pub mod progress;
pub mod readback;
pub mod reconcile;
pub mod seen;
pub mod session;
pub mod slot;
pub mod source;
pub mod stage;
pub mod state;
pub mod store;
pub mod superblock;
pub mod sys;
pub mod system;
pub mod text;
pub mod time;
pub mod tls;
pub mod trust;
pub mod url;
pub mod version;
pub mod window;
