//! A whole machine whose plug is pulled in mid-download: after the next boot the download goes on. Nothing leaves this
//! machine.

use crate::support::delta::index;
use crate::support::disk::{B, initramfs_of, noise};
use crate::support::hostile::{Ask, Hostile, Reply, Step};
use crate::support::kit::{self, BORN, Firmware, need_vm};
use crate::support::release::Release;
use crate::support::site::{Site, apply};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What comes at once; the rest drips. The agent hands what has come to the device every 4 MiB.
const AT_ONCE: usize = 6 << 20;
const DRIP: Duration = Duration::from_millis(100);
/// The agent says how far it is every 5 s, and ext4 commits its journal as often.
const SAID_TIMES: usize = 4;

/// A release with an initramfs that is worth going on with. It is staged and not booted.
fn long_release() -> Release {
    let mut release = kit::release(Firmware::Bios, "1.1.0", "healthy");
    let pair = release.pairs.iter_mut().find(|pair| pair.architecture == "amd64").unwrap();
    let dir = tempfile::tempdir().unwrap();
    pair.initramfs.extend(initramfs_of(dir.path(), &noise(7, 2 * AT_ONCE)));
    release
}

/// Serves a release. Of the initramfs, the first answer alone is slow.
fn serve(release: Release) -> Hostile {
    let is_asked = AtomicBool::new(false);
    Hostile::start(Arc::new(move |ask: &Ask| {
        if ask.path == "/latest.json" {
            return Reply::ok(release.latest_json());
        }
        let Some(bytes) = release.file(&ask.path) else { return Reply::new(404, "") };
        let (length, from) = (bytes.len(), ask.from());
        if !(ask.path.ends_with(".gz") && ask.is_get()) {
            return Reply::ok(bytes);
        }
        let end = ask.end().unwrap_or(length);
        let reply = match ask.range {
            Some(_) => Reply::new(206, &bytes[from..end])
                .header("Content-Range", &format!("bytes {from}-{}/{length}", end - 1)),
            None => Reply::ok(bytes.clone()),
        };
        match is_asked.swap(true, Ordering::Relaxed) {
            false => reply.then(AT_ONCE - from, vec![Step::Drip(bytes[AT_ONCE..end].to_vec(), DRIP)]),
            true => reply,
        }
    }))
}

/// Input: `begins`: where the first run begins to fetch.
fn goes_on_after_a_power_cut(release: &Release, begins: RangeInclusive<usize>) {
    let server = serve(release.clone());
    let mut site = Site::new(Firmware::Bios);
    site.port = server.here.rsplit(':').next().unwrap().parse().unwrap();

    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.send(&format!("kubesolo-update {} 2>&1 | cat >/dev/console", apply()));
    for _ in 0..SAID_TIMES {
        vm.wait_said("fetching kubesolo-os.gz");
    }
    vm.cut();
    let first: Vec<Ask> = server.seen().into_iter().filter(|a| a.is_get() && a.path.ends_with(".gz")).collect();
    assert!(first.len() == 1 && begins.contains(&first[0].from()), "{first:?}");

    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.agent(&apply()).expect(0, &["continuing after", "1.1.0 is staged in slot B"]);
    vm.power_off();
    let gets: Vec<Ask> = server.seen().into_iter().filter(|a| a.is_get() && a.path.ends_with(".gz")).collect();
    // One more request, for the rest alone; most of what had come was on the disk.
    assert!(gets.len() == 2 && gets[1].from() >= AT_ONCE / 2 && gets[1].from() <= AT_ONCE + 4096, "{:?}", gets[1]);
    site.assert_slot(B, release);
}

#[apply(test)]
fn a_download_goes_on_after_a_power_cut() {
    need_vm(Firmware::Bios);
    goes_on_after_a_power_cut(&long_release(), 0..=0);
}

/// The running slot has the beginning.
#[apply(long_test)]
fn what_was_copied_and_fetched_is_used_after_a_power_cut() {
    need_vm(Firmware::Bios);
    let mut release = long_release();
    let pair = release.pairs.iter_mut().find(|pair| pair.architecture == "amd64").unwrap();
    pair.chunks = Some(index(&pair.initramfs));
    let at_hand = kit::born(Firmware::Bios).pairs[0].initramfs.len();
    goes_on_after_a_power_cut(&release, at_hand / 2..=at_hand);
}
