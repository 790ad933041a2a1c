//! The house, checked from its source: who may name whom, which library lives where, what a file looks like, and
//! under which licences it all stands (DESIGN, "The house"). Every rule is first tried on a planted violation.

#[path = "architecture/licences.rs"]
mod licences;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use rules::House;
use source::Source;
use std::path::Path;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder of the repository, sorted. A folder that is not there has none.
fn files_below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(repository().join(folder)) else { return found };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// The Rust files below some folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| files_below(folder)).filter(|path| path.ends_with(".rs"));
    let sources: Vec<Source> = paths.map(|path| Source::new(&path, &read(&path))).collect();
    assert!(!sources.is_empty(), "nothing to look at in {folders:?}");
    sources
}

/// The Rust files below `src/` and `cmd/` that are not tests as a whole.
fn product() -> Vec<Source> {
    let mut sources = sources(&["src", "cmd"]);
    let tests: Vec<String> = sources.iter().flat_map(|source| source.test_files.clone()).collect();
    // And what is below one of them.
    let is_test = |path: &str| {
        let below = |test: &String| path.starts_with(&format!("{}/", test.trim_end_matches(".rs")));
        tests.iter().any(|test| test == path || below(test))
    };
    sources.retain(|source| !is_test(&source.path));
    sources
}

fn house() -> House {
    House::read(&read("src/lib.rs")).unwrap_or_else(|complaint| panic!("{complaint}"))
}

