//! Whole machines whose plug is pulled while they take a release of which the running slot has most, by its chunk index.
//! Nothing leaves this machine.
//!
//! After each cut: it boots what ran, and the next run ends staged, and takes from the slots what they have.

use super::power_cuts::{Offers, Series, Work};
use crate::support::kit::{self, Firmware, need_vm};
use crate::support::need;
use crate::support::registry::Registry;
use crate::support::release::Target;
use crate::support::site::{Site, partition, taken};
use crate::support::vm::SERVER;
use std::collections::BTreeMap;
use std::time::Instant;

/// From so many cuts on, a series must have met a slot that was half written.
const ENOUGH: u32 = 9;

/// A machine, and a registry that offers it releases with chunk indexes: in layers, and as one file, in turn.
fn series(seed: u64) -> Series {
    let mut site = Site::new(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    site.port = registry.port;
    let offer = Box::new(move |site: &Site, version: &str| {
        let is_layered = version.split('.').nth(1).unwrap().parse::<u32>().unwrap() % 2 == 1;
        let release = kit::chunked_release(site.firmware, version, is_layered);
        release.publish(dir.path(), Target::Registry, &format!("{}/os/kubesolo", registry.host()), "latest");
        release
    });
    Series::new(seed, site, Offers { offer, apply: format!("apply --registry {SERVER}/os/kubesolo") })
}

/// One series of cuts. Input: `is_booted`: what the run after a cut staged is what runs at the next one.
fn cuts_of_apply(seed: u64, cuts: u32, is_booted: bool) {
    need_vm(Firmware::Bios);
    need("docker-registry");
    need("oras");
    let (start, mut series) = (Instant::now(), series(seed));
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    let mut copied_after = 0;
    series.update("before the first cut");
    for number in 1..=cuts {
        let what = format!("seed {seed}, cut {number} of {cuts}");
        let cut = series.cut(Work::Apply, number - 1, &what);
        let found = series.found(&cut);
        let what = format!("{what} {}: {found}", cut.moment);
        series.boots(&cut, &what);
        let run = series.apply("--json");
        let whole = cut.next.pairs.iter().find(|pair| pair.architecture == "amd64").unwrap().initramfs.len();
        assert!(run.code == 0 || (run.code == 3 && found == "target with its new record"), "{what}: {run:?}");
        let (fetched, copied) = if run.code == 0 { taken(&run) } else { (0, 0) };
        println!("{what}; then {fetched} bytes of {whole} fetched, {copied} copied");
        // What neither came nor was copied lay in the target already.
        assert!(fetched <= kit::CHUNKED_MOST_BYTES && fetched + copied <= whole, "{what}: {run:?}");
        if found == "target as it was" {
            assert!(copied > 0 && fetched + copied == whole, "{what}: {run:?}");
        }
        copied_after += u32::from(copied > 0);
        assert_eq!(series.vm().state("phase"), "staged", "{what}");
        series.site.assert_slot(partition(series.target()), &cut.next);
        series.site.assert_slot(partition(series.slot), &series.running);
        match is_booted {
            true => {
                series.restart_into(cut.next, &what);
                series.confirm(&what);
                series.assert_whole(&what);
            }
            false => series.other = cut.next,
        }
        *met.entry(found).or_default() += 1;
    }
    println!("seed {seed}: {cuts} cuts in {} s; met: {met:?}; {copied_after} copied", start.elapsed().as_secs());
    assert!(copied_after > 0, "the running slot was never used");
    if cuts >= ENOUGH {
        assert!(met.get("target half written").is_some_and(|count| *count > 0), "no slot was cut while it was written");
    }
}

#[apply(test)]
fn the_run_after_a_power_cut_uses_what_is_there() {
    cuts_of_apply(20, 2, false);
}

#[apply(long_test)]
fn the_run_after_any_of_many_power_cuts_uses_what_is_there() {
    cuts_of_apply(21, 12, true);
}
