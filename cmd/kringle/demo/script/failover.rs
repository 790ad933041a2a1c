//! `failover`: the owners of a key die one by one, and come back. What is written meanwhile is there, or is refused, as the
//! mode says.

use super::checks::Checks;
use super::stage::{self, Subject, hints_are_gone, kill, revive};
use crate::demo::cluster::Cluster;
use crate::demo::home::once;
use crate::demo::trouble::Trouble;
use kringle::placement::Mode;
use std::io::Write;

pub(super) async fn play<W: Write>(cluster: &Cluster, mode: Mode, checks: &mut Checks<W>) -> Result<(), Trouble> {
    checks.step(&format!("A key in mode {mode}"));
    let key = format!("failover/{}", once());
    let mut subject = Subject::new(cluster, key, mode).await?;
    checks.equal(&format!("{} has three owners", subject.key), subject.owners.len(), 3);
    for teller in cluster.running() {
        let told = stage::owners(cluster, &teller, &subject.key).await?;
        checks.equal(&format!("node {} names the same owners", teller.number), told, subject.owners.clone());
    }
    subject.write(cluster, checks).await?;
    subject.read(cluster, checks).await?;
    subject.repaired(cluster, checks).await;

    // One always lives, or there is nothing left to ask.
    let doomed: Vec<u32> = subject.owners.iter().copied().take(2).collect();
    for (victim, title) in doomed.iter().zip(["One owner dead", "Two owners dead"]) {
        checks.step(&format!("{title}: kill -9 of node {victim}, an owner of {}", subject.key));
        kill(cluster, *victim, checks).await?;
        subject.read(cluster, checks).await?;
        subject.write(cluster, checks).await?;
        subject.read(cluster, checks).await?;
        // So that the next victim takes nothing with it that nobody else has.
        subject.repaired(cluster, checks).await;
    }

    checks.step("Both come back");
    revive(cluster, &doomed, checks).await?;
    subject.repaired(cluster, checks).await;
    hints_are_gone(cluster, checks).await;
    subject.read(cluster, checks).await?;
    subject.write(cluster, checks).await?;
    subject.read(cluster, checks).await?;
    subject.repaired(cluster, checks).await;
    Ok(())
}
