use super::*;

#[test]
fn errors_name_the_interface_and_the_command_that_mends_it() {
    let error = PortError::Queues { interface: "eth7".into(), queues: 4, setting: "combined" };
    assert!(error.to_string().contains("ethtool -L eth7 combined 1"));
    let error = PortError::Mtu { interface: "eth7".into(), mtu: 9000, max: 1778, frame_size: 2048 };
    assert!(error.to_string().contains("ip link set dev eth7 mtu 1778`, or set `frame_size = 4096`"));
    let error = PortError::Mtu { interface: "eth7".into(), mtu: 9000, max: 3822, frame_size: 4096 };
    assert!(error.to_string().ends_with("ip link set dev eth7 mtu 3822`"));
}

#[test]
fn a_refused_system_call_is_a_matter_of_privilege() {
    let error = PortError::io("binding", "eth7", io::Error::from_raw_os_error(libc::EPERM));
    assert!(matches!(error, PortError::NoPrivilege { .. }));
    let error = PortError::io("binding", "eth7", io::Error::from_raw_os_error(libc::EINVAL));
    assert!(matches!(error, PortError::Io { .. }));
}

#[test]
fn statistics_list_every_number_once() {
    let stats = PortStats { rx_frames: 1, invalid_descriptors: 9, ..PortStats::default() };
    let names: std::collections::BTreeSet<_> = stats.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), stats.iter().count());
    assert_eq!(stats.iter().map(|(_, value)| value).sum::<u64>(), 10);
}
