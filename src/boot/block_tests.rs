use super::*;
use crate::boot::vars::BootVars;
use crate::slot::record::Slot;

/// Pads a body as GRUB does.
fn block_of(body: &str) -> Vec<u8> {
    let mut bytes = [SIGNATURE, body.as_bytes()].concat();
    bytes.resize(BLOCK_BYTES, PADDING);
    bytes
}

fn decoded(body: &str) -> Block {
    Block::decode(&block_of(body)).unwrap()
}

#[test]
fn a_fresh_block_is_exactly_this() {
    let expected = block_of("active_slot=B\nboot_success=1\nboot_counter=3\nrollback_from=\nboot_canary=0\n");
    assert_eq!(Block::fresh(Slot::B).encode().unwrap().as_slice(), expected);
}

#[test]
fn edits_change_what_they_say_and_nothing_else() {
    let start =
        "active_slot=A\nboot_success=1\nboot_counter=1\nrollback_from=B\nboot_canary=1\nunknown=\\\\x\\\ny\n# c\n";
    type Edit = fn(&mut Block);
    type Case = (&'static str, Edit, &'static [(&'static str, &'static str)]);
    let cases: [Case; 4] = [
        (
            "activate",
            |b| b.activate(Slot::B),
            &[("active_slot=A", "active_slot=B"), ("boot_success=1", "boot_success=0"), ("counter=1", "counter=3")],
        ),
        ("confirm", Block::confirm, &[]),
        ("back", |b| b.back_to_confirmed(Slot::B), &[("active_slot=A", "active_slot=B")]),
        ("clear", Block::clear_rollback, &[("rollback_from=B", "rollback_from=")]),
    ];
    for (name, edit, changes) in cases {
        let mut block = decoded(start);
        edit(&mut block);
        let expected = changes.iter().fold(start.to_string(), |text, (from, to)| text.replace(from, to));
        assert_eq!(block.encode().unwrap().as_slice(), block_of(&expected), "{name}");
    }
    let mut trial = decoded(&start.replace("boot_success=1", "boot_success=0"));
    trial.confirm();
    assert_eq!(trial.encode().unwrap().as_slice(), block_of(start));
}

#[test]
fn an_edit_adds_what_grub_would_otherwise_append_in_the_second_sector() {
    let filler = format!("filler={}\n", "x".repeat(600));
    let mut block = decoded(&format!("{filler}active_slot=A\nboot_success=1\nboot_counter=0\n"));
    block.activate(Slot::B);
    let expected = format!("active_slot=B\nboot_success=0\nboot_counter=3\nrollback_from=\nboot_canary=0\n{filler}");
    assert_eq!(block.encode().unwrap().as_slice(), block_of(&expected));
}

#[test]
fn boot_variables_are_read_or_named() {
    let whole = "active_slot=B\nboot_success=0\nboot_counter=2\nrollback_from=A\nboot_canary=1\n";
    let vars = BootVars::read_whole(&decoded(whole)).unwrap();
    let expected = BootVars {
        active_slot: Some(Slot::B),
        boot_success: Some(false),
        boot_counter: Some(2),
        rollback_from: Some(Slot::A),
        boot_canary: true,
    };
    assert_eq!(vars, expected);
    let none = BootVars::read(&Block::default()).unwrap();
    assert_eq!((none.active_slot, none.boot_counter, none.boot_canary), (None, None, false));
    assert_eq!(BootVars::read(&decoded("rollback_from=\n")).unwrap().rollback_from, None);

    for (line, says) in [
        ("active_slot=C", "`active_slot=C` makes no sense (expected A or B)"),
        ("active_slot=", "`active_slot=` makes no sense (expected A or B)"),
        ("boot_counter=7", "`boot_counter=7` makes no sense (expected 0 to 3)"),
        ("boot_counter=03", "`boot_counter=03` makes no sense (expected 0 to 3)"),
        ("boot_success=yes", "`boot_success=yes` makes no sense (expected 0 or 1)"),
        ("rollback_from=a", "`rollback_from=a` makes no sense (expected A, B or nothing)"),
        ("boot_canary=", "`boot_canary=` makes no sense (expected 0 or 1)"),
    ] {
        assert_eq!(BootVars::read(&decoded(&format!("{line}\n"))).unwrap_err().to_string(), says);
    }
    for name in ["active_slot", "boot_success", "boot_counter"] {
        let mut block = decoded(whole);
        block.remove(name);
        assert!(BootVars::read_whole(&block).unwrap_err().to_string().starts_with(&format!("`{name}` is not set")));
    }
}

