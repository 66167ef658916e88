use super::*;

const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);

/// An Ethernet frame with an IPv4 packet of this protocol and content, its transport checksum as a kernel leaves it.
fn unfinished(protocol: u8, header: usize, field: usize, content: &[u8], padding: usize) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(IPV4.to_be_bytes());
    let len = header + content.len();
    frame.extend([0x45, 0]);
    frame.extend(((20 + len) as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(V4.0);
    frame.extend(V4.1);
    let mut transport = vec![0x11; header];
    let pseudo = checksum::pseudo_header(V4.0.into(), V4.1.into(), protocol, len as u32);
    transport[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    frame.extend(transport);
    frame.extend(content);
    frame.extend(vec![0xee; padding]);
    frame
}

/// Whether the transport checksum of such a frame is right.
fn verifies(frame: &[u8], protocol: u8, len: usize) -> bool {
    let pseudo = checksum::pseudo_header(V4.0.into(), V4.1.into(), protocol, len as u32);
    checksum::add(pseudo, checksum::sum(&frame[34..34 + len])) == 0xffff
}

#[test]
fn an_unfinished_checksum_is_finished() {
    for (protocol, header, field) in [(TCP, 20, 16), (UDP, 8, 6)] {
        for padding in [0, 7] {
            let mut frame = unfinished(protocol, header, field, b"some odd", padding);
            assert!(!verifies(&frame, protocol, header + 8));
            let shape = Shape::of(&frame);
            assert!(shape.finish_checksum(&mut frame));
            assert!(verifies(&frame, protocol, header + 8), "protocol {protocol}");
            let again = frame.clone();
            assert!(!shape.finish_checksum(&mut frame));
            assert_eq!(frame, again);
        }
    }
}

#[test]
fn a_damaged_checksum_is_left_alone() {
    let mut frame = unfinished(TCP, 20, 16, b"content", 0);
    frame[34 + 16] ^= 0x40;
    let before = frame.clone();
    assert!(!Shape::of(&frame).finish_checksum(&mut frame));
    assert_eq!(frame, before);
}

#[test]
fn a_fragment_is_left_alone() {
    let mut frame = unfinished(UDP, 8, 6, b"content", 0);
    frame[14 + 6] = 0x20;
    assert!(!Shape::of(&frame).finish_checksum(&mut frame));
}

#[test]
fn an_ipv6_packet_behind_a_tag_is_finished_too() {
    let (src, dst) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let mut frame = vec![0; 12];
    frame.extend([0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, TCP, 64]);
    frame.extend(src.octets());
    frame.extend(dst.octets());
    let mut segment = vec![7; 24];
    segment[16..18].copy_from_slice(&checksum::pseudo_header(src.into(), dst.into(), TCP, 24).to_be_bytes());
    frame.extend(&segment);
    let shape = Shape::of(&frame);
    assert_eq!((shape.start, shape.len, shape.is_ip), (18, 64, true));
    assert!(shape.finish_checksum(&mut frame));
    let pseudo = checksum::pseudo_header(src.into(), dst.into(), TCP, 24);
    assert_eq!(checksum::add(pseudo, checksum::sum(&frame[58..])), 0xffff);
}

#[test]
fn the_length_of_a_packet_leaves_padding_out() {
    let frame = unfinished(UDP, 8, 6, b"ab", 16);
    assert_eq!(Shape::of(&frame).len, 30);
}

#[test]
fn any_bytes_have_a_shape() {
    let frame = unfinished(TCP, 20, 16, b"content", 3);
    for len in 0..frame.len() {
        for (at, byte) in [(0, 0u8), (14, 0x4f), (16, 0xff), (17, 0xff), (23, 17), (12, 0x81), (12, 0x86)] {
            let mut bytes = frame[..len].to_vec();
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            let shape = Shape::of(&bytes);
            let _ = shape.finish_checksum(&mut bytes);
            assert!(shape.start + shape.len <= bytes.len().max(shape.start));
        }
    }
}
