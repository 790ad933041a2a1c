//! `deny.toml` without cargo-deny: the licences, bans and sources of what cargo has resolved.
//!
//! It reads the lists as they are written there, one string after the other, and understands no more of TOML.

/// A package of the graph.
pub struct Package {
    pub name: String,
    /// An SPDX expression; empty where the package says nothing.
    pub licence: String,
}

/// What `deny.toml` says.
pub struct Policy {
    licences: Vec<String>,
    /// Package, licence.
    exceptions: Vec<(String, String)>,
    banned: Vec<String>,
}

impl Policy {
    pub fn read(text: &str) -> Policy {
        let text: String = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
        // Of `name = [ … ]` every string in it.
        let list = |name: &str| -> Vec<String> {
            let inside = text.split_once(&format!("{name} = [")).map_or("", |(_, behind)| closed(behind));
            inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let exceptions = list("exceptions").chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        Policy { licences: list("allow"), exceptions, banned: list("deny") }
    }

    /// Packages whose licence is not on the list.
    pub fn complaints_about(&self, packages: &[Package]) -> Vec<String> {
        let is_refused = |package: &&Package| {
            // The slash is how OR was written before SPDX expressions.
            let expression = package.licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
            let words: Vec<&str> = expression.split_whitespace().collect();
            !self.any(&package.name, &mut words.as_slice())
        };
        let refused = packages.iter().filter(is_refused);
        refused
            .map(|package| format!("{}: its licence {:?} is not in deny.toml", package.name, package.licence))
            .collect()
    }

    /// `a AND b OR c`: AND binds closer.
    fn any(&self, package: &str, words: &mut &[&str]) -> bool {
        let mut is_met = self.all(package, words);
        while let Some((&"OR", rest)) = words.split_first() {
            *words = rest;
            is_met |= self.all(package, words);
        }
        is_met
    }

    fn all(&self, package: &str, words: &mut &[&str]) -> bool {
        let mut is_met = self.one(package, words);
        while let Some((&"AND", rest)) = words.split_first() {
            *words = rest;
            is_met &= self.one(package, words);
        }
        is_met
    }

    fn one(&self, package: &str, words: &mut &[&str]) -> bool {
        let Some((&first, rest)) = words.split_first() else { return false };
        *words = rest;
        if first == "(" {
            let is_met = self.any(package, words);
            *words = words.get(1..).unwrap_or_default();
            return is_met;
        }
        let mut licence = first.to_owned();
        if let ["WITH", exception, rest @ ..] = *words {
            licence = format!("{first} WITH {exception}");
            *words = rest;
        }
        let is_excepted = |(name, allowed): &(String, String)| name == package && *allowed == licence;
        self.licences.contains(&licence) || self.exceptions.iter().any(is_excepted)
    }

    /// Banned packages, and those that come from elsewhere than the rest, on any platform.
    pub fn complaints_about_the_lock(&self, lock: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut usual = None;
        for package in lock.split("[[package]]").skip(1) {
            let field = |name: &str| {
                let value = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
                value.map(|value| value.trim_matches('"'))
            };
            let name = field("name").unwrap_or_default();
            if self.banned.iter().any(|banned| banned == name) {
                complaints.push(format!("{name} is banned by deny.toml"));
            }
            let Some(source) = field("source") else { continue };
            if !source.starts_with("registry+") || source != *usual.get_or_insert(source) {
                complaints.push(format!("{name} comes from {source}"));
            }
        }
        complaints
    }
}

/// Up to the bracket that closes a list.
fn closed(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += match c {
            '[' => 1,
            ']' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// What is built on this platform, development dependencies included, as cargo has it at hand.
#[cfg(feature = "shell")]
pub fn packages(repository: &std::path::Path) -> Vec<Package> {
    use std::process::Command;

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let version = Command::new(&cargo).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let platform = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo -vV names its host");
    let words = ["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", platform];
    let output = Command::new(&cargo).args(words).current_dir(repository).output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |package: &serde_json::Value, name: &str| package[name].as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages.map(|package| Package { name: text(package, "name"), licence: text(package, "license") }).collect()
}
