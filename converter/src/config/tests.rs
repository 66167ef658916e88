//! What a configuration may say, and what is said about one that is wrong.

use proptest::prelude::*;

use super::*;

const BASE: &str = r#"
[[port]]
name      = "wan0"
interface = "eth1"
addresses = ["192.0.2.1/24", "2001:db8::1/64"]

[[port]]
name      = "core0"
interface = "eth2"
addresses = ["198.51.100.2/24", "198.51.100.3/24"]

[[route]]
prefix = "0.0.0.0/0"
via    = "198.51.100.1"
port   = "core0"

[explicit]
ports   = ["wan0"]
dst_opt = { exid = 0x4d42 }
source  = ["198.51.100.2"]

[transparent]
from     = ["wan0"]
announce = ["192.0.2.1"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "box.toml")
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The one problem of a text: its place, what and help.
fn problem(text: &str) -> (String, String, String) {
    let error = parse(text).expect_err("the text is wrong");
    assert_eq!(error.problems.len(), 1, "one mistake is one problem:\n{error}");
    let Problem { line, column, what, help, .. } = error.problems[0].clone();
    (format!("{line}:{column}"), what, help)
}

/// The problem of [`BASE`] with `old` replaced by `new`.
fn changed(old: &str, new: &str) -> (String, String, String) {
    assert!(BASE.contains(old), "{old:?} is in the base text");
    problem(&BASE.replacen(old, new, 1))
}

/// The problem of [`BASE`] with `more` behind it.
fn with(more: &str) -> (String, String, String) {
    problem(&format!("{BASE}\n{more}"))
}

fn assert_says(found: &(String, String, String), place: &str, what: &str, help: &str) {
    assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), (place, what, help));
}

#[test]
fn the_example_gives_plain_values() {
    let config = good(BASE);
    assert_eq!(config.ports[0].id, PortId(0));
    assert_eq!(config.ports[1].interface, "eth2");
    assert_eq!(config.ports[0].backend, Backend::AfXdp);
    assert_eq!(config.routes[0].port, PortId(1));
    assert_eq!(config.routes[0].prefix.to_string(), "0.0.0.0/0");
    let explicit = config.explicit.as_ref().expect("explicit mode is on");
    assert_eq!((explicit.exid, explicit.ports.as_slice()), (0x4d42, [PortId(0)].as_slice()));
    assert_eq!(explicit.source, ["198.51.100.2".parse::<IpAddr>().expect("an address")]);
    assert_eq!(config.transparent.as_ref().expect("transparent mode is on").from, [PortId(0)]);
    assert!(config.owns("2001:db8::1".parse().expect("an address")));
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let config = good(BASE);
    assert_eq!(config.mptcp.scheduler, Scheduler::LowestRtt);
    assert_eq!(config.tcp.min_rto, Duration::from_millis(200));
    assert_eq!(config.tcp.keepalive, Some(Duration::from_secs(7200)));
    assert_eq!((config.limits.frames, config.limits.frame_size, config.limits.rx_reserve), (65_536, 2048, 8192));
    assert_eq!((config.limits.window_floor, config.limits.window_ceiling), (64, 4096));
    assert_eq!(config.admin.socket, PathBuf::from(DEFAULT_SOCKET));
    assert_eq!((config.worker.wait, config.worker.cpu, config.worker.ring), (Wait::Sleep, None, 2048));
}

#[test]
fn pacing_is_off_unless_asked_for_and_reaches_the_connections() {
    let paced = |config: &Config| crate::settings::Settings::new(config).tcp.pacing;
    assert!(!paced(&good(BASE)));
    let config = good(&format!("{BASE}\n[tcp]\npacing = true"));
    assert!(paced(&config) && paced(&good(&config.to_toml())));
}

#[test]
fn without_sources_the_ports_towards_servers_give_theirs() {
    let config = good(&BASE.replace("source  = [\"198.51.100.2\"]", ""));
    let source: Vec<String> =
        config.explicit.expect("explicit mode is on").source.iter().map(ToString::to_string).collect();
    assert_eq!(source, ["198.51.100.2", "198.51.100.3"]);
}

