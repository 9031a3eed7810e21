use super::*;

const MIB: u64 = 1 << 20;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn bar() -> Bar {
    let mut bar = Bar::new(vec![Phase::new("fetching", 32 * MIB), Phase::new("reading back", 32 * MIB)]);
    bar.start(0, "vmlinuz", 0, at(0));
    bar
}

/// Moves this many MiB in one second, in four pieces.
fn moves(bar: &mut Bar, mib: u64, from_secs: u64) {
    for piece in 1..=4 {
        bar.moved(mib * MIB / 4, at(from_secs * 1000 + piece * 250));
    }
}

#[test]
fn each_byte_counts_once_a_phase_and_the_whole_is_shown() {
    let mut bar = bar();
    assert_eq!(bar.text(at(0)), "fetching vmlinuz  0 %  0.0 of 32.0 MiB");
    moves(&mut bar, 2, 0);
    assert_eq!(bar.text(at(1000)), "fetching vmlinuz  6 %  2.0 of 32.0 MiB  2.0 MiB/s  0:15 left");
    (1..4).for_each(|secs| moves(&mut bar, 2, secs));
    assert_eq!(bar.text(at(4000)), "fetching vmlinuz  25 %  8.0 of 32.0 MiB  2.0 MiB/s  0:12 left");
    bar.start(1, "", 0, at(4000));
    assert_eq!(bar.text(at(4000)), "reading back  0 %  0.0 of 32.0 MiB");
    moves(&mut bar, 8, 4);
    // Fetching the rest takes time as well.
    assert_eq!(bar.text(at(5000)), "reading back  25 %  8.0 of 32.0 MiB  8.0 MiB/s  0:15 left");
    bar.start(0, "kubesolo-os.gz", 8 * MIB, at(5000));
    // Nothing of this file has come yet.
    assert_eq!(bar.text(at(5000)), "fetching kubesolo-os.gz  25 %  8.0 of 32.0 MiB");
    moves(&mut bar, 4, 5);
    assert_eq!(bar.text(at(6000)), "fetching kubesolo-os.gz  37 %  12.0 of 32.0 MiB  4.0 MiB/s  0:08 left");
    assert_eq!((bar.percent(), bar.what().as_str()), (37, "fetching kubesolo-os.gz"));
}

#[test]
fn what_was_there_already_is_no_rate() {
    let mut bar = bar();
    bar.found(16 * MIB, at(2000));
    assert_eq!(bar.text(at(2000)), "fetching vmlinuz  50 %  16.0 of 32.0 MiB");
    moves(&mut bar, 1, 2);
    assert_eq!(bar.text(at(3000)), "fetching vmlinuz  53 %  17.0 of 32.0 MiB  1.0 MiB/s  0:15 left");
    // From the start again: finished work is repeated.
    bar.start(0, "vmlinuz", 0, at(3000));
    assert_eq!(bar.text(at(3000)), "fetching vmlinuz  0 %  0.0 of 32.0 MiB");
}

#[test]
fn what_stands_still_says_so_and_what_is_not_known_is_not_said() {
    let mut bar = bar();
    bar.moved(MIB, at(999));
    assert_eq!(bar.text(at(999)), "fetching vmlinuz  3 %  1.0 of 32.0 MiB", "less than a second");
    moves(&mut bar, 2, 1);
    assert_eq!(bar.text(at(6999)), "fetching vmlinuz  9 %  3.0 of 32.0 MiB  1.5 MiB/s  0:19 left");
    for (millis, words) in [(7000, "0:05"), (22_000, "0:20"), (602_000, "10:00")] {
        assert_eq!(bar.text(at(millis)), format!("fetching vmlinuz  9 %  3.0 of 32.0 MiB  no bytes for {words}"));
    }
    // The rate covers the last seconds only.
    (700..720).for_each(|secs| moves(&mut bar, 1, secs));
    assert!(bar.text(at(720_000)).contains("  1.0 MiB/s  "), "{}", bar.text(at(720_000)));
    // No rate before the first byte.
    let mut none = super::tests::bar();
    assert_eq!(none.text(at(20_000)), "fetching vmlinuz  0 %  0.0 of 32.0 MiB  no bytes for 0:20");
    none.moved(1, at(21_000));
    assert_eq!(none.text(at(30_000 - 5000)), "fetching vmlinuz  0 %  0.0 of 32.0 MiB", "less than a byte a second");
}

#[test]
fn odd_sizes() {
    let mut unknown = Bar::new(vec![Phase::new("reading slot B", 0)]);
    unknown.start(0, "", 0, at(0));
    moves(&mut unknown, 2, 0);
    assert_eq!(unknown.text(at(1000)), "reading slot B  2.0 MiB  2.0 MiB/s");
    let mut most = Bar::new(vec![Phase::new("fetching", u64::MAX)]);
    most.start(7, "vmlinuz", 0, at(0));
    most.moved(u64::MAX, at(5000));
    most.moved(1, at(6000));
    assert!(most.text(at(6000)).starts_with("fetching vmlinuz  "), "{}", most.text(at(6000)));
    let mut small = Bar::new(vec![Phase::new("fetching", 2000)]);
    small.start(0, "vmlinuz", 0, at(0));
    small.moved(3000, at(500));
    assert_eq!(small.text(at(500)), "fetching vmlinuz  100 %  3000 of 2000 B", "longer than announced");
}

#[test]
fn a_file_that_is_fetched_again_is_read_back_again() {
    let mut bar = Bar::new(vec![Phase::new("fetching", 1000), Phase::new("reading back", 1000)]);
    let at = Duration::from_secs;
    bar.start(0, "f", 0, at(0));
    bar.moved(1000, at(2));
    bar.start(1, "", 0, at(2));
    bar.moved(1000, at(4));
    // From the start again: 500 of 1000 in a second, and all of it to be read back, at the known rate.
    bar.start(0, "f", 0, at(4));
    bar.moved(500, at(5));
    assert!(bar.text(at(5)).ends_with("0:03 left"), "{}", bar.text(at(5)));
}

#[test]
fn what_is_copied_is_progress_but_no_rate_and_takes_no_time() {
    let phases = vec![Phase::new("fetching", 32 * MIB).of_which(24 * MIB), Phase::new("reading back", 0)];
    let mut bar = Bar::new(phases);
    bar.start(0, "kubesolo-os.gz", 0, at(0));
    bar.copied(16 * MIB, at(1000));
    assert_eq!(bar.text(at(1000)), "fetching kubesolo-os.gz  50 %  16.0 of 32.0 MiB  16.0 MiB copied");
    // 8 MiB are to be fetched, at 1 MiB in 2 s; the other 8 MiB are at hand.
    moves(&mut bar, 1, 1);
    assert_eq!(
        bar.text(at(2000)),
        "fetching kubesolo-os.gz  53 %  17.0 of 32.0 MiB  512.0 KiB/s  0:14 left  16.0 MiB copied"
    );
    bar.copied(8 * MIB, at(2000));
    assert_eq!(bar.percent(), 78);
    // Not a standstill, either.
    bar.copied(1, at(9000));
    assert!(!bar.text(at(9000)).contains("no bytes"), "{}", bar.text(at(9000)));
}
