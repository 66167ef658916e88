use super::*;

fn profile(name: &str) -> &'static Profile {
    Profile::named(name).expect("a profile that there is")
}

#[test]
fn one_seed_gives_one_run() {
    let first = run(profile("foreign-direct"), 3, 40);
    let second = run(profile("foreign-direct"), 3, 40);
    assert_eq!(first, second);
}

#[test]
fn two_seeds_give_two_runs() {
    assert_ne!(run(profile("foreign-direct"), 3, 40), run(profile("foreign-direct"), 4, 40));
}

#[test]
fn independent_stacks_get_along_over_bad_links() {
    for seed in 0..10 {
        let totals = run(profile("foreign-direct"), seed, 50).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(totals.lost > 0 && totals.duplicated > 0 && totals.reordered > 0, "the links did nothing: {totals}");
    }
}

#[test]
fn adversaries_of_every_kind_do_something_and_no_conversion_takes_more_frames_than_it_may() {
    let mut totals = Totals::default();
    for seed in 0..6 {
        totals.add(&run(profile("adversaries"), seed, 40).unwrap_or_else(|failure| panic!("{failure}")));
    }
    assert!(totals.mischief.iter().all(|&times| times > 0), "{totals}");
}

/// The first complaint of a run of the profile `adversaries` with other options.
fn complaint(draw: fn(&mut mimbox_stack::Rng, usize) -> Options) -> String {
    static PROFILE: std::sync::OnceLock<Profile> = std::sync::OnceLock::new();
    let failure = run(PROFILE.get_or_init(|| Profile::of_test(draw)), 1, 40).expect_err("something is wrong");
    failure.complaints.first().cloned().unwrap_or_default()
}

#[test]
fn a_conversion_that_holds_more_frames_than_it_may_is_reported() {
    let found = complaint(|rng, connections| {
        let mut options = super::super::profile::adversaries(rng, connections);
        options.converter.most_frames = Some(20);
        options
    });
    assert!(found.contains("frames, more than 20"), "{found}");
}