#[test]
fn without_announcements_the_client_ports_give_theirs() {
    let config = good(&BASE.replace("announce = [\"192.0.2.1\"]", ""));
    let announce: Vec<String> =
        config.transparent.expect("transparent mode is on").announce.iter().map(ToString::to_string).collect();
    assert_eq!(announce, ["192.0.2.1", "2001:db8::1"]);
}

#[test]
fn a_route_without_a_port_takes_the_one_whose_link_has_its_next_hop() {
    let config = good(&BASE.replace("port   = \"core0\"", ""));
    assert_eq!(config.routes[0].port, PortId(1));
}

#[test]
fn link_local_networks_may_be_on_every_port() {
    let text = BASE.replace("\"2001:db8::1/64\"", "\"fe80::1/64\"").replace("\"198.51.100.3/24\"", "\"fe80::2/64\"");
    good(&text);
}

#[test]
fn a_written_out_configuration_reads_back_unchanged() {
    let more = "[tcp]\nkeepalive = \"off\"\nmin_rto = \"1500us\"\n[policy]\ndeny = [\"10.0.0.0/8\"]\n[worker]\ncpu = 1";
    let mut config = good(&format!("{BASE}\n{more}"));
    config.ports[0].mac = Some([2, 0, 0, 0, 0, 1]);
    config.ports[1].mtu = Some(3506);
    assert_eq!(good(&config.to_toml()), config);
}

#[test]
fn an_error_shows_file_place_line_mark_and_help() {
    let error = parse(&BASE.replacen("interface", "interfce ", 1)).expect_err("the key is mistyped");
    assert_eq!(
        error.to_string(),
        "box.toml:4:1: unknown key \"interfce\"\n    interfce  = \"eth1\"\n    ^^^^^^^^\n    help: did you mean \"interface\"?"
    );
}

#[test]
fn every_problem_is_reported_in_the_order_of_lines() {
    let text = BASE.replace("198.51.100.1\"", "203.0.113.1\"").replace("name      = \"wan0\"", "name = \"wan 0\"");
    let error = parse(&text).expect_err("the text is wrong");
    let lines: Vec<usize> = error.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 14, 18, 23], "{error}");
}

#[test]
fn a_key_that_is_like_no_other_lists_the_keys() {
    let found = with("[admin]\nfrobnicate = 1");
    assert_says(&found, "27:1", "unknown key \"frobnicate\"", "the keys here are socket");
}

#[test]
fn an_unknown_section_is_an_unknown_key() {
    let found = with("[limit]\nframes = 1024");
    assert_says(&found, "26:2", "unknown key \"limit\"", "did you mean \"limits\"?");
}

#[test]
fn a_value_of_the_wrong_type_says_what_belongs_there() {
    let found = changed("ports   = [\"wan0\"]", "ports   = \"wan0\"");
    assert_says(
        &found,
        "18:11",
        "this is a text \"wan0\", but a list ([\"…\", \"…\"]) belongs here",
        "write a list ([\"…\", \"…\"])",
    );
    let found = with("[limits]\nframes = \"many\"");
    assert_says(&found, "27:10", "this is a text \"many\", but a whole number belongs here", "write a whole number");
    let found = with("[tcp]\nsack = 1");
    assert_says(&found, "27:8", "this is an integer 1, but true or false belongs here", "write true or false");
}

#[test]
fn text_that_is_not_toml_is_said_to_be_none() {
    let (place, what, help) = problem("[[port]\nname = 1");
    assert_eq!(place, "1:8");
    assert!(what.starts_with("not valid TOML: "), "{what}");
    assert_eq!(help, "mend the line; https://toml.io shows how TOML is written");
}

#[test]
fn a_missing_file_is_an_error_without_a_place() {
    let error = Config::load(Path::new("/nonexistent/box.toml")).expect_err("there is no such file");
    assert_eq!(
        error.to_string(),
        "/nonexistent/box.toml: the configuration cannot be read: No such file or directory (os error 2)\n    \
         help: give the path of a configuration file with -c"
    );
}

