use super::*;

const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
AnonHugePages:      2048 kB
Private_Hugetlb:       0 kB
7f0000400000-7f0000800000 rw-p 00000000 00:00 0
AnonHugePages:      4096 kB
7f0000800000-7f0000a00000 rw-p 00000000 00:0f 5 /anon_hugepage (deleted)
AnonHugePages:         0 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr mr mw me dc de ht sd
";

#[test]
fn huge_pages_are_counted_in_the_mappings_of_the_region_only() {
    let bytes = |range| huge_bytes(SMAPS, range);
    assert_eq!(bytes(0x7f00_0000_0000..0x7f00_0040_0000), 2 << 20);
    assert_eq!(bytes(0x7f00_0000_0000..0x7f00_0080_0000), 6 << 20, "a region may lie in two mappings");
    assert_eq!(bytes(0x7f00_0080_0000..0x7f00_00a0_0000), 2 << 20, "reserved pages count as well");
    assert_eq!(bytes(0x7f00_0040_0000..0x7f00_0050_0000), 1 << 20, "no more than the region has");
    assert_eq!(bytes(0x7e00_0000_0000..0x7f00_0000_0000), 0);
}

#[test]
fn a_kernel_without_an_option_is_told_from_one_that_refuses() {
    let text = |number| refused(&io::Error::from_raw_os_error(number), "Linux 6.18");
    assert_eq!(text(libc::ENOPROTOOPT), "this kernel has it not (Linux 6.18 has)");
    assert!(text(libc::EPERM).contains("not permitted"));
}

#[test]
fn every_feature_says_how_much_or_why_not() {
    let gains = Gains { tx_budget: Ok(2048), need_wakeup: Ok(()), ..Gains::none() };
    let features = gains.features("lo");
    let got: Vec<&str> = features.iter().filter(|feature| feature.got).map(|feature| feature.name).collect();
    assert_eq!(got, ["need_wakeup", "tx_budget"]);
    assert!(features.iter().all(|feature| !feature.detail.is_empty()));
    let zero_copy = Gains { zero_copy: Ok(()), ..Gains::none() };
    assert!(zero_copy.features("lo").iter().any(|feature| feature.name == "tx_budget" && feature.got));
}
