//! Update agent of KubeSolo OS. The binary is a thin shell around this library.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod error;
pub mod oci;
pub mod system;
pub mod text;