#[test]
fn no_room_is_said_before_anything_is_written() {
    let mut block = Block::fresh(Slot::A);
    let used = SIGNATURE.len() + block.lines_bytes() + "x=\n".len();
    block.set("x", &vec![b'y'; BLOCK_BYTES - used]).unwrap();
    let full = block.encode().unwrap();
    assert_eq!(full.last(), Some(&b'\n'));
    assert_eq!(Block::decode(&full).unwrap(), block);
    // GRUB could not write `rollback_from=A` into it, so it must not become a trial.
    block.activate(Slot::B);
    assert_eq!(block.encode(), Err(Refused::NoRoom(1)));
    block.confirm();
    assert!(block.encode().is_ok(), "a confirmation must not fail for room");
    block.set("y", b"").unwrap();
    assert_eq!(block.encode(), Err(Refused::NoRoom(3)));

    let mut wide = Block::fresh(Slot::A);
    let used = SIGNATURE.len() + wide.lines_bytes() - 1;
    wide.set("boot_canary", &[b'0'; SECTOR_BYTES]).unwrap();
    assert_eq!(wide.encode(), Err(Refused::FirstSector(used)));
}

#[test]
fn names_and_values_that_would_not_read_back_are_refused() {
    let mut block = Block::default();
    for name in ["", "#x", "a=b", "a\nb", "a\0", "a\\"] {
        assert!(matches!(block.set(name, b"v"), Err(Refused::Name(_))), "{name:?}");
    }
    for value in [b"a\0b".as_slice(), b"a\r"] {
        assert_eq!(block.set("n", value), Err(Refused::Value("n".into())));
    }
    assert_eq!(block, Block::default());
}

#[test]
fn lenient_reading_is_grubs_own() {
    type Case = (&'static [u8], Option<&'static [(&'static str, &'static str)]>);
    let cases: [Case; 8] = [
        (b"", None),
        (b"# GRUB Environment Block\n", None),
        (b"# GRUB Environment Block\r\na=b\r\n", None),
        (b"# GRUB Environment Block\na=1\na=2\n", Some(&[("a", "2")])),
        (b"# GRUB Environment Block\na=1\r\nb=\\q\n\0\0\0", Some(&[("a", "1\r"), ("b", "q")])),
        (b"# GRUB Environment Block\nlost\na=1\nb=2\n###", Some(&[("lost\na", "1"), ("b", "2")])),
        (b"# GRUB Environment Block\n#a=1\nb=2\nc=3###", Some(&[("b", "2")])),
        (b"# GRUB Environment Block\na=1\0x\nb\\", Some(&[("a", "1")])),
    ];
    for (bytes, expected) in cases {
        let block = Block::decode_lenient(bytes);
        let vars: Option<Vec<_>> =
            block.as_ref().map(|b| b.variables().map(|(n, v)| (shown_raw(n), shown_raw(v))).collect());
        let expected = expected.map(|e| e.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect::<Vec<_>>());
        assert_eq!(vars, expected, "{:?}", String::from_utf8_lossy(bytes));
    }
    let swallowed = Block::decode_lenient(b"# GRUB Environment Block\nlost\na=1\n").unwrap();
    assert_eq!(swallowed.encode(), Err(Refused::Damaged(Damage::NoEquals(2))));
}

#[test]
fn no_bytes_make_it_panic() {
    let mut seed = 0x5eed_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = block_of("active_slot=A\nboot_success=1\nx=\\\\\n");
        for _ in 0..next() % 6 {
            let at = next() % 90;
            bytes[at] = b"\\\n=#\r\0A\xff"[next() % 8];
        }
        bytes.truncate(if next() % 4 == 0 { next() % 1025 } else { 1024 });
        if let Ok(block) = Block::decode(&bytes) {
            let _ = BootVars::read_whole(&block);
            if let Ok(again) = block.encode() {
                assert!(Block::decode(&again).is_ok());
            }
            // Strict reading and GRUB's own agree on what the strict one accepts.
            assert_eq!(Block::decode_lenient(&bytes).as_ref(), Some(&block));
        } else if let Some(block) = Block::decode_lenient(&bytes) {
            let _ = block.encode();
        }
    }
}

fn shown_raw(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Block {
    fn lines_bytes(&self) -> usize {
        self.variables().map(|(n, v)| n.len() + v.len() + 2).sum()
    }
}
