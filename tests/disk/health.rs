//! healthcheck and verify on a disk image; GRUB's part is played by a real grub-editenv.

use crate::support::disk::{A, B, need_disks};
use crate::support::immutable::ReadOnly;
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run};
use crate::support::trial::Trial;
use crate::support::{self, need};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

fn install(root: &Root, name: &str, script: &str) {
    root.install_check(name, script);
}

#[apply(test)]
fn a_healthy_trial_is_confirmed_with_one_byte() {
    Trial::ready();
    let trial = Trial::booted();
    let before = trial.root.blocks();
    // The check sees the state that is being verified, and no descriptor of the agent's mounts is open in it.
    let witness = trial.root.path("run/witness");
    install(
        &trial.root,
        "10-seen",
        &format!(
            "cat {0}/var/lib/kubesolo/update/state.json > {1}; ls -l /proc/self/fd >> {1}",
            trial.root.path("").display(),
            witness.display()
        ),
    );
    install(&trial.root, "20-ok", "echo fine");
    let run = trial.root.agent(&["healthcheck", "--json"]).expect(0, &[]);
    assert_eq!(
        run.jq("[.healthy, .on_trial, .confirmed, (.checks | map(.name))]"),
        r#"[true,true,true,["10-seen","20-ok"]]"#
    );
    let seen = fs::read_to_string(&witness).unwrap();
    assert!(seen.contains("\"phase\":\"verifying\"") && seen.contains(" 1 -> "), "{seen}");
    // Its own output, the directory that `ls` itself reads, and what whoever started this test left open: no file of the agent's,
    // no device, and no root of a mount that hangs nowhere.
    let targets: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
    let open_here = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let open_here: Vec<String> = open_here.map(|target| target.display().to_string()).collect();
    let is_foreign = |target: &&str| {
        let own = ["/dev/null", "pipe:", "/proc/", witness.to_str().unwrap()];
        !own.iter().any(|start| target.starts_with(start)) && !open_here.iter().any(|open| open == target)
    };
    assert_eq!(targets.iter().copied().filter(is_foreign).collect::<Vec<_>>(), [""; 0], "{seen}");
    assert!(targets.len() >= 4, "{seen}");
    trial.assert_boot("B", "1", "2", "");
    for (old, new) in before.iter().zip(trial.root.blocks()) {
        assert_eq!(old.iter().zip(&new).filter(|(a, b)| a != b).count(), 1);
    }
    assert_eq!(trial.root.state_field("phase"), "success");
    assert_eq!(trial.root.state_field("last_error"), "null");
    // Again, on the stable system: it looks and writes nothing.
    let (blocks, state) = (trial.root.blocks(), trial.root.state());
    trial.root.agent(&["healthcheck"]).expect(0, &["healthy; this boot is not on trial"]);
    assert!(trial.root.blocks() == blocks && trial.root.state() == state);
}

/// Once its leader is waited for, a group's number may be another one's.
#[apply(test)]
fn a_checks_group_is_ended_before_it_is_waited_for() {
    Trial::ready();
    need("strace");
    let trial = Trial::booted();
    install(&trial.root, "10-ok", "echo fine");
    let log = trial.root.path("run/calls");
    let mut strace = support::command("strace");
    strace.args(["-f", "-e", "trace=kill,wait4,waitid", "-e", "signal=none", "-o"]).arg(&log);
    let run = Run::from(trial.root.command_under(strace, &["healthcheck"]).output().unwrap());
    run.expect(0, &["the trial boot is confirmed"]);
    let calls = fs::read_to_string(&log).unwrap();
    let (before, after) = calls.split_once(" kill(-").unwrap_or_else(|| panic!("no group is ended: {calls}"));
    let leader = after.split_once(',').unwrap().0;
    let reaps = |calls: &str| {
        let names = |line: &&str| line.contains(&format!("({leader},")) || line.contains(&format!("P_PID, {leader},"));
        calls
            .lines()
            .filter(names)
            .filter(|line| line.contains("WEXITSTATUS") || line.contains("CLD_EXITED"))
            .filter(|line| !line.contains("WNOWAIT"))
            .count()
    };
    assert_eq!((reaps(before), reaps(after)), (0, 1), "{calls}");
}

