//! The rules of the house. Each takes what it looks at as text and returns its complaints, so that it can be tried
//! on a planted violation.

use crate::source::{Source, after_block, line_of, places, words};

/// The rooms in reading order, by storey, as the table in `src/lib.rs` has them.
pub struct House {
    /// Name and storey.
    pub rooms: Vec<(String, String)>,
}

impl House {
    /// Reads the table, and holds the modules below it to the same order.
    pub fn read(lib: &str) -> Result<House, String> {
        let mut rooms = Vec::new();
        for line in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
            let mut cells = line.split('|').map(str::trim);
            let (storey, named) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            let named = named.split('`').skip(1).step_by(2);
            rooms.extend(named.map(|room| (room.to_owned(), storey.to_owned())));
        }
        let declared: Vec<&str> =
            lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
        let named: Vec<&str> = rooms.iter().map(|(room, _)| room.as_str()).collect();
        if declared != named {
            return Err(format!(
                "src/lib.rs declares {declared:?}, its table has {named:?}: both are the reading order"
            ));
        }
        Ok(House { rooms })
    }

    fn place(&self, room: &str) -> Option<usize> {
        self.rooms.iter().position(|(name, _)| name == room)
    }

    fn storey(&self, room: &str) -> &str {
        self.place(room).map_or("", |place| &self.rooms[place].1)
    }

    /// Whether the file is production code below the shell.
    fn is_below_the_shell(&self, source: &Source) -> bool {
        source.room().is_some_and(|room| self.place(room).is_some() && self.storey(room) != "shell")
    }
}

/// Names point down, and verbs don't name verbs.
pub fn names_point_down(house: &House, source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return vec![] };
    let Some(own) = house.place(room) else {
        return vec![format!("{}: {room} is no room of src/lib.rs", source.path)];
    };
    let mut complaints = Vec::new();
    for (at, named) in rooms_named(&source.code) {
        let Some(other) = house.place(named) else { continue };
        let verbs = house.storey(room) == "verbs" && house.storey(named) == "verbs" && own != other;
        if other > own || verbs {
            let line = line_of(&source.code, at);
            let why = if verbs { "verbs meet in node" } else { "it stands below in the reading order" };
            complaints.push(format!("{}:{line}: {room} names {named}: {why}", source.path));
        }
    }
    // From a room's `mod.rs` one `super` leads out of it, from its other files two: say `crate::` instead.
    let way_out = if source.path.ends_with("/mod.rs") { "super::" } else { "super::super::" };
    for at in places(&source.production, way_out) {
        let line = line_of(&source.production, at);
        complaints.push(format!("{}:{line}: {way_out} leads out of the room: name rooms by crate::", source.path));
    }
    complaints
}

