//! `restore`: backups are brought into a cluster, whatever its nodes are.

use super::manifest::{self, Manifest, pieces};
use super::{members, progress};
use crate::arguments::Form;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use indicatif::ProgressBar;
use kringle::protocol::Copies;
use kringle::remote::{Ask, Remote};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The least that a piece may take: a cluster that serves clients gives way to them.
const PIECE_TIME_MIN: Duration = Duration::from_secs(300);
/// How often a piece is sent of which some records did not find a majority of their owners.
const TRIES_MAX: u32 = 6;
/// The same where a majority has all, and some other owner does not.
const DEAF_TRIES_MAX: u32 = 3;
/// Records of which it is said why they were not brought back.
const FAILED_TOLD_MAX: usize = 20;

/// Brings backups into a cluster
///
/// The backups of all nodes of a cluster together, into any number of nodes, also while they serve. All files are checked
/// first: where any bit is not as it was, nothing is brought. Each record is merged with what the cluster holds: written
/// concurrently, both values stay; what the cluster has superseded since, by a write or a delete, stays superseded, and is
/// counted as such; of what owners agreed on, the later is kept. Done again, it comes to the same. The nodes keep their own
/// names and ids. To have a value back that was deleted in the same cluster, export it from a cluster restored elsewhere.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl --endpoint http://localhost:9001 restore monday
  kringlectl restore monday-n1 monday-n2 monday-n3")]
pub struct Restore {
    /// Folders of backups, or of several
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
}

/// What became of the records.
#[derive(Default)]
struct Counts {
    records: u64,
    restored: u64,
    present: u64,
    superseded: u64,
    deletes: u64,
    failed: u64,
    /// Partitions of which the backups tell what was seen, and those of them of which all who keep them know it now.
    seen: u64,
    known: u64,
}

impl Restore {
    /// Does it.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let mut backups = Vec::new();
        for folder in members::find(&self.folders)? {
            let bar = progress::towards("checking", Manifest::read(&folder)?.parts.len() as u64);
            let checked = manifest::verify(&folder, |_| bar.inc(1));
            bar.finish_and_clear();
            backups.push((
                folder,
                checked.map_err(|failed| {
                    let hint = failed.hint.clone().unwrap_or_default();
                    failed.hint(format!("nothing was brought back; {hint}"))
                })?,
            ));
        }
        members::warn_of_epochs(backups.iter().map(|(_, manifest)| manifest));
        let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.json()?;
        if backups.iter().any(|(_, manifest)| cluster["cluster_id"] == json!(manifest.cluster_id)) {
            talk!("this is the cluster that was backed up: what it has superseded or deleted since stays so");
        }
        // What a later one knows to be superseded is not shown in between.
        backups.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifest.ended_ms));
        let total = backups.iter().map(|(_, manifest)| manifest.records).sum();
        let remote = Remote::new(session.remote.endpoints().to_vec(), session.timeout.max(PIECE_TIME_MIN));
        let mut course = Course {
            remote,
            counts: Counts::default(),
            bar: progress::towards("restoring", total),
            told: 0,
            is_deaf: false,
        };
        let mut done = Ok(());
        for (folder, manifest) in &backups {
            done = course.bring(folder, manifest).await;
            if done.is_err() {
                break;
            }
        }
        course.bar.finish_and_clear();
        done.map_err(|failed| match failed.hint {
            None => failed.hint("what is brought stays: repeat the restore"),
            Some(_) => failed,
        })?;
        tell(session, &course.counts)
    }
}

struct Course {
    remote: Remote,
    counts: Counts,
    bar: ProgressBar,
    told: usize,
    /// Whether some who should take everything do not: then it is not tried again for that alone.
    is_deaf: bool,
}

impl Course {
    async fn bring(&mut self, folder: &Path, manifest: &Manifest) -> Result<(), Failed> {
        for part in &manifest.parts {
            // Once more: the check was a while ago.
            let bytes = part.read(folder)?;
            for (piece, copies) in pieces(&bytes)? {
                // With no record in it, it still says what was seen of empty partitions.
                self.send(piece, partitions_seen(&copies)).await?;
                self.bar.inc(copies.records() as u64);
            }
        }
        Ok(())
    }