#[apply(test)]
fn an_unhealthy_trial_fails_and_the_next_boot_may_still_pass() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["no health checks are installed"]);
    let flag = trial.root.path("run/up");
    install(
        &trial.root,
        "10-api",
        &format!("test -e {} || {{ echo the API server is not ready; exit 4; }}", flag.display()),
    );
    install(&trial.root, "20-never-reached", &format!("echo ran > {}", trial.root.path("run/reached").display()));
    let blocks = trial.root.blocks();
    let run = trial.root.agent(&["healthcheck", "--timeout", "1"]);
    run.expect(9, &["NOT healthy", "10-api: the API server is not ready, exit status 4"]);
    assert!(trial.root.blocks() == blocks, "an unhealthy trial must not be confirmed");
    assert!(!trial.root.path("run/reached").exists());
    assert_eq!(trial.root.state_field("phase"), "failed");
    assert_eq!(trial.root.state_field("last_error_kind"), "unhealthy");
    // GRUB counts, and boots it once more; this time it comes up while the agent waits.
    trial.root.set_boot_variables(&["boot_counter=1"]);
    trial.boot(B);
    let mut waiting = trial.root.command(&["healthcheck", "--timeout", "100"]).spawn().unwrap();
    assert!(
        support::disk::wait_for(std::time::Duration::from_secs(60), || trial.root.state_field("phase") == "verifying")
    );
    fs::write(&flag, "").unwrap();
    assert!(waiting.wait().unwrap().success());
    trial.assert_boot("B", "1", "1", "");
    assert_eq!(trial.root.state_field("phase"), "success");
}

#[apply(test)]
fn a_rollback_by_grub_is_noticed_and_a_manual_one_is_confirmed() {
    Trial::ready();
    let mut trial = Trial::booted();
    install(&trial.root, "10-ok", "exit 0");
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
    trial.root.agent(&["healthcheck"]).expect(0, &["rolled back", "not on trial"]);
    trial.assert_boot("A", "1", "0", "");
    trial.assert_rolled_back("three boots");
    // By hand to slot B after all; healthy, so the boot variables are confirmed, and the state stays.
    trial.root.agent(&["rollback"]).expect(4, &["failed here before"]);
    trial.root.agent(&["rollback", "--retry-failed"]).expect(0, &["slot B is active, on trial"]);
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(B);
    trial.root.agent(&["healthcheck"]).expect(0, &["the trial boot is confirmed"]);
    trial.assert_boot("B", "1", "2", "");
    assert_eq!(trial.root.state_field("phase"), "rolled_back");
}

#[apply(test)]
fn a_full_or_lost_data_partition_keeps_nobody_from_confirming_or_going_back() {
    Trial::ready();
    for (command, active) in [("healthcheck", "B"), ("rollback", "A")] {
        for lost in [false, true] {
            let mut trial = Trial::booted();
            install(&trial.root, "10-ok", "exit 0");
            let data = trial.root.path("var/lib/kubesolo");
            let mut guard = None;
            match lost {
                true => {
                    fs::remove_dir_all(&data).unwrap();
                    fs::write(&data, "no directory").unwrap();
                    trial.disk.detach();
                    trial.disk.overwrite(support::disk::DATA, 0, &[0; 4096]);
                    trial.disk.attach();
                }
                // Nothing can be created or renamed there any more, but the lock file is there.
                false => guard = Some(ReadOnly::new(&data.join("update"))),
            }
            let run = trial.root.agent(&[command]).expect(0, &[]);
            let said = if lost { "nothing of this run will be remembered" } else { "recorded" };
            assert!(run.stderr.contains(said), "{command}: {}", run.stderr);
            trial.assert_boot(active, "1", "2", "");
            drop(guard);
        }
    }
}

