//! Tests of `store.rs`.

use super::*;
use crate::ledger::state::Phase;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path(), None);
    (dir, store)
}

#[test]
fn a_missing_state_is_idle_and_a_written_one_is_read() {
    let (_dir, store) = store();
    assert_eq!(store.state().value, State::default());
    let _lock = store.lock().unwrap();
    let mut state = State::default();
    state.begin(1).unwrap();
    store.save_state(&state).unwrap();
    assert_eq!(store.state().value.phase, Phase::Checking);
}

#[test]
fn the_lock_is_exclusive_and_ends_with_its_holder() {
    let (_dir, store) = store();
    assert!(!store.is_locked());
    let lock = store.lock().unwrap();
    assert_eq!(store.lock().err().map(|e| e.exit_code()), Some(8));
    assert!(store.is_locked());
    drop(lock);
    assert!(!store.is_locked());
    assert!(store.lock().is_ok());
}

#[test]
fn broken_files_are_kept_aside_and_count_as_new() {
    let (dir, store) = store();
    let _lock = store.lock().unwrap();
    let update = dir.path().join("update");
    for garbage in [&b"{\"phase\":"[..], b"\xff\xfe", &vec![b' '; 70_000]] {
        fs::write(update.join("state.json"), garbage).unwrap();
        assert!(store.state().damage.is_some());
        let said = store.recall().unwrap().said;
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(fs::read(update.join("state.json.corrupt")).unwrap(), garbage);
        assert!(store.state().damage.is_none());
        assert!(store.recall().unwrap().said.is_empty());
    }
}

#[test]
fn a_state_flag_moves_the_state_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path(), Some(&dir.path().join("s.json")));
    let _lock = store.lock().unwrap();
    store.save_state(&State::default()).unwrap();
    assert!(dir.path().join("s.json").exists() && dir.path().join("update/lock").exists());
    assert_eq!(Store::new(dir.path(), None).lock().err().map(|e| e.exit_code()), Some(8));
}
