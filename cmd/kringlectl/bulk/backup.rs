//! `backup`: what nodes hold, as they hold it, each in a folder; and `backup verify`.

use super::manifest::{self, Manifest, NodeNamed, PartNamed, Unfinished, push_piece};
use super::members::{self, Members};
use super::{about, progress};
use crate::arguments::Form;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use clap::Subcommand;
use kringle::config::PeerUrl;
use kringle::placement::{PARTITIONS, Partition};
use kringle::protocol::{Copies, CopiesFrom};
use kringle::remote::{Ask, Remote, query};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a part, about.
const PART_BYTES: usize = 32 << 20;
/// The least that a piece may take: a node that serves clients gives way to them.
const PIECE_TIME_MIN: Duration = Duration::from_secs(60);
/// How often a piece is asked for that does not come.
const TRIES_MAX: u32 = 5;

/// Copies what nodes hold into a folder, while they serve
///
/// One node with --node, else every member, each in a folder of its own below. Of each key the whole record is copied, with its
/// history, siblings and deletes, as `kringlectl restore` brings it back. What is written meanwhile may be in it or not; what
/// was acknowledged by a majority before is, in the backups of all members together. Hints are not in it, so what `202`
/// acknowledged and is not handed over yet may be missing. The manifest has the BLAKE3 sum of each file.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  kringlectl backup monday
  kringlectl backup --node http://localhost:8001 monday-n1
  kringlectl backup --resume monday
  kringlectl backup verify monday"
)]
pub struct Backup {
    #[command(subcommand)]
    verb: Option<BackupVerb>,
    /// The folder; it is made
    #[arg(required = true, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Only this node
    #[arg(long, value_name = "URL", value_parser = node)]
    node: Option<PeerUrl>,
    /// Go on with backups that were cut off
    #[arg(long)]
    resume: bool,
}

/// What else is done with backups.
#[derive(Subcommand, Debug)]
pub enum BackupVerb {
    /// Tells whether a backup is whole and unchanged
    #[command(after_help = "\
Examples:
  kringlectl backup verify monday
  kringlectl backup verify monday-n1 monday-n2")]
    Verify {
        /// Folders of backups, or of several
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
    },
}

fn node(text: &str) -> Result<PeerUrl, String> {
    text.parse().map_err(|error: kringle::config::Nonsense| error.to_string())
}

impl Backup {
    /// Does it.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        if let Some(BackupVerb::Verify { folders }) = &self.verb {
            return verify(session, folders);
        }
        let folder = self.folder.as_deref().ok_or_else(|| Failed::usage("name the folder"))?;
        let limit = session.timeout.max(PIECE_TIME_MIN);
        if let Some(node) = &self.node {
            let manifest = take(&Remote::new(vec![node.clone()], limit), folder, self.resume, None).await?;
            let is_whole = manifest.whole_node;
            show(session, &[(folder.to_owned(), manifest)])?;
            return Ok(if is_whole { Exit::Ok } else { Exit::Degraded });
        }
        let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.json()?;
        let begun = Members::of(&cluster);
        self.begin(folder, &begun)?;
        let members = cluster["members"].as_array().cloned().unwrap_or_default();
        let (mut taken, mut failed) = (Vec::new(), None);
        for member in &members {
            let (Some(id), Some(url)) = (member["id"].as_str(), member["url"].as_str()) else {
                talk!("{}: it has not been met yet", member["name"].as_str().unwrap_or("a member"));
                failed.get_or_insert(Exit::Unavailable);
                continue;
            };
            let within = folder.join(id);
            let remote = Remote::new(vec![node_of(url)?], limit);
            match take(&remote, &within, self.resume, Some(id)).await {
                Ok(manifest) => taken.push((within, manifest)),
                Err(one) => {
                    one.tell();
                    failed.get_or_insert(one.exit);
                }
            }
        }
        show(session, &taken)?;
        let manifests = || taken.iter().map(|(_, manifest)| manifest);
        let mut is_whole = manifests().all(|manifest| manifest.whole_node);
        is_whole &= !members::warn_of_epochs(manifests());
        match failed {
            None => {
                let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.json()?;
                if Members::of(&cluster) != begun {
                    talk!("the layout of the cluster changed meanwhile: what was new in it may not be in the backup");
                    is_whole = false;
                }
                Ok(if is_whole { Exit::Ok } else { Exit::Degraded })
            }
            Some(exit) => Err(Failed::new(exit, format!("{} of {} members are backed up", taken.len(), members.len()))
                .hint("go on with --resume: what is done is left as it is")),
        }
    }
}

