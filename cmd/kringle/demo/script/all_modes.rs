//! `all-modes`: what each mode does with all owners, with one dead, with two, and when they are back. The keys, one a
//! mode, have the same owners, so that a death is one for all of them.

use super::checks::Checks;
use super::stage::{self, Subject, any, hints_are_gone, kill, revive};
use crate::demo::cluster::Cluster;
use crate::demo::home::once;
use crate::demo::keys;
use crate::demo::trouble::Trouble;
use kringle::placement::Mode;
use std::io::Write;

/// Names tried for a key with the owners wanted: of five nodes one in sixty has them in the same order, of nine one in 504.
const NAMES: u32 = 20_000;

pub(super) async fn play<W: Write>(cluster: &Cluster, before: Mode, checks: &mut Checks<W>) -> Result<(), Trouble> {
    let mut subjects = subjects(cluster).await?;
    let owners = subjects.first().map(|subject| subject.owners.clone()).unwrap_or_default();
    checks.step(&format!("A key for each mode, all with the same owners: nodes {owners:?}"));
    checks.equal("every mode has its key", subjects.len(), Mode::ALL.len());
    checks.equal("they have three owners", owners.len(), 3);
    for subject in &mut subjects {
        let taken_on = keys::mode(cluster, Some(subject.mode.to_string())).await;
        let told = taken_on.unwrap_or_else(|trouble| trouble.to_string());
        checks.equal("the cluster takes on the mode", told, format!("Mode: {}", subject.mode));
        subject.write(cluster, checks).await?;
        subject.read(cluster, checks).await?;
        subject.repaired(cluster, checks).await;
    }
    keys::mode(cluster, Some(before.to_string())).await?;

    let doomed: Vec<u32> = owners.iter().copied().take(2).collect();
    for (victim, title) in doomed.iter().zip(["One owner dead", "Two owners dead"]) {
        checks.step(&format!("{title}: kill -9 of node {victim}"));
        kill(cluster, *victim, checks).await?;
        for subject in &mut subjects {
            subject.read(cluster, checks).await?;
            subject.write(cluster, checks).await?;
            subject.read(cluster, checks).await?;
        }
        for subject in &mut subjects {
            subject.repaired(cluster, checks).await;
        }
    }

    checks.step("Both come back");
    revive(cluster, &doomed, checks).await?;
    for subject in &mut subjects {
        subject.repaired(cluster, checks).await;
        subject.read(cluster, checks).await?;
        subject.write(cluster, checks).await?;
        subject.read(cluster, checks).await?;
        subject.repaired(cluster, checks).await;
    }
    hints_are_gone(cluster, checks).await;
    Ok(())
}

/// A key for each mode, with the same owners in the same order as the first.
async fn subjects(cluster: &Cluster) -> Result<Vec<Subject>, Trouble> {
    let teller = any(cluster)?;
    let mut subjects: Vec<Subject> = Vec::new();
    let run = once();
    for number in 0..NAMES {
        let Some(mode) = Mode::ALL.get(subjects.len()) else { break };
        let key = format!("mode/{run}/{number}");
        let owners = stage::owners(cluster, &teller, &key).await?;
        if subjects.first().is_none_or(|first| first.owners == owners) {
            subjects.push(Subject::new(cluster, key, *mode).await?);
        }
    }
    Ok(subjects)
}
