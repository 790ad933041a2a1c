//! `dynamo`: what the paper shows. Many keys are written and read, a node joins, two die, writes go on with hints, the
//! dead come back and get what they missed, and two who write at the same time are both kept.

use super::checks::Checks;
use super::stage::{self, any, hints, hints_are_gone, kill, owners, remote, revive, same};
use crate::demo::cluster::{Cluster, Look, eventually, not_yet};
use crate::demo::home::once;
use crate::demo::keys::value;
use crate::demo::load::read;
use crate::demo::trouble::Trouble;
use kringle::remote::{Answer, Ask};
use std::io::Write;
use std::time::Duration;

/// Keys written and read.
const KEYS: u32 = 20;

/// The longest that an owner that came back may lack what was written meanwhile.
const SOON: Duration = Duration::from_secs(60);

/// Keys of this run, and what they hold.
struct Keys {
    names: Vec<String>,
    turn: u32,
}

pub(super) async fn play<W: Write>(cluster: &Cluster, checks: &mut Checks<W>) -> Result<(), Trouble> {
    checks.step(&format!("{KEYS} keys, each written through one node and read through the next"));
    let run = once();
    let names = (0..KEYS).map(|number| format!("dynamo/{run}/{number}")).collect();
    let mut keys = Keys { names, turn: 0 };
    keys.write(cluster, checks, 201).await?;
    keys.read(cluster, checks).await?;

    checks.step("A node joins");
    let before = cluster.running().len();
    let newcomer = cluster.add().await?;
    checks.equal("there is one node more", cluster.running().len(), before + 1);
    let ring = stage::share(cluster, &newcomer).await?;
    checks.check(
        &format!("node {} keeps a share of the keys", newcomer.number),
        if ring > 0.0 { Ok(()) } else { Err(format!("it is {ring}")) },
    );
    keys.read(cluster, checks).await?;
    keys.write(cluster, checks, 204).await?;
    keys.read(cluster, checks).await?;

    let key = keys.names[0].clone();
    let owned = owners(cluster, &newcomer, &key).await?;
    checks.equal(&format!("{key} has three owners"), owned.len(), 3);
    let doomed: Vec<u32> = owned.iter().copied().take(2).collect();
    checks.step(&format!("Two of the owners of {key} die: nodes {doomed:?}"));
    for (victim, is_last) in doomed.iter().zip([false, true]) {
        kill(cluster, *victim, checks).await?;
        if !is_last {
            let answer = keys.update(cluster, 0).await?;
            checks.check("with one dead a write is taken: 204, for two owners have it", same(Ok(answer), 204));
            keys.read(cluster, checks).await?;
        }
    }
    let answer = keys.update(cluster, 0).await?;
    checks.check("a write is taken: 202, for one owner has it", same(Ok(answer.clone()), 202));
    let replicas = answer.header("kringle-replicas").unwrap_or("none").to_owned();
    checks.equal("and the answer says who keeps it", replicas, "wanted=3, acked=1, hinted=2".to_owned());
    let kept = hints(cluster).await?;
    checks.check("others keep hints", if kept >= 2 { Ok(()) } else { Err(format!("{kept} of them")) });
    keys.read(cluster, checks).await?;

    checks.step("Both come back");
    revive(cluster, &doomed, checks).await?;
    hints_are_gone(cluster, checks).await;
    let expected = keys.value(0);
    for number in &owned {
        let what = format!("node {number} itself holds what was written meanwhile");
        let owner = cluster.numbered(*number)?;
        let found = eventually(&what, SOON, async || match stage::held(&owner, &key).await.map_err(not_yet)? {
            Some(text) if text == expected => Ok(()),
            other => Err(Look::NotYet(format!("{other:?}"))),
        });
        let found = found.await.map_err(|trouble| trouble.to_string());
        checks.check(&what, found);
    }
    keys.read(cluster, checks).await?;
    keys.write(cluster, checks, 204).await?;
    keys.read(cluster, checks).await?;

    checks.step("Two clients that have read the same write at the same time");
    siblings(cluster, &keys.names[1], checks).await
}

/// Two writes that saw the same past are both kept, until a third that has seen both.
async fn siblings<W: Write>(cluster: &Cluster, key: &str, checks: &mut Checks<W>) -> Result<(), Trouble> {
    let via = remote(&any(cluster)?);
    let seen = via.ask(&Ask::get(value(key))).await?.successful()?;
    let context = seen.header("kringle-context").unwrap_or_default().to_owned();
    for text in ["from one client", "from another"] {
        let write = Ask::put(value(key)).header("kringle-context", context.clone()).body(text);
        checks.check(
            &format!("the write {text} is taken"),
            via.ask(&write).await?.successful().map(drop).map_err(|f| f.to_string()),
        );
    }
    let both = via.ask(&Ask::get(value(key))).await?.successful()?;
    checks.equal("both are kept", both.header("kringle-siblings"), Some("2"));
    let context = both.header("kringle-context").unwrap_or_default().to_owned();
    via.ask(&Ask::put(value(key)).header("kringle-context", context).body("both seen")).await?.successful()?;
    let one = via.ask(&Ask::get(value(key))).await?.successful()?;
    checks.equal("a write that has seen both stands alone", one.header("kringle-siblings").unwrap_or("1"), "1");
    checks.equal("and is what is read", String::from_utf8_lossy(&one.body).into_owned(), "both seen".to_owned());
    Ok(())
}

impl Keys {
    fn value(&self, index: usize) -> String {
        format!("{} {}", self.names[index], self.turn)
    }

    /// Writes all of them anew, each through another node.
    async fn write<W: Write>(
        &mut self,
        cluster: &Cluster,
        checks: &mut Checks<W>,
        expected: u16,
    ) -> Result<(), Trouble> {
        self.turn += 1;
        let nodes = cluster.running();
        let mut found = Ok(());
        for (index, node) in (0..self.names.len()).zip(nodes.iter().cycle()) {
            let write = Ask::put(value(&self.names[index])).body(self.value(index));
            let answered = same(remote(node).ask(&write).await, expected);
            found = found.and(answered.map_err(|why| format!("{}, node {}: {why}", self.names[index], node.number)));
        }
        checks.check(&format!("{KEYS} writes through every node answer {expected}"), found);
        Ok(())
    }

    /// Writes one of them anew, and the others as well in what is expected of them from now on.
    async fn update(&mut self, cluster: &Cluster, index: usize) -> Result<Answer, Trouble> {
        let node = remote(&any(cluster)?);
        self.turn += 1;
        for other in (0..self.names.len()).filter(|other| *other != index) {
            node.ask(&Ask::put(value(&self.names[other])).body(self.value(other))).await?.successful()?;
        }
        Ok(node.ask(&Ask::put(value(&self.names[index])).body(self.value(index))).await?)
    }

    /// Reads all of them, each through another node than wrote it.
    async fn read<W: Write>(&self, cluster: &Cluster, checks: &mut Checks<W>) -> Result<(), Trouble> {
        let nodes = cluster.running();
        let mut found = Ok(());
        for (index, node) in (0..self.names.len()).zip(nodes.iter().cycle().skip(1)) {
            let expected = self.value(index);
            let shown = match read(&remote(node), &self.names[index]).await {
                Ok(Some(text)) if text == expected => Ok(()),
                other => Err(format!("node {} shows {other:?} and not {expected:?}", node.number)),
            };
            found = found.and(shown);
        }
        checks.check(&format!("{KEYS} reads through every node show what was written last"), found);
        Ok(())
    }
}