#[test]
fn a_file_that_is_not_utf8_is_said_to_be_so() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), b"name = \"\xff\"").expect("it can be written");
    let error = Config::load(file.path()).expect_err("not UTF-8").to_string();
    assert!(error.ends_with("help: write the file in UTF-8"), "{error}");
}

#[test]
fn an_empty_file_has_no_port() {
    let found = problem("");
    assert_says(&found, "0:0", "no port is configured", "add a [[port]] with name, interface and addresses");
}

#[test]
fn a_box_without_a_mode_is_refused() {
    let cut = BASE.find("[explicit]").expect("the section is there");
    let found = problem(&BASE[..cut]);
    assert_eq!(found.1, "no mode is on: the box would convert nothing");
    assert_eq!(found.2, "add [explicit] with ports = [\"NAME\"], or [transparent] with from = [\"NAME\"]");
}

#[test]
fn a_port_needs_name_interface_and_addresses() {
    let port = "[[port]]\nname = \"x\"\ninterface = \"eth9\"\naddresses = [\"10.0.0.1/8\"]";
    let without = |line: &str| with(&port.replace(line, ""));
    assert_says(
        &without("name = \"x\""),
        "26:1",
        "a [[port]] needs a name",
        "write name = \"wan0\", the box's own word for it",
    );
    assert_says(
        &without("interface = \"eth9\""),
        "26:1",
        "a [[port]] needs an interface",
        "write interface = \"eth1\"; `ip -brief link` lists the interfaces",
    );
    assert_says(
        &without("addresses = [\"10.0.0.1/8\"]"),
        "26:1",
        "a [[port]] needs at least one address",
        "write addresses = [\"192.0.2.1/24\"]: the box answers ARP and NDP for them itself",
    );
    assert_eq!(without("\"10.0.0.1/8\"").1, "a [[port]] needs at least one address");
}

#[test]
fn more_ports_than_a_box_can_have_are_refused() {
    let mut text = BASE.to_owned();
    for n in 0..63 {
        text += &format!("[[port]]\nname = \"p{n}\"\ninterface = \"if{n}\"\naddresses = [\"10.{n}.0.1/16\"]\n");
    }
    text += "[limits]\nframes = 1048576\n";
    assert_eq!(problem(&text).1, "more than 64 ports");
}

#[test]
fn names_are_words() {
    let help = "use letters, digits, '-', '_' and '.'";
    for name in ["core 0", "", "größe"] {
        let found = with(&format!("[[port]]\nname = {name:?}\ninterface = \"eth9\"\naddresses = [\"10.0.0.1/8\"]"));
        assert_says(&found, "27:8", &format!("{name:?} cannot be a port's name"), help);
    }
}

#[test]
fn two_ports_cannot_have_one_name() {
    let found = with("[[port]]\nname = \"wan0\"\ninterface = \"eth9\"\naddresses = [\"10.0.0.1/8\"]");
    assert_says(&found, "27:8", "two ports have the name \"wan0\"", "give each its own name");
}

#[test]
fn interfaces_are_names_and_used_once() {
    let found = changed("\"eth2\"", "\"eth1\"");
    assert_says(
        &found,
        "9:13",
        "interface \"eth1\" is port \"wan0\" already",
        "use each interface once; one port can have several addresses",
    );
    let found = changed("\"eth2\"", "\"a-name-that-is-too-long\"");
    assert_says(
        &found,
        "9:13",
        "\"a-name-that-is-too-long\" cannot be an interface's name",
        "write a name that `ip -brief link` lists (at most 15 characters)",
    );
}

#[test]
fn addresses_are_addresses_with_a_length() {
    let address = |word: &str| changed("\"198.51.100.3/24\"", &format!("{word:?}"));
    assert_says(
        &address("10.1.2.3"),
        "10:33",
        "\"10.1.2.3\" has no prefix length",
        "write \"10.1.2.3/24\", with the length that your network has",
    );
    assert_says(
        &address("somewhere"),
        "10:33",
        "\"somewhere\" is not an address with a prefix length",
        "write 192.0.2.1/24 or 2001:db8::1/64",
    );
    assert_says(
        &address("10.1.2/24"),
        "10:33",
        "\"10.1.2\" is not an IP address",
        "write an address such as 192.0.2.1 or 2001:db8::1 before the slash",
    );
    assert_says(
        &address("10.1.2.3/33"),
        "10:33",
        "\"33\" is not a prefix length of an IPv4 address",
        "write a number from 0 to 32 behind the slash",
    );
    assert_says(
        &address("2001:db8:1::1/x"),
        "10:33",
        "\"x\" is not a prefix length of an IPv6 address",
        "write a number from 0 to 128 behind the slash",
    );
}

