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