impl Backup {
    /// Notes whose backups a folder is for, before any of them is begun: one that is missing is missed.
    fn begin(&self, folder: &Path, members: &Members) -> Result<(), Failed> {
        if Manifest::is_in(folder) || Unfinished::is_in(folder) {
            let error = format!("{}: there is a backup of one node", folder.display());
            return Err(Failed::usage(error).hint("name another folder"));
        }
        match Members::read(folder)? {
            Some(_) if !self.resume => {
                return Err(Failed::usage(format!("{}: there is a backup already", folder.display()))
                    .hint("name another folder, or go on with one that was cut off by --resume"));
            }
            Some(before) if before.cluster_id != members.cluster_id => {
                let error = format!("{}: it is of cluster {}", folder.display(), before.cluster_id);
                return Err(Failed::usage(error).hint("name that cluster, or another folder"));
            }
            _ => {}
        }
        std::fs::create_dir_all(folder).map_err(about(folder))?;
        members.keep(folder)
    }
}

fn node_of(url: &str) -> Result<PeerUrl, Failed> {
    node(url).map_err(|error| Failed::new(Exit::Unexpected, error))
}

/// Copies what one node holds: the one with this id, if any is named.
async fn take(remote: &Remote, folder: &Path, resumes: bool, wanted: Option<&str>) -> Result<Manifest, Failed> {
    let status = remote.ask(&Ask::get("/status")).await?.successful()?.json()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = &status["node"];
    let node = NodeNamed { id: text(&told["id"]), name: text(&told["name"]), url: text(&told["url"]) };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != node.id) {
        let error = format!("{}: node {} answers, and not {wanted}", remote.current(), node.id);
        return Err(Failed::new(Exit::Unexpected, error).hint("look who lives there: kringlectl members"));
    }
    if Manifest::is_in(folder) {
        let manifest = Manifest::read(folder)?;
        if resumes && manifest.node.id == node.id {
            return Ok(manifest);
        }
        return Err(
            Failed::usage(format!("{}: there is a backup already", folder.display())).hint("name another folder")
        );
    }
    let unfinished = Unfinished::read(folder)?;
    if !resumes && (unfinished.is_some() || folder.read_dir().is_ok_and(|mut entries| entries.next().is_some())) {
        return Err(Failed::usage(format!("{}: the folder is not empty", folder.display()))
            .hint("name another, or go on with a backup that was cut off by --resume"));
    }
    std::fs::create_dir_all(folder).map_err(about(folder))?;
    let (manifest, mut from) = match unfinished {
        Some(unfinished) if unfinished.manifest.node.id == node.id => (unfinished.manifest.clone(), unfinished.from()?),
        Some(unfinished) => {
            let error = format!("{} is a backup of node {}", folder.display(), unfinished.manifest.node.id);
            return Err(Failed::usage(error).hint("name that node, or another folder"));
        }
        None => {
            let epoch = status["epoch"].as_u64().unwrap_or_default();
            let manifest = Manifest::begin(node, String::new(), epoch, text(&told["version"]));
            // From here on it is known for one that is not done.
            let beginning = Partition::try_from_index(0).map_err(|error| Failed::new(Exit::Unexpected, error))?;
            Unfinished::at(manifest.clone(), &CopiesFrom { partition: beginning, after: None }).keep(folder)?;
            (manifest, (0, None))
        }
    };
    let bar = progress::towards("backing up", PARTITIONS as u64);
    let mut course = Course { folder, manifest, part: Vec::new(), records: 0 };
    course.note(&status);
    loop {
        bar.set_position(from.0.into());
        let Some(next) = course.take(remote, &from).await.inspect_err(|_| bar.finish_and_clear())? else { break };
        from = next;
    }
    bar.finish_and_clear();
    course.note(&remote.ask(&Ask::get("/status")).await?.successful()?.json()?);
    course.finish()
}

/// A backup under way.
struct Course<'a> {
    folder: &'a Path,
    manifest: Manifest,
    part: Vec<u8>,
    /// In the part.
    records: u64,
}