#[test]
fn addresses_that_no_host_has_are_refused() {
    for (address, why) in [
        ("224.0.0.1/24", "is a multicast address"),
        ("ff02::1/64", "is a multicast address"),
        ("127.0.0.1/8", "is a loopback address"),
        ("::/64", "is the unspecified address"),
        ("10.0.0.1/0", "has prefix length 0: every address would be on the link"),
        ("10.0.0.0/8", "is the network's own address"),
        ("10.255.255.255/8", "is the network's broadcast address"),
    ] {
        let found = changed("\"198.51.100.3/24\"", &format!("{address:?}"));
        let help = "give the box a host address of the network on that port";
        assert_says(&found, "10:33", &format!("{address} {why}"), help);
    }
}

#[test]
fn the_two_addresses_of_a_point_to_point_link_are_hosts() {
    good(&BASE.replace("\"198.51.100.3/24\"", "\"10.0.0.0/31\""));
}

#[test]
fn an_address_belongs_to_one_port() {
    let found = changed("\"198.51.100.3/24\"", "\"192.0.2.1/24\"");
    assert_says(
        &found,
        "10:33",
        "the address 192.0.2.1 is used twice (first by port \"wan0\")",
        "give each address to one port, once",
    );
    let found = changed("\"198.51.100.3/24\"", "\"198.51.100.2/24\"");
    assert_eq!(found.1, "the address 198.51.100.2 is used twice (first by this port)");
}

#[test]
fn networks_of_two_ports_do_not_overlap() {
    let found = changed("\"198.51.100.3/24\"", "\"192.0.2.200/25\"");
    assert_says(
        &found,
        "10:33",
        "the network 192.0.2.128/25 overlaps 192.0.2.0/24 of port \"wan0\"",
        "a network can be behind one port only: mend the prefix lengths, or put both addresses on one port",
    );
}

#[test]
fn an_ethernet_address_is_six_bytes_of_one_host() {
    for (mac, why) in [
        ("02:00:00:00:01", "is not an Ethernet address"),
        ("02:00:00:00:00:0g", "is not an Ethernet address"),
        ("01:00:5e:00:00:01", "is a group address, which no port can have"),
        ("00:00:00:00:00:00", "is the empty Ethernet address"),
    ] {
        let found = changed("interface = \"eth2\"", &format!("interface = \"eth2\"\nmac = {mac:?}"));
        let help = "write six bytes such as \"02:00:00:00:00:01\", or leave the key out to use the interface's own";
        assert_says(&found, "10:7", &format!("{mac:?} {why}"), help);
    }
}

#[test]
fn a_port_setting_out_of_range_or_unknown_is_refused() {
    let setting = |line: &str| changed("interface = \"eth2\"", &format!("interface = \"eth2\"\n{line}"));
    let found = setting("mtu = 9000");
    assert_says(
        &found,
        "10:7",
        "mtu = 9000 is out of range",
        "write a number from 68 to 3822; without the key it is 1500",
    );
    let found = setting("queue = -1");
    assert_says(&found, "10:9", "queue = -1 is out of range", "write a number from 0 to 1023; without the key it is 0");
    let found = setting("backend = \"af-xdp\"");
    assert_says(&found, "10:11", "backend = \"af-xdp\" is not known", "did you mean \"af_xdp\"?");
    let found = setting("mode = \"driver\"");
    assert_says(&found, "10:8", "mode = \"driver\" is not known", "write one of \"auto\", \"native\", \"generic\"");
    let found = setting("copy = \"zerocopy\"");
    assert_says(&found, "10:8", "copy = \"zerocopy\" is not known", "did you mean \"zero-copy\"?");
}