/// The first name of each path that begins with `crate::`, those in braces too.
fn rooms_named(code: &str) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for at in places(code, "crate::") {
        let path = at + "crate::".len();
        if !code[path..].starts_with('{') {
            named.extend(words(&code[path..]).next().map(|(_, word)| (at, word)));
            continue;
        }
        let (mut depth, mut expects_name) = (0, false);
        for (i, c) in code[path..after_block(code, path)].char_indices() {
            match c {
                '{' => (depth, expects_name) = (depth + 1, depth == 0),
                '}' => depth -= 1,
                ',' => expects_name = depth == 1,
                c if c.is_whitespace() => {}
                _ if expects_name => {
                    named.extend(words(&code[path + i..]).next().map(|(_, word)| (at, word)));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    named
}

/// What the rooms below the shell may not touch: what differs from run to run, and what waits.
const OUTSIDE: &[&str] = &[
    "Instant",
    "SystemTime",
    "std::thread",
    "thread::",
    "std::net",
    "std::process",
    "std::env",
    "RandomState",
    "HashMap",
    "HashSet",
];

/// The seam to the disk is below the shell; the simulator has another behind it.
const FILE_SEAM: &[&str] = &[
    "src/storage/bases.rs",
    "src/storage/disk.rs",
    "src/storage/files.rs",
    "src/storage/folder.rs",
    "src/storage/log_store.rs",
];

/// Below the shell time and randomness are arguments, and iteration is ordered.
pub fn nothing_from_outside(house: &House, source: &Source) -> Vec<String> {
    if !house.is_below_the_shell(source) {
        return vec![];
    }
    let files = (!FILE_SEAM.contains(&source.path.as_str())).then_some("std::fs");
    let found =
        OUTSIDE.iter().copied().chain(files).flat_map(|needle| {
            places(&source.production, needle).map(move |at| (line_of(&source.production, at), needle))
        });
    found.map(|(line, needle)| format!("{}:{line}: {needle} below the shell", source.path)).collect()
}

/// What reads a clock. `.elapsed()` does too.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", ".elapsed()"];

/// The one file for clocks, and those beside it that measure how long they themselves take.
const CLOCK_READERS: &[(&str, &str)] = &[
    ("src/node/outside.rs", "the one place"),
    ("src/node/background.rs", "paces its loops"),
    ("src/http/server.rs", "bounds its own draining"),
    ("src/http/admin.rs", "tells the uptime"),
    ("src/remote/mod.rs", "keeps to its own limit"),
];

/// In the shell, clocks are read in one place.
pub fn clocks_are_read_in_one_place(source: &Source) -> Vec<String> {
    if source.room().is_none() || CLOCK_READERS.iter().any(|(path, _)| *path == source.path) {
        return vec![];
    }
    let found = CLOCKS.iter().flat_map(|clock| places(&source.production, clock).map(move |at| (at, clock)));
    found
        .map(|(at, clock)| {
            let line = line_of(&source.production, at);
            format!("{}:{line}: {clock} outside src/node/outside.rs", source.path)
        })
        .collect()
}

/// Where each library lives: files, or folders that end in a slash. A library used in more than one room is here
/// because somebody argued for it.
pub const LIBRARIES: &[(&str, &[&str])] = &[
    // The language of data and errors: everywhere.
    ("bytes", &["src/", "cmd/"]),
    ("serde", &["src/", "cmd/"]),
    ("serde_json", &["src/", "cmd/"]),
    ("thiserror", &["src/"]),
    // Hashing: positions, versions, digests, checksums.
    (
        "blake3",
        &[
            "src/record/",
            "src/placement/",
            "src/merkle/",
            "src/storage/",
            "src/protocol/sync.rs",
            // Values of the bench: one that is not whole is known for it.
            "cmd/kringlectl/bench/values.rs",
            // Exports and backups: a file that was cut off or changed is known for it.
            "cmd/kringlectl/bulk/",
        ],
    ),
    // Bytes that leave a process: the layout as a fact, and what peers say.
    (
        "postcard",
        &["src/antientropy/intake.rs", "src/membership/register.rs", "src/placement/", "src/protocol/codec.rs"],
    ),
    // Words that clients carry, and values that are no text.
    (
        "base64",
        &[
            "src/record/token.rs",
            "src/watching/positions.rs",
            "src/http/ask.rs",
            "src/http/batch.rs",
            "src/http/cursor.rs",
            "src/http/list.rs",
            "cmd/kringlectl/",
        ],
    ),
    ("rs_merkle", &["src/merkle/tree.rs"]),
    ("quick_cache", &["src/storage/cache.rs"]),
    ("fjall", &["src/storage/disk.rs"]),
    // What fjall's tables are read with.
    ("lsm_tree", &["src/storage/disk.rs"]),
    // The checksum that fjall keeps of its files.
    ("xxhash_rust", &["src/storage/disk.rs"]),
    ("foca", &["src/membership/liveness.rs", "src/membership/liveness/"]),
    // How foca wants to be handed our generator.
    ("rand_core", &["src/membership/chance.rs"]),
    // The shell's.
    ("actix_web", &["src/http/", "src/node/", "src/remote/"]),
    // What actix_web's server is made of, put together here so that a connection can be a type of ours.
    ("actix_http", &["src/http/server.rs"]),
    ("actix_server", &["src/http/server.rs"]),
    ("actix_service", &["src/node/link.rs", "src/http/server.rs"]),
    ("actix_tls", &["src/node/link.rs"]),
    // The second is `kringle health`, a client of one call.
    ("awc", &["src/node/link.rs", "src/http/server.rs", "src/remote/mod.rs"]),
    ("tokio", &["src/client/between.rs", "src/http/", "src/node/", "src/resp/", "src/remote/mod.rs", "cmd/"]),
    // RESP2 and RESP3 as bytes.
    ("redis_protocol", &["src/resp/frame.rs"]),
    ("futures_core", &["src/http/input.rs", "src/remote/mod.rs"]),
    ("clap", &["src/config/", "cmd/kringlectl/", "cmd/kringle/demo/"]),
    ("toml", &["src/config/"]),
    ("getrandom", &["src/node/outside.rs"]),
    ("rustix", &["src/node/background.rs", "src/node/own_address.rs", "src/http/server.rs", "cmd/"]),
    ("log", &["src/node/", "cmd/"]),
    ("env_logger", &["cmd/"]),
    ("mimalloc", &["cmd/"]),
    // The terminal's.
    ("clap_complete", &["cmd/kringlectl/"]),
    ("clap_mangen", &["cmd/kringlectl/"]),
    ("comfy_table", &["cmd/kringlectl/"]),
    ("hdrhistogram", &["cmd/kringlectl/"]),
    ("indicatif", &["cmd/kringlectl/"]),
    ("rustyline", &["cmd/kringlectl/"]),
    ("zstd", &["cmd/kringlectl/"]),
];

/// One library, one room.
pub fn libraries_stay_home(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (library, homes) in LIBRARIES {
        let is_home = homes.iter().any(|home| match home.ends_with('/') {
            true => source.path.starts_with(home),
            false => source.path == *home,
        });
        // A module of the same name, declared here.
        let is_own = places(&source.production, "mod")
            .any(|at| words(&source.production[at..]).nth(1).is_some_and(|(_, word)| word == *library));
        if is_home || is_own {
            continue;
        }
        for at in places(&source.production, library) {
            let (before, behind) = (&source.production[..at], &source.production[at + library.len()..]);
            let imported = before.ends_with("use ") && behind.starts_with([';', ' ']);
            let from_the_root = before.ends_with(":: ") || !before.ends_with(':');
            if from_the_root && (behind.starts_with("::") || imported) {
                let line = line_of(&source.production, at);
                complaints.push(format!("{}:{line}: {library} lives in {}", source.path, homes.join(", ")));
            }
        }
    }
    complaints
}

/// Every dependency has a home, known before it is used.
pub fn every_dependency_has_a_home(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n")).unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_"));
    names
        .filter(|name| !LIBRARIES.iter().any(|(library, _)| library == name))
        .map(|name| format!("Cargo.toml: {name} has no home in tests/architecture/rules.rs"))
        .collect()
}

/// Most lines a file of the product may have.
pub const LINES_MAX: usize = 500;

/// No everything-files.
pub fn files_are_short(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let is_product = source.path.starts_with("src/") || source.path.starts_with("cmd/");
    if is_product && lines > LINES_MAX {
        return vec![format!("{}: {lines} lines, more than {LINES_MAX}: which noun has no file yet?", source.path)];
    }
    vec![]
}

/// A file opens with its subject.
pub fn files_say_what_they_are(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") { vec![] } else { vec![format!("{}: does not begin with //!", source.path)] }
}

/// Rooms that meet bytes made by others.
const FOREIGN: &[&str] = &["protocol", "client", "http", "resp", "storage", "replica", "config"];

/// Suites that live in the library so that benchmarks and the simulator share them. They are tests.
const SUITES: &[&str] = &["src/storage/contract.rs", "src/storage/sim_files.rs"];

/// No bytes from outside reach a panic. Where one cannot be reached, a comment above says why.
pub fn foreign_bytes_meet_no_panic(source: &Source) -> Vec<String> {
    if !source.room().is_some_and(|room| FOREIGN.contains(&room)) || SUITES.contains(&source.path.as_str()) {
        return vec![];
    }
    let mut complaints = Vec::new();
    for needle in [".unwrap()", ".expect(", "unreachable!"] {
        for at in places(&source.production, needle) {
            let line = line_of(&source.production, at);
            let is_explained = |line: &str| {
                line.split_once("// ")
                    .is_some_and(|(before, _)| before.trim().is_empty() || before.trim().ends_with(';'))
            };
            let above = line.checked_sub(2).and_then(|above| source.text.lines().nth(above)).unwrap_or_default();
            let here = source.text.lines().nth(line - 1).unwrap_or_default();
            if !is_explained(above) && !is_explained(here) {
                complaints.push(format!("{}:{line}: {needle} with no comment that says why it holds", source.path));
            }
        }
    }
    complaints
}

/// What is left to do stands in an issue.
pub fn nothing_is_put_off(path: &str, text: &str) -> Vec<String> {
    // In two halves, since this file is looked at too.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|halves| halves.concat());
    let found = marks.iter().flat_map(|mark| places(text, mark).map(move |at| (line_of(text, at), mark)));
    found.map(|(line, mark)| format!("{path}:{line}: {mark}")).collect()
}

/// Fewest words of a test's name: less is no sentence.
const WORDS_MIN: usize = 3;

/// The names of tests are sentences.
pub fn tests_are_sentences(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for at in places(&source.code, "#[test]") {
        let Some((begin, name)) = words(&source.code[at..]).skip_while(|(_, word)| *word != "fn").nth(1) else {
            continue;
        };
        if name.split('_').count() < WORDS_MIN || name.starts_with("test_") {
            let line = line_of(&source.code, at + begin);
            complaints.push(format!("{}:{line}: {name} is no sentence", source.path));
        }
    }
    complaints
}
