//! `mimbox` as an operator meets it: exit status, standard output, standard error.

use std::path::Path;
use std::process::{Command, Output};

fn mimbox(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimbox"));
    command.args(arguments).output().expect("the program starts")
}

/// The exit status and what stands on standard error.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = mimbox(arguments);
    assert!(output.stdout.is_empty(), "an error is nothing for standard output");
    (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("box.toml");
    std::fs::write(&path, text).expect("the file can be written");
    path.display().to_string()
}

const SOUND: &str = "[[port]]\nname = \"wan0\"\ninterface = \"no-such-if\"\naddresses = [\"192.0.2.1/24\"]\n\
                     [explicit]\nports = [\"wan0\"]\n";

#[test]
fn an_unknown_key_is_shown_where_it_stands_with_status_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = write(directory.path(), &SOUND.replace("interface", "interfaec"));
    let (status, error) = failure(&["check", "-c", &path]);
    assert_eq!(status, 2);
    let expected = format!("mimbox: {path}:3:1: unknown key \"interfaec\"\n    interfaec = \"no-such-if\"\n");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("help: did you mean \"interface\"?\n"), "{error}");
}

#[test]
fn a_missing_interface_has_status_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let (status, error) = failure(&["check", "-c", &write(directory.path(), SOUND)]);
    assert_eq!(status, 2);
    assert!(error.contains("port \"wan0\": there is no interface `no-such-if`"), "{error}");
}

#[test]
fn a_missing_file_and_a_wrong_argument_have_status_2() {
    assert_eq!(failure(&["check", "-c", "/nonexistent/box.toml"]).0, 2);
    assert_eq!(failure(&["frobnicate"]).0, 2);
    assert_eq!(failure(&["stats", "-c", "/nonexistent/box.toml"]).0, 2);
}

#[test]
fn a_box_that_does_not_answer_has_status_1() {
    let (status, error) = failure(&["stats", "--socket", "/nonexistent/box.sock"]);
    assert_eq!(status, 1);
    assert!(error.contains("no mimbox answers at /nonexistent/box.sock"), "{error}");
    assert_eq!(failure(&["connections", "--socket", "/nonexistent/box.sock"]).0, 1);
    assert_eq!(failure(&["events", "--json", "--socket", "/nonexistent/box.sock"]).0, 1);
}

#[test]
fn the_whole_configuration_can_be_printed_and_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = mimbox(&["check", "--print", "-c", &write(directory.path(), SOUND)]);
    assert!(first.status.success());
    let text = String::from_utf8(first.stdout).expect("text");
    assert!(text.contains("scheduler = \"lowest-rtt\""), "{text}");
    let second = mimbox(&["check", "--print", "-c", &write(directory.path(), &text)]);
    assert_eq!(String::from_utf8(second.stdout).expect("text"), text);
}

#[test]
fn help_and_version_have_status_0() {
    for arguments in [["--help"].as_slice(), &["--version"], &["stats", "--help"], &["check", "-h"]] {
        assert!(mimbox(arguments).status.success(), "{arguments:?}");
    }
}

#[test]
fn the_example_of_the_manual_is_a_sound_configuration() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operate.md"));
    let manual = manual.expect("the manual is there");
    let blocks: Vec<&str> = manual.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "the manual shows a configuration");
    let directory = tempfile::tempdir().expect("a directory");
    for block in blocks {
        // A part that is about something else leaves the ports to the reader.
        let text = if block.contains("[[port]]") { block.to_owned() } else { format!("{block}\n{SOUND}") };
        let output = mimbox(&["check", "--print", "-c", &write(directory.path(), &text)]);
        assert!(output.status.success(), "{}\n{block}", String::from_utf8_lossy(&output.stderr));
    }
}