#[test]
fn a_route_needs_prefix_and_via() {
    let found = with("[[route]]\nprefix = \"10.0.0.0/8\"");
    assert_says(
        &found,
        "26:1",
        "a [[route]] needs prefix and via",
        "write prefix = \"0.0.0.0/0\" and via = \"ADDRESS OF THE ROUTER\"",
    );
}

#[test]
fn a_prefix_has_no_host_bits() {
    let found = changed("\"0.0.0.0/0\"", "\"10.1.0.0/8\"");
    assert_says(
        &found,
        "13:10",
        "10.1.0.0/8 is not a network: bits behind the prefix length are set",
        "write \"10.0.0.0/8\", or \"10.1.0.0/32\" for the one address",
    );
}

#[test]
fn a_destination_has_one_route() {
    let found = with("[[route]]\nprefix = \"0.0.0.0/0\"\nvia = \"198.51.100.9\"");
    assert_says(&found, "27:10", "a route to 0.0.0.0/0 stands in line 13 already", "keep one of the two");
}

#[test]
fn a_next_hop_is_an_address_of_the_same_ip_version() {
    let found = changed("\"198.51.100.1\"", "\"2001:db8::9\"");
    assert_says(
        &found,
        "14:10",
        "the route to 0.0.0.0/0 goes via 2001:db8::9, which is of the other IP version",
        "give the router's address of the same IP version as the prefix",
    );
    let found = changed("\"198.51.100.1\"", "\"gateway\"");
    assert_says(
        &found,
        "14:10",
        "\"gateway\" is not an IP address",
        "write an address such as 192.0.2.1 or 2001:db8::1",
    );
    assert_eq!(changed("\"198.51.100.1\"", "\"198.51.100.1/24\"").2, "leave out the prefix length");
}

#[test]
fn a_next_hop_is_on_the_link_of_its_port() {
    let found = changed("\"198.51.100.1\"", "\"192.0.2.9\"");
    assert_says(
        &found,
        "14:10",
        "the next hop 192.0.2.9 is on none of the networks of port \"core0\"",
        "it is on the link of port \"wan0\": write port = \"wan0\"",
    );
    let found = changed("\"198.51.100.1\"", "\"203.0.113.1\"");
    assert_says(
        &found,
        "14:10",
        "the next hop 203.0.113.1 is on none of the networks of port \"core0\"",
        "give port \"core0\" an address in the next hop's network, or mend the next hop",
    );
    let found = changed("\"198.51.100.1\"\nport   = \"core0\"", "\"203.0.113.1\"");
    assert_says(
        &found,
        "14:10",
        "the next hop 203.0.113.1 cannot be reached: it is on no port's network",
        "give a port an address in the next hop's network, or mend the next hop",
    );
}

#[test]
fn a_next_hop_that_may_be_behind_two_ports_needs_the_port() {
    let text = BASE
        .replace("\"2001:db8::1/64\"", "\"fe80::1/64\"")
        .replace("\"198.51.100.3/24\"", "\"fe80::2/64\"")
        .replace("\"0.0.0.0/0\"\nvia    = \"198.51.100.1\"\nport   = \"core0\"", "\"::/0\"\nvia = \"fe80::9\"");
    let found = problem(&text);
    assert_says(
        &found,
        "14:7",
        "the next hop fe80::9 may be behind port \"wan0\" or \"core0\"",
        "say which: port = \"wan0\"",
    );
}

#[test]
fn a_next_hop_is_not_the_box_itself() {
    let found = changed("\"198.51.100.1\"", "\"198.51.100.3\"");
    assert_says(
        &found,
        "14:10",
        "the next hop 198.51.100.3 is the box's own address",
        "give the address of the router, not of the box",
    );
}

#[test]
fn a_port_that_is_not_there_is_named_with_the_nearest() {
    let found = changed("port   = \"core0\"", "port   = \"core1\"");
    assert_says(&found, "15:10", "no port has the name \"core1\"", "did you mean \"core0\"?");
    let found = changed("ports   = [\"wan0\"]", "ports   = [\"wan0\", \"elsewhere\"]");
    assert_says(&found, "18:20", "no port has the name \"elsewhere\"", "the ports are \"wan0\", \"core0\"");
}

