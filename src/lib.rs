//! Update agent of KubeSolo OS. The binary is a thin shell around this library.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod atomic;
pub mod error;
pub mod grubenv;
pub mod grubenv_file;
pub mod json;
pub mod oci;
pub mod slot;
pub mod state;
pub mod sys;
pub mod system;
pub mod text;
pub mod time;
pub mod url;
pub mod version;
