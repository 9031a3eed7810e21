//! What integration tests share.
#![allow(dead_code)] // Each test binary uses its own part.

/// Says whether a program is there. A test that needs it returns early where it is not.
/// Panics: in CI (`CI` is set): there, a test that tests nothing is a failure.
pub fn need(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed, and CI must not skip tests");
        eprintln!("SKIP: {program} is not installed: THIS TEST PROVES NOTHING");
    }
    found
}