#[test]
fn modes_name_one_or_more_ports_once() {
    let found = changed("ports   = [\"wan0\"]", "ports   = []");
    let help = "write ports = [\"NAME\"]";
    assert_says(&found, "18:11", "[explicit] needs ports: the names of one or more ports", help);
    let found = changed("ports   = [\"wan0\"]", "");
    assert_says(&found, "17:1", "[explicit] needs ports: the names of one or more ports", help);
    let found = changed("from     = [\"wan0\"]", "from     = []");
    assert_eq!(found.1, "[transparent] needs from: the names of one or more ports");
    let found = changed("ports   = [\"wan0\"]", "ports   = [\"wan0\", \"wan0\"]");
    assert_says(&found, "18:20", "port \"wan0\" is named twice", "name it once");
}

#[test]
fn sources_and_announcements_are_the_boxs_own() {
    let help = "add it to the addresses of a [[port]], or name one that stands there";
    let found = changed("source  = [\"198.51.100.2\"]", "source  = [\"198.51.100.77\"]");
    assert_says(&found, "20:12", "198.51.100.77 in source is not an address of the box", help);
    let found = changed("announce = [\"192.0.2.1\"]", "announce = [\"192.0.2.77\"]");
    assert_says(&found, "24:13", "192.0.2.77 in announce is not an address of the box", help);
    let found = changed("source  = [\"198.51.100.2\"]", "source  = [\"198.51.100.2\", \"198.51.100.2\"]");
    assert_says(&found, "20:28", "198.51.100.2 is named twice", "name it once");
    let found = changed("source  = [\"198.51.100.2\"]", "source  = []");
    assert_says(
        &found,
        "20:11",
        "the list of source addresses is empty",
        "name addresses of the box, or leave the key out to use those of the ports towards servers",
    );
}

#[test]
fn a_box_with_link_local_addresses_only_cannot_reach_servers() {
    let found = problem(
        "[[port]]\nname = \"a\"\ninterface = \"eth1\"\naddresses = [\"fe80::1/64\"]\n[explicit]\nports = [\"a\"]",
    );
    assert_says(
        &found,
        "5:1",
        "[explicit] has no address towards servers: all of the box's are link-local",
        "give a port towards servers an address that they can answer to",
    );
}

#[test]
fn an_exid_has_sixteen_bits() {
    let found = changed("0x4d42", "0x14d42");
    assert_says(
        &found,
        "19:20",
        "exid = 85314 is out of range",
        "write a number from 1 to 65535; without the key it is 19778",
    );
}

#[test]
fn the_policy_lists_networks() {
    let found = with("[policy]\ndeny = [\"10.0.0.1/8\"]");
    assert_eq!(found.1, "10.0.0.1/8 is not a network: bits behind the prefix length are set");
    let policy = good(&format!("{BASE}\n[policy]\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.9.0.0/16\"]")).policy;
    assert!(policy.allows_destination("10.1.0.1".parse().expect("an address")));
    assert!(!policy.allows_destination("10.9.0.1".parse().expect("an address")));
    assert!(!policy.allows_destination("192.0.2.9".parse().expect("an address")));
    assert!(policy.allows_client("2001:db8::9".parse().expect("an address")));
}

#[test]
fn every_scheduler_and_congestion_control_has_its_word() {
    for scheduler in Scheduler::ALL {
        let config = good(&format!("{BASE}\n[mptcp]\nscheduler = \"{}\"", scheduler.name()));
        assert_eq!(config.mptcp.scheduler, *scheduler);
    }
    for congestion in Congestion::ALL {
        let config = good(&format!("{BASE}\n[mptcp]\ncongestion = \"{}\"", congestion.name()));
        assert_eq!(config.mptcp.congestion, *congestion);
    }
    let found = with("[mptcp]\nscheduler = \"blesst\"");
    assert_says(&found, "27:13", "scheduler = \"blesst\" is not known", "did you mean \"blest\"?");
}

