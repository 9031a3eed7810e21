//! Whether an unsigned artifact may be taken. Pure.
//!
//! Checking signatures is not built yet, so every machine that demands them refuses every update:
//! insecurity is chosen with `signature = off`, never defaulted to.
//! Must never: let an installed key be ignored.

pub mod bundle;
pub mod keys;

use crate::config::SignaturePolicy;
use crate::error::{Error, Kind, Result};

/// Says whether an artifact may be taken without a signature.
/// Input: `keys_installed`: how many `*.pub` files the key directory holds.
/// Errors: Signature: it may not.
pub fn allow_unsigned(keys_installed: usize, policy: SignaturePolicy) -> Result<()> {
    match (keys_installed, policy) {
        (0, SignaturePolicy::Off) => Ok(()),
        (0, SignaturePolicy::Required) => {
            Err(Error::new(Kind::Signature, "signatures are required, and no key is installed")
                .hint("this build can not check signatures yet; `signature = off` in update.conf takes unsigned updates"))
        }
        (n, _) => Err(Error::new(Kind::Signature, format!("{n} keys are installed, so signatures are required"))
            .hint("this build can not check signatures yet; without keys and with `signature = off` it takes unsigned updates")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecurity_is_chosen_never_defaulted_to() {
        assert!(allow_unsigned(0, SignaturePolicy::Off).is_ok());
        for (keys, policy) in
            [(0, SignaturePolicy::Required), (1, SignaturePolicy::Off), (2, SignaturePolicy::Required)]
        {
            assert_eq!(allow_unsigned(keys, policy).unwrap_err().exit_code(), 5);
        }
    }
}