impl Course<'_> {
    /// Takes note of how the node stands. What it got, or gave away, while it was read may not be in the backup.
    fn note(&mut self, status: &Value) {
        let is_filled = status["filling"]["state"] == "filled";
        self.manifest.whole_node &= is_filled && status["epoch"].as_u64() == Some(self.manifest.epoch);
    }

    /// Takes the next piece; where the one behind it begins.
    async fn take(
        &mut self,
        remote: &Remote,
        from: &(u16, Option<Vec<u8>>),
    ) -> Result<Option<(u16, Option<Vec<u8>>)>, Failed> {
        let partition = from.0.to_string();
        let parameters = [("partition", partition.as_bytes())];
        let parameters = parameters.into_iter().chain(from.1.as_deref().map(|key| ("after", key)));
        let ask = Ask::get(query("/backup", parameters));
        let mut tries = 0;
        let (piece, copies) = loop {
            tries += 1;
            let failed = match remote.ask(&ask).await.and_then(|answer| answer.successful()) {
                Ok(answer) => match Copies::decode(&answer.body) {
                    Ok(copies) => break (answer.body, copies),
                    Err(error) => Failed::new(Exit::Unavailable, format!("{}: {error}", answer.from)),
                },
                Err(failure) => failure.into(),
            };
            if tries >= TRIES_MAX || failed.exit != Exit::Unavailable {
                return Err(failed.hint("what is there stays: go on with --resume"));
            }
            tokio::time::sleep(Duration::from_millis(200 << tries)).await;
        };
        let (id, cluster) = (copies.node.to_string(), copies.cluster.to_string());
        let is_same = self.manifest.cluster_id.is_empty() || self.manifest.cluster_id == cluster;
        if id != self.manifest.node.id || !is_same {
            let error = format!("node {} answers, and not {} as before", id, self.manifest.node.id);
            return Err(Failed::new(Exit::Unexpected, error).hint("begin anew, in another folder"));
        }
        let manifest = &mut self.manifest;
        manifest.cluster_id = cluster;
        manifest.damaged += u64::from(copies.damaged);
        let records = copies.portions.iter().flat_map(|portion| &portion.records);
        manifest.tombstones += records.filter(|(_, record)| record.is_tombstone()).count() as u64;
        manifest.records += copies.records() as u64;
        self.records += copies.records() as u64;
        push_piece(&mut self.part, &piece)?;
        if self.part.len() >= PART_BYTES
            && let Some(next) = &copies.next
        {
            self.end_part(Some(next))?;
        }
        Ok(copies.next.map(|next| (next.partition.into(), next.after.map(|key| key.as_bytes().to_vec()))))
    }

    fn end_part(&mut self, next: Option<&CopiesFrom>) -> Result<(), Failed> {
        self.manifest.add_part(self.folder, &self.part, self.records)?;
        (self.part, self.records) = (Vec::new(), 0);
        match next {
            None => Ok(()),
            Some(next) => Unfinished::at(self.manifest.clone(), next).keep(self.folder),
        }
    }

    fn finish(mut self) -> Result<Manifest, Failed> {
        self.end_part(None)?;
        self.manifest.finish(self.folder)
    }
}

fn verify(session: &Session, folders: &[PathBuf]) -> Result<Exit, Failed> {
    let mut whole = Vec::new();
    for folder in members::find(folders)? {
        let bar = progress::towards("checking", Manifest::read(&folder)?.parts.len() as u64);
        let checked = manifest::verify(&folder, |_: &PartNamed| bar.inc(1));
        bar.finish_and_clear();
        whole.push((folder, checked?));
    }
    show(session, &whole)?;
    members::warn_of_epochs(whole.iter().map(|(_, manifest)| manifest));
    Ok(Exit::Ok)
}

/// Says what is in backups.
fn show(session: &Session, backups: &[(PathBuf, Manifest)]) -> Result<(), Failed> {
    for (folder, manifest) in backups {
        if manifest.damaged > 0 {
            talk!("{}: {} rows of the node could not be read, and are not in it", folder.display(), manifest.damaged);
        }
        if !manifest.whole_node {
            talk!(
                "{}: the node was still being filled, or the layout changed, while it was taken: keys may be missing",
                folder.display()
            );
        }
    }
    let bytes = |manifest: &Manifest| manifest.parts.iter().map(|part| part.bytes).sum::<u64>();
    match session.show.form() {
        Form::Json => {
            let shown = backups.iter().map(|(folder, manifest)| {
                json!({
                    "folder": folder.to_string_lossy(), "node": manifest.node, "cluster_id": manifest.cluster_id,
                    "ended": manifest.ended, "records": manifest.records, "tombstones": manifest.tombstones,
                    "parts": manifest.parts.len(), "bytes": bytes(manifest), "damaged": manifest.damaged,
                    "whole_node": manifest.whole_node,
                })
            });
            session.show.json(&Value::Array(shown.collect()))
        }
        form => {
            let mut text = if form == Form::Csv { "folder,node,records,parts,bytes,ended\n" } else { "" }.to_owned();
            for (folder, manifest) in backups {
                let Manifest { node, records, parts, ended, .. } = manifest;
                let (folder, url, bytes) = (folder.display(), &node.url, bytes(manifest));
                text += &match form {
                    Form::Csv => format!("{folder},{url},{records},{},{bytes},{ended}\n", parts.len()),
                    _ => {
                        format!("{folder}: {url}, {records} records in {} parts, {bytes} bytes, {ended}\n", parts.len())
                    }
                };
            }
            session.show.bytes(text.as_bytes())
        }
    }
}