#[test]
fn the_first_rule_that_fits_decides() {
    let policy = good(&format!(
        "{BASE}\n[[policy.rule]]\nclients = [\"10.0.0.0/8\"]\nports = [5060, 5061]\nscheduler = \"redundant\"\n\
         [[policy.rule]]\nservers = [\"203.0.113.0/24\"]\ncongestion = \"lia\"\nsubflows = 2\nannounce = 0\n"
    ))
    .policy;
    let rule = |client: &str, server: &str, port| {
        let at = policy.rule(client.parse().expect("an address"), server.parse().expect("an address"), port)?;
        policy.rules.iter().position(|rule| std::ptr::eq(rule, at))
    };
    assert_eq!(rule("10.1.1.1", "203.0.113.9", 5060), Some(0));
    assert_eq!(rule("10.1.1.1", "203.0.113.9", 443), Some(1));
    assert_eq!(rule("192.0.2.1", "203.0.113.9", 5060), Some(1));
    assert_eq!(rule("192.0.2.1", "198.51.100.9", 5060), None);
    assert_eq!((policy.rules[1].subflows, policy.rules[1].announce), (Some(2), Some(0)));
}

#[test]
fn a_rule_must_change_something() {
    let found = with("[[policy.rule]]\nports = [80]");
    assert_eq!(found.1, "the [[policy.rule]] changes nothing");
    assert_eq!(with("[[policy.rule]]\nports = [0]\nsubflows = 2").1, "ports = 0 is out of range");
    assert_eq!(with("[[policy.rule]]\nsubflows = 9").1, "subflows = 9 is out of range");
}

#[test]
fn a_configuration_with_rules_reads_back_as_it_was() {
    let config = good(&format!(
        "{BASE}\n[mptcp]\nannounce = 3\n[[policy.rule]]\nclients = [\"10.0.0.0/8\"]\nports = [80]\n\
         congestion = \"balia\"\n[[policy.rule]]\nservers = [\"2001:db8::/32\"]\nscheduler = \"blest\"\nannounce = 1\n"
    ));
    assert_eq!(good(&config.to_toml()), config);
}

#[test]
fn coupled_congestion_control_is_nothing_for_plain_tcp() {
    let found = with("[tcp]\ncongestion = \"lia\"");
    assert_says(
        &found,
        "27:14",
        "congestion = \"lia\" couples subflows, which plain TCP does not have",
        "write one of \"cubic\", \"newreno\", \"bbr\" here",
    );
    assert_eq!(with("[tcp]\ncongestion = \"cubik\"").2, "did you mean \"cubic\"?");
}

#[test]
fn times_have_a_unit_and_a_range() {
    let found = with("[tcp]\nmin_rto = \"200\"");
    assert_says(
        &found,
        "27:11",
        "min_rto = \"200\" is not a time",
        "write a whole number with a unit (us, ms, s, m, h), such as \"200ms\"",
    );
    let found = with("[tcp]\nuser_timeout = \"0s\"");
    assert_says(
        &found,
        "27:16",
        "user_timeout = \"0s\" is out of range",
        "write a time from 1s to 24h; without the key it is 15m",
    );
    for word in ["99999999999999999999s", "s", "1.5s", "-1s", "1 day", ""] {
        assert_eq!(with(&format!("[tcp]\ntime_wait = {word:?}")).1, format!("time_wait = {word:?} is not a time"));
    }
    for (key, section) in [
        ("max_rto", "tcp"),
        ("delayed_ack", "tcp"),
        ("keepalive", "tcp"),
        ("no_subflow_timeout", "mptcp"),
        ("half_open_timeout", "limits"),
        ("drain", "worker"),
        ("next_hop_wait", "worker"),
    ] {
        let found = with(&format!("[{section}]\n{key} = \"9000h\""));
        assert_eq!(found.1, format!("{key} = \"9000h\" is out of range"));
    }
}

#[test]
fn the_longest_timeout_is_not_shorter_than_the_shortest() {
    let found = with("[tcp]\nmin_rto = \"5s\"\nmax_rto = \"2s\"");
    assert_says(&found, "28:11", "max_rto is shorter than min_rto", "make max_rto the longer one");
}