#[apply(test)]
fn a_version_that_can_not_read_its_configuration_is_not_healthy() {
    Trial::ready();
    let trial = Trial::booted();
    install(&trial.root, "10-ok", &format!("touch {}", trial.root.path("run/ran").display()));
    trial.root.configure("sever = https://up.example/\n");
    // A default timeout of ten minutes, and no waiting: the file does not mend itself.
    let start = Instant::now();
    let run = trial.root.agent(&["healthcheck", "--json"]).expect(9, &["update.conf", "unknown key `sever`"]);
    assert!(start.elapsed() < Duration::from_secs(60) && !trial.root.path("run/ran").exists());
    assert_eq!(
        run.jq("[.healthy, .on_trial, .confirmed, (.checks | map(.name, .result))]"),
        r#"[false,true,false,["configuration","failed"]]"#
    );
    assert!(run.jq(".checks[0].detail").contains("unknown key `sever`"), "{}", run.stdout);
    trial.assert_boot("B", "0", "2", "");
    let (phase, kind) = (trial.root.state_field("phase"), trial.root.state_field("last_error_kind"));
    assert_eq!((phase.as_str(), kind.as_str()), ("failed", "unhealthy"));
    assert!(trial.root.state_field("last_error").contains("update.conf"));
    // What a damaged machine needs works without it, and says so.
    let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
    assert!(status.jq(".remarks | join(\"; \")").contains("unknown key `sever`"), "{}", status.stdout);
    trial.root.agent(&["verify"]).expect(0, &["unknown key `sever`", "are sound"]);
    for words in [&["check", "--layout", trial.medium.path()][..], &["apply", "--tag", "x"], &["activate"]] {
        trial.root.agent(words).expect(2, &["unknown key `sever`"]);
    }
    for command in ["healthcheck", "status", "verify", "rollback"] {
        trial.root.agent(&[command, "--sever", "x"]).expect(2, &["--sever"]);
    }
    trial
        .root
        .agent(&["verify", "--server", "https://a.example/", "--layout", "/x"])
        .expect(2, &["cannot be used together"]);
    trial.assert_boot("B", "0", "2", "");
    trial.root.agent(&["rollback"]).expect(0, &["unknown key `sever`", "slot A, which was confirmed before"]);
    trial.assert_boot("A", "1", "2", "");
    // GRUB counts, and a version whose configuration was mended passes.
    let mut trial = Trial::booted();
    install(&trial.root, "10-ok", "exit 0");
    trial.root.configure("signature = perhaps\n");
    trial.root.agent(&["healthcheck"]).expect(9, &["NOT healthy", "configuration", "`signature = perhaps`"]);
    trial.root.configure("");
    trial.root.set_boot_variables(&["boot_counter=1"]);
    trial.boot(B);
    trial.root.agent(&["healthcheck"]).expect(0, &["the trial boot is confirmed"]);
}

#[apply(test)]
fn checks_that_can_not_be_listed_are_an_unhealthy_result_that_is_recorded() {
    Trial::ready();
    let trial = Trial::booted();
    install(&trial.root, "10-ok", "exit 0");
    let check = trial.root.path("etc/kubesolo/health.d/10-ok");
    fs::set_permissions(&check, fs::Permissions::from_mode(0o777)).unwrap();
    trial.root.agent(&["healthcheck"]).expect(9, &["NOT healthy", "others than its owner may write it"]);
    assert_eq!(trial.root.state_field("phase"), "failed");
    assert!(trial.root.state_field("last_error").contains("10-ok"));
    fs::remove_dir_all(trial.root.path("etc/kubesolo/health.d")).unwrap();
    fs::write(trial.root.path("etc/kubesolo/health.d"), "").unwrap();
    trial.root.agent(&["healthcheck"]).expect(9, &["health.d: not a directory"]);
    trial.assert_boot("B", "0", "2", "");
}

/// Slot B was confirmed, does not boot any more, and slot A, which runs in its place, is not healthy either.
fn without_a_healthy_slot(damaged: bool) -> Trial {
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    trial.root.agent(&["healthcheck"]).expect(9, &["not on trial"]);
    install(&trial.root, "10-api", "exit 1");
    match damaged {
        true => {
            support::trial::spoil(&mut trial.disk, B, "vmlinuz");
            trial.boot(A);
        }
        false => trial.boot_in_place_of_b(),
    }
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["on trial", "the trial boot is not confirmed"]);
    trial.assert_boot("A", "0", "3", "");
    trial
}

#[apply(test)]
fn without_a_healthy_slot_the_machine_stays_on_the_one_that_boots_and_takes_an_update() {
    Trial::ready();
    for damaged in [false, true] {
        let mut trial = without_a_healthy_slot(damaged);
        // Three boots later GRUB goes back to slot B, which still does not boot.
        trial.root.set_boot_variables(&["active_slot=B", "boot_success=1", "boot_counter=0", "rollback_from=A"]);
        if damaged {
            trial.boot(A)
        } else {
            trial.boot_in_place_of_b()
        }
        // That may have been a loose cable: nothing is decided in this boot.
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["GRUB went back", "not on trial"]);
        trial.assert_boot("B", "1", "0", "A");
        if damaged {
            trial.boot(A)
        } else {
            trial.boot_in_place_of_b()
        }
        let run = trial.root.agent(&["healthcheck", "--timeout", "0"]);
        run.expect(9, &["neither slot is proven", "this boot is not on trial"]);
        trial.assert_boot("A", "1", "0", "");
        assert_eq!(trial.root.state_field("phase"), "rolled_back");
        assert!(trial.root.state_field("last_error").contains("neither slot is proven"));
        // From here on it is as any other machine.
        trial.boot(A);
        let (blocks, state) = (trial.root.blocks(), trial.root.state());
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["this boot is not on trial"]);
        assert!(trial.root.blocks() == blocks && trial.root.state() == state);
        let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
        trial.root.agent(&["apply", "--layout", next.path(), "--activate"]).expect(0, &["slot B is active"]);
    }
}