#[track_caller]
fn nobody_complains(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn names_point_down() {
    let house = house();
    nobody_complains(product().iter().flat_map(|source| rules::names_point_down(&house, source)));
}

#[test]
fn below_the_shell_nothing_comes_from_outside() {
    let house = house();
    nobody_complains(product().iter().flat_map(|source| rules::nothing_from_outside(&house, source)));
}

#[test]
fn clocks_are_read_in_one_place() {
    nobody_complains(product().iter().flat_map(rules::clocks_are_read_in_one_place));
}

#[test]
fn every_library_stays_in_its_room() {
    nobody_complains(rules::every_dependency_has_a_home(&read("Cargo.toml")));
    nobody_complains(product().iter().flat_map(rules::libraries_stay_home));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let all = sources(&["src", "cmd", "tests", "benches"]);
    nobody_complains(all.iter().flat_map(rules::files_are_short));
    nobody_complains(all.iter().flat_map(rules::files_say_what_they_are));
}

#[test]
fn foreign_bytes_meet_no_panic() {
    nobody_complains(product().iter().flat_map(rules::foreign_bytes_meet_no_panic));
}

#[test]
fn nothing_is_put_off() {
    let folders = ["src", "cmd", "tests", "benches", "config", "docker", ".ci"];
    let paths = folders.iter().flat_map(|folder| files_below(folder));
    nobody_complains(paths.flat_map(|path| rules::nothing_is_put_off(&path, &read(&path))));
}

#[test]
fn the_names_of_tests_are_sentences() {
    nobody_complains(sources(&["src", "cmd", "tests"]).iter().flat_map(rules::tests_are_sentences));
}

#[test]
fn every_package_is_one_we_may_use() {
    let policy = licences::Policy::read(&read("deny.toml"));
    nobody_complains(policy.complaints_about_the_lock(&read("Cargo.lock")));
    // Without the shell its packages need not have been fetched, and cargo could not tell their licences.
    #[cfg(feature = "shell")]
    nobody_complains(policy.complaints_about(&licences::packages(repository())));
}

/// Violations, one for each thing a rule looks for, and what is alike but allowed.
mod planted {
    use super::licences::{Package, Policy};
    use super::rules::{self, House};
    use super::source::Source;

    const LIB: &str = "\
//! | storey | rooms | may know |
//! | --- | --- | --- |
//! | nouns | [`record`], [`merkle`] | nothing |
//! | verbs | [`replica`], [`coordinator`] | nouns |
//! | shell | `node` | everything |
pub mod record;
pub mod merkle;
pub mod replica;
pub mod coordinator;
#[cfg(feature = \"shell\")]
pub mod node;
";

    fn house() -> House {
        House::read(LIB).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    #[track_caller]
    fn caught(complaints: Vec<String>, expected: &[&str]) {
        assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
        for (complaint, expected) in complaints.iter().zip(expected) {
            assert!(complaint.contains(expected), "{complaint:?} does not say {expected:?}");
        }
    }

    #[test]
    fn comments_literals_and_tests_are_no_production_code() {
        let text = "a(\"b \\\" c\"); // d\n/* e /* f */ g */ 'h' '\\'' r#\"i \" j\"# r\"\" b\"k\" k::<'l>(\"é\")\n\
                    #[cfg(test)]\nmod m;\n#[cfg(all(test, unix))]\nmod n { fn o() { \"}\" } }\np\n#[cfg(not(test))] q";
        let source = Source::new("src/room/mod.rs", text);
        let words: Vec<&str> = source.production.split_whitespace().collect();
        let kept = "a(\" \"); ' ' ' ' r#\" \"# r\"\" b\" \" k::<'l>(\" \") p #[cfg(not(test))] q";
        assert_eq!(words, kept.split_whitespace().collect::<Vec<_>>());
        assert_eq!(source.production.lines().count(), text.lines().count());
        assert_eq!(source.test_files, ["src/room/m.rs"]);
    }

    #[test]
    fn a_table_that_differs_from_the_modules_is_caught() {
        let swapped = LIB.replace("[`record`], [`merkle`]", "[`merkle`], [`record`]");
        assert!(House::read(&swapped).is_err());
        assert!(House::read(&format!("{LIB}pub mod cellar;\n")).is_err());
    }

    #[test]
    fn a_name_that_points_up_is_caught() {
        let text = "//! Text.\nuse crate::node::Node;\nuse crate::{record::Key, replica};\n\
                    fn f() { crate::coordinator::put() } // crate::node\n";
        let found = rules::names_point_down(&house(), &Source::new("src/merkle/tree.rs", text));
        caught(found, &["2: merkle names node", "3: merkle names replica", "4: merkle names coordinator"]);
        let shell = rules::names_point_down(&house(), &Source::new("src/node/mod.rs", text));
        caught(shell, &[]);
    }

    #[test]
    fn a_verb_that_names_a_verb_is_caught() {
        let text = "use crate::{\n    record::{Key, Record},\n    replica::Replica,\n};\n";
        let found = rules::names_point_down(&house(), &Source::new("src/coordinator/put.rs", text));
        caught(found, &["coordinator names replica: verbs meet in node"]);
        caught(rules::names_point_down(&house(), &Source::new("src/attic.rs", text)), &["attic is no room"]);
    }

    #[test]
    fn a_way_out_of_a_room_that_names_no_room_is_caught() {
        let up = "use super::super::node::Node;";
        caught(rules::names_point_down(&house(), &Source::new("src/merkle/tree.rs", up)), &["leads out"]);
        caught(
            rules::names_point_down(&house(), &Source::new("src/merkle/mod.rs", "use super::node;")),
            &["leads out"],
        );
        caught(rules::names_point_down(&house(), &Source::new("src/merkle/tree.rs", "use super::sum::Sum;")), &[]);
    }

    #[test]
    fn clocks_threads_and_chance_below_the_shell_are_caught() {
        let text = "use std::time::{Duration, Instant};\nfn f() { std::thread::yield_now() }\nlet a = HashMap::new();\n\
                    std::fs::read(path)\n#[cfg(test)]\nmod tests { use std::time::SystemTime; }\n";
        let below = rules::nothing_from_outside(&house(), &Source::new("src/merkle/tree.rs", text));
        assert!(["Instant", "std::thread", "HashMap", "std::fs"].iter().all(|w| below.iter().any(|c| c.contains(w))));
        assert!(below.iter().all(|complaint| !complaint.contains("SystemTime")), "{below:?}");
        caught(rules::nothing_from_outside(&house(), &Source::new("src/node/mod.rs", text)), &[]);
    }

    #[test]
    fn a_clock_beside_the_one_place_is_caught() {
        let text = "let begun = Instant::now();\nbegun.elapsed();\nSystemTime::now();\n";
        let found = rules::clocks_are_read_in_one_place(&Source::new("src/node/link.rs", text));
        caught(found, &["1: Instant::now", "3: SystemTime::now", "2: .elapsed()"]);
        caught(rules::clocks_are_read_in_one_place(&Source::new("src/node/outside.rs", text)), &[]);
    }

    #[test]
    fn a_library_away_from_home_is_caught() {
        let text = "use rs_merkle::MerkleTree;\nuse awc;\nlog::info!(\"tokio::spawn\");\n";
        let found = rules::libraries_stay_home(&Source::new("src/merkle/diff.rs", text));
        caught(found, &["1: rs_merkle", "2: awc", "3: log"]);
        // A room's own module may have a library's name.
        let own = "mod log;\npub use log::Log;\nuse super::log::Log;\nlet log = catalog::log;\n";
        caught(rules::libraries_stay_home(&Source::new("src/storage/mod.rs", own)), &[]);
        caught(rules::libraries_stay_home(&Source::new("src/storage/a.rs", "use super::log::Log;")), &[]);
    }

    #[test]
    fn a_dependency_without_a_home_is_caught() {
        let manifest =
            "[package]\nname = \"x\"\n\n[dependencies]\nactix-web = \"4\"\nrocksdb = \"1\"\n\n[lints]\na = 1\n";
        caught(rules::every_dependency_has_a_home(manifest), &["rocksdb has no home"]);
    }

    #[test]
    fn a_long_file_and_one_without_a_subject_are_caught() {
        let long = Source::new("src/merkle/tree.rs", &"//! Text.\n".repeat(rules::LINES_MAX + 1));
        caught(rules::files_are_short(&long), &["501 lines"]);
        let nameless = Source::new("src/merkle/tree.rs", "use std::fmt;\n\n//! Late.\n");
        caught(rules::files_say_what_they_are(&nameless), &["does not begin with //!"]);
    }

    #[test]
    fn a_panic_within_reach_of_foreign_bytes_is_caught() {
        let text = "a.unwrap();\nb.expect(\"c\");\n// It was put there above.\nd.expect(\"e\");\n\
                    f\n    // Checked by g.\n    .unwrap();\nh.unwrap(); // Of a constant.\n/// Doc.\ni.unwrap()\n\
                    #[cfg(test)]\nmod tests { fn f() { j.unwrap() } }\n";
        let found = rules::foreign_bytes_meet_no_panic(&Source::new("src/protocol/codec.rs", text));
        caught(found, &["1: .unwrap()", "10: .unwrap()", "2: .expect("]);
        caught(rules::foreign_bytes_meet_no_panic(&Source::new("src/merkle/tree.rs", text)), &[]);
    }

    #[test]
    fn work_put_off_is_caught() {
        let text = format!("// {}: later\n// {}\nTODOS\n", ["TO", "DO"].concat(), ["FIX", "ME"].concat());
        caught(rules::nothing_is_put_off("a.rs", &text), &["a.rs:1", "a.rs:2"]);
    }

    #[test]
    fn a_test_without_a_sentence_is_caught() {
        let text =
            "#[test]\nfn works() {}\n#[test]\n#[should_panic]\nfn test_a_b_c() {}\n#[test]\nfn a_key_is_short() {}\n";
        let found = rules::tests_are_sentences(&Source::new("src/record/key.rs", text));
        caught(found, &["2: works", "5: test_a_b_c"]);
    }

    #[test]
    fn a_licence_we_cannot_meet_is_caught() {
        let policy = Policy::read(
            "[licenses]\nallow = [\n  \"MIT\", # why\n  \"BSD-3-Clause\",\n]\n\
             exceptions = [{ crate = \"foca\", allow = [\"MPL-2.0\"] }]\n[bans]\ndeny = [{ crate = \"openssl\" }]\n",
        );
        let package = |name: &str, licence: &str| Package { name: name.into(), licence: licence.into() };
        let fine = ["MIT", "GPL-2.0 OR MIT", "Unlicense/MIT", "(A OR MIT) AND BSD-3-Clause", "A WITH B OR MIT"];
        caught(policy.complaints_about(&fine.map(|licence| package("p", licence))), &[]);
        let bad = ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR A) AND B", "MIT WITH A", "", "MPL-2.0"];
        assert_eq!(policy.complaints_about(&bad.map(|licence| package("p", licence))).len(), bad.len());
        caught(policy.complaints_about(&[package("foca", "MPL-2.0")]), &[]);
    }

    #[test]
    fn a_banned_package_and_a_strange_source_are_caught() {
        let policy = Policy::read("[bans]\ndeny = [{ crate = \"openssl\" }]\n");
        let lock = "[[package]]\nname = \"a\"\nsource = \"registry+one\"\n\n[[package]]\nname = \"openssl\"\nsource = \"registry+one\"\n\n\
                    [[package]]\nname = \"b\"\nsource = \"git+two\"\n\n[[package]]\nname = \"c\"\nsource = \"registry+two\"\n";
        caught(
            policy.complaints_about_the_lock(lock),
            &["openssl is banned", "b comes from git+two", "c comes from registry+two"],
        );
    }
}
