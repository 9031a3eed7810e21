//! Tests of the layout's parts; the real e2fsck, the kernel and GRUB judge the whole in tests/disk/remake.rs.

use super::*;

#[test]
fn the_checksum_is_the_one_of_the_rfc() {
    // Source: RFC 3720, appendix B.4, with the final inversion.
    assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    assert_eq!(!crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
    assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
}

#[test]
fn nothing_lies_beyond_the_end_or_on_something_else() {
    for mib in [16u64, 17, 24, 127, 128, 129, 255, 256, 257, 512, 1000, 4096, 20_000] {
        for more in [0, 1, 4095, 4096, 300 << 10] {
            let size = (mib << 20) + more;
            let plan = Plan::new(size).unwrap();
            let identity = Identity { uuid: [1; 16], hash_seed: [2; 16], label: "KSOLOB", made_secs: 5 };
            let mut taken: Vec<(u64, u64)> = Vec::new();
            let mut put = |at: u64, bytes: &[u8]| {
                taken.push((at, at + bytes.len() as u64));
                Ok(())
            };
            plan.write(&identity, &mut put).unwrap();
            assert_eq!(taken.iter().rposition(|(at, _)| *at == 0), Some(taken.len() - 1), "{size}");
            taken.sort_unstable();
            assert!(taken.windows(2).all(|two| two[0].1 <= two[1].0), "{size}");
            assert!(taken.last().unwrap().1 <= size, "{size}");
            let used: u64 = taken.iter().map(|(start, end)| (end - start) / BLOCK_BYTES as u64).sum();
            assert_eq!(u64::from(plan.blocks - plan.free_blocks()), used, "{size}");
        }
    }
}

#[test]
fn what_is_too_small_or_too_large_is_not_planned() {
    for size in [0, 1, 4096, (16 << 20) - 1, 1 << 45, u64::MAX] {
        assert!(Plan::new(size).is_none(), "{size}");
    }
}