#[apply(test)]
fn a_slot_that_grub_gave_up_and_a_person_booted_does_not_become_active() {
    Trial::ready();
    let mut trial = without_a_healthy_slot(false);
    trial.root.set_boot_variables(&["active_slot=B", "boot_success=1", "boot_counter=0", "rollback_from=A"]);
    // Slot B loads after all, and slot A was chosen in the menu.
    trial.boot(A);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["rolled back", "this boot is not on trial"]);
    trial.assert_boot("B", "1", "0", "A");
    assert_eq!(trial.root.state_field("target_slot"), "A");
    // And once more: slot B is whole, so it stays active, and GRUB's mark goes.
    trial.boot(A);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["this boot is not on trial"]);
    trial.assert_boot("B", "1", "0", "");
}

#[apply(test)]
fn a_trial_that_grub_does_not_count_and_that_has_no_way_back_ends() {
    Trial::ready();
    let mut trial = without_a_healthy_slot(false);
    // GRUB could not count, went for slot B, and could not load that.
    trial.boot_in_place_of_b();
    let run = trial.root.agent(&["healthcheck", "--timeout", "0"]);
    run.expect(9, &["10-api: exit status 1; GRUB could not load slot B, the way back; neither slot is proven"]);
    trial.assert_boot("A", "1", "3", "");
    assert!(trial.root.state_field("last_error").contains("the way back"));
    // Healthy, it is confirmed as ever.
    let mut trial = without_a_healthy_slot(false);
    trial.boot_in_place_of_b();
    install(&trial.root, "10-api", "exit 0");
    trial.root.agent(&["healthcheck"]).expect(0, &["the trial boot is confirmed"]);
    trial.assert_boot("A", "1", "3", "");
}

#[apply(test)]
fn verify_reads_everything_and_repairs_the_boot_variables_on_request() {
    need_disks();
    need("oras");
    let mut trial = Trial::staged();
    trial
        .root
        .agent(&["verify"])
        .expect(0, &["Slot A  1.0.0", "Slot B  2.0.0", "no signature of it was ever checked", "are sound"]);
    fs::write(trial.root.block("grubenv"), "garbage").unwrap();
    fs::write(trial.root.block("grubenv.bak"), vec![0; 1024]).unwrap();
    trial.root.agent(&["verify"]).expect(7, &["grubenv is 7 bytes long", "--repair-boot-variables"]);
    trial.root.agent(&["activate"]).expect(7, &["--repair-boot-variables"]);
    let run = trial.root.agent(&["verify", "--repair-boot-variables", "--json"]).expect(0, &[]);
    assert_eq!(run.jq("[.boot_variables_sound, .boot_variables_repaired]"), "[true,true]");
    trial.assert_boot("A", "1", "3", "");
    assert_eq!(trial.root.boot_variables()["boot_canary"], "0", "GRUB has to prove itself again");
    let sound = trial.root.blocks();
    trial.root.agent(&["verify", "--repair-boot-variables"]).expect(0, &["are sound"]);
    assert!(trial.root.blocks() == sound);
    // One bad copy is mended by the next write, from the good one.
    trial.root.set_boot_variables(&["boot_canary=1"]);
    fs::remove_file(trial.root.block("grubenv")).unwrap();
    trial.root.agent(&["activate"]).expect(0, &["grubenv is missing", "slot B is active"]);
    trial.assert_boot("B", "0", "3", "");
    trial.root.agent(&["verify", "--slot", "C"]).expect(2, &["A or B"]);
    support::trial::spoil(&mut trial.disk, B, "vmlinuz");
    trial.root.agent(&["verify", "--slot", "B"]).expect(7, &["read slot B", "recorded is sha256:"]);
    trial.root.agent(&["verify", "--slot", "A"]).expect(0, &["Slot A  1.0.0"]);
}

#[apply(test)]
fn a_repair_does_not_confirm_a_trial() {
    Trial::ready();
    let trial = Trial::booted();
    for name in ["grubenv", "grubenv.bak"] {
        let longer = [fs::read(trial.root.block(name)).unwrap(), b"#".to_vec()].concat();
        fs::write(trial.root.block(name), longer).unwrap();
    }
    trial.root.agent(&["verify"]).expect(7, &["1025 bytes long"]);
    trial.root.agent(&["verify", "--repair-boot-variables"]).expect(0, &["were written anew"]);
    trial.assert_boot("B", "0", "2", "");
}