#[test]
fn numbers_have_their_range() {
    for (section, key, value) in [
        ("mptcp", "subflows", 9),
        ("tcp", "initial_window", 0),
        ("limits", "conversions", 0),
        ("limits", "half_open", 1),
        ("limits", "half_open_per_source", 20_000),
        ("limits", "time_wait", -1),
        ("limits", "neighbours", 1),
        ("limits", "frames", 5_000_000),
        ("limits", "rx_reserve", 60_000),
        ("limits", "window_floor", 0),
        ("limits", "window_ceiling", 60_000),
        ("worker", "cpu", 5000),
        ("worker", "batch", 0),
        ("worker", "ring", 10),
    ] {
        let (_, what, help) = with(&format!("[{section}]\n{key} = {value}"));
        assert_eq!(what, format!("{key} = {value} is out of range"));
        assert!(help.starts_with("write a number from ") && help.contains("; without the key it is "), "{help}");
    }
}

#[test]
fn a_frame_has_2048_or_4096_bytes() {
    assert_eq!(good(&format!("{BASE}\n[limits]\nframe_size = 4096")).limits.frame_size, 4096);
    let found = with("[limits]\nframe_size = 3000");
    assert_says(&found, "27:14", "frame_size = 3000 is not possible", "write 2048 or 4096");
}

#[test]
fn windows_have_their_floor_below_their_ceiling() {
    let found = with("[limits]\nwindow_floor = 200\nwindow_ceiling = 100");
    assert_says(
        &found,
        "27:16",
        "window_floor = 200 is above window_ceiling = 100",
        "make window_ceiling the larger one",
    );
}

#[test]
fn a_ring_is_a_power_of_two() {
    let found = with("[worker]\nring = 1000");
    assert_says(&found, "27:8", "ring = 1000 is not a power of two", "write 512 or 1024");
}

#[test]
fn frames_suffice_for_the_rings() {
    let found = with("[limits]\nframes = 4096");
    assert_says(
        &found,
        "27:10",
        "4096 frames are too few: 2 ports with rings of 2048 need 8768",
        "set frames to 16384 or more, or make ring in [worker] smaller",
    );
    let found = with("[worker]\nring = 32768");
    assert_eq!((found.0.as_str(), found.1.starts_with("65536 frames are too few")), ("0:0", true));
}

#[test]
fn the_admin_socket_is_an_absolute_path() {
    let found = with("[admin]\nsocket = \"box.sock\"");
    assert_says(
        &found,
        "27:10",
        "\"box.sock\" cannot be the admin socket's path",
        "write an absolute path of at most 107 bytes, such as \"/run/mimbox.sock\"",
    );
    assert!(parse(&format!("{BASE}\n[admin]\nsocket = \"/{}\"", "x".repeat(107))).is_err());
}

#[test]
fn prefixes_contain_what_they_should() {
    let prefix = |text: &str| {
        let (addr, len) = text.split_once('/').expect("a slash");
        Prefix::of(addr.parse().expect("an address"), len.parse().expect("a length")).expect("a prefix")
    };
    assert!(prefix("0.0.0.0/0").contains("203.0.113.7".parse().expect("an address")));
    assert!(!prefix("0.0.0.0/0").contains("2001:db8::1".parse().expect("an address")));
    assert!(prefix("2001:db8::/32").overlaps(&prefix("2001:db8:7::/48")));
    assert!(!prefix("10.0.0.0/9").overlaps(&prefix("10.128.0.0/9")));
    assert_eq!(Prefix::of("10.0.0.1".parse().expect("an address"), 33), None);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in ".{0,200}") {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.problems.is_empty());
            let _ = error.to_string();
        }
    }

    #[test]
    fn a_changed_character_is_read_or_refused_without_a_panic(at in 0..BASE.len(), with in any::<char>()) {
        let text: String = BASE.chars().enumerate().map(|(index, c)| if index == at { with } else { c }).collect();
        if let Err(error) = parse(&text) {
            let _ = error.to_string();
        }
    }
}