    /// Sends a piece which tells of so many partitions what was seen of them.
    async fn send(&mut self, piece: &[u8], seen: u64) -> Result<(), Failed> {
        let body = bytes::Bytes::copy_from_slice(piece);
        // To be sent again comes to the same.
        let ask = Ask::post("/restore").header("content-type", kringle::protocol::MEDIA_TYPE).body(body).repeatable();
        let (mut tries, mut restored) = (0, 0);
        let told = loop {
            tries += 1;
            let failed = match self.remote.ask(&ask).await.and_then(|answer| answer.successful()) {
                Ok(answer) => {
                    let told = answer.json()?;
                    restored += told["restored"].as_u64().unwrap_or_default();
                    let is_known = told["partitions_known"].as_u64() >= Some(seen);
                    let is_enough = is_known || self.is_deaf || tries >= DEAF_TRIES_MAX;
                    if tries >= TRIES_MAX || (told["failed"] == json!(0) && is_enough) {
                        self.is_deaf |= !is_known;
                        break told;
                    }
                    None
                }
                Err(failure) => Some(Failed::from(failure)),
            };
            if let Some(failed) = failed
                && (tries >= TRIES_MAX || !matches!(failed.exit, Exit::Unavailable | Exit::TimedOut))
            {
                return Err(failed);
            }
            tokio::time::sleep(Duration::from_millis(250 << tries)).await;
        };
        self.add(&told, restored);
        self.counts.seen += seen;
        self.counts.known += told["partitions_known"].as_u64().unwrap_or_default().min(seen);
        Ok(())
    }

    /// Counts a piece: what was said of it last, and how many records of it were `restored` by then.
    fn add(&mut self, told: &Value, restored: u64) {
        let count = |name: &str| told[name].as_u64().unwrap_or_default();
        let (records, superseded, failed) = (count("records"), count("superseded"), count("failed"));
        let deletes = count("deletes");
        let restored = restored.min(records.saturating_sub(superseded + deletes + failed));
        self.counts.records += records;
        self.counts.restored += restored;
        self.counts.present += records.saturating_sub(superseded + deletes + failed + restored);
        self.counts.superseded += superseded;
        self.counts.deletes += deletes;
        self.counts.failed += failed;
        for failure in told["failures"].as_array().into_iter().flatten() {
            self.told += 1;
            if self.told <= FAILED_TOLD_MAX {
                let key = failure["key"].as_str().or(failure["key_base64"].as_str()).unwrap_or_default();
                self.bar.suspend(|| talk!("{key}: {}", failure["error"].as_str().unwrap_or_default()));
            }
        }
    }
}

/// Of how many partitions a piece tells what was seen of them.
fn partitions_seen(copies: &Copies) -> u64 {
    copies.portions.iter().filter(|portion| portion.is_whole && !portion.seen.is_empty()).count() as u64
}

fn tell(session: &Session, counts: &Counts) -> Result<Exit, Failed> {
    let Counts { records, restored, present, superseded, deletes, failed, seen, known } = counts;
    if session.show.form() == Form::Json {
        session.show.json(&json!({
            "records": records, "restored": restored, "present": present, "superseded": superseded, "deletes": deletes,
            "failed": failed,
        }))?;
    }
    talk!(
        "{records} records: {restored} restored, {present} there already, {superseded} superseded here since, {deletes} deletes"
    );
    if *failed > 0 {
        return Err(Failed::new(
            Exit::Unavailable,
            format!("{failed} records could not be brought to a majority of their owners"),
        )
        .hint("repeat the restore once their owners are back"));
    }
    if known < seen {
        talk!(
            "some owners do not have everything yet: in {} of {seen} cases what was seen of a partition is not known to \
             all of its owners, and what is deleted there may stay as tombstones: repeat the restore once all nodes are up",
            seen - known
        );
        return Ok(Exit::Degraded);
    }
    Ok(Exit::Ok)
}
