//! What changes the cluster: `mode replicas join leave remove replace drain abandon`. Each is told an epoch, and waits for it.

use super::members::shortened;
use crate::arguments::{modes, seconds};
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit, counted, of_bytes};
use crate::survey::{self, member_called};
use crate::terminal;
use kringle::config::PeerUrl;
use kringle::remote::{Ask, Remote};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a node is let wait before it is asked what has become of it.
const ROUND: Duration = Duration::from_secs(1);
/// How long the other nodes have to hear of a change that has come about.
const GOSSIP_MAX: Duration = Duration::from_secs(15);
/// How long nobody is asked after nobody could be had.
const PAUSE: Duration = Duration::from_millis(250);

/// How a change is made.
#[derive(clap::Args, Debug)]
pub struct Manner {
    /// Shows what would move, and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Does not wait until it is done
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait until it is done
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    wait: Duration,
}

/// By which mode requests go that name none; shows it without an argument
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl mode
  kringlectl mode quorum")]
pub struct Mode {
    /// The new one
    #[arg(value_parser = modes())]
    mode: Option<String>,
    #[command(flatten)]
    manner: Manner,
}

/// How many nodes keep each key; shows it without an argument
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl replicas
  kringlectl replicas 5 --dry-run
  kringlectl replicas 5")]
pub struct Replicas {
    /// The new number
    #[arg(value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: Option<u8>,
    #[command(flatten)]
    manner: Manner,
}

/// Has a node join the cluster it has met
///
/// For one that has left, or that was started with --join manual. Others join by themselves.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl join node4
  kringlectl join http://node4:8001 --dry-run")]
pub struct Join {
    /// The URL of that node
    node: PeerUrl,
    #[command(flatten)]
    manner: Manner,
}

/// Has a member hand over what it keeps, and go
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl leave node4 --dry-run
  kringlectl leave node4 --yes")]
pub struct Leave {
    /// The member's id, name or URL
    node: String,
    #[command(flatten)]
    manner: Manner,
    /// Asks no questions
    #[arg(long, short = 'y')]
    yes: bool,
}

/// Has a member hand over what it keeps, and stay: it votes and passes requests on
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl drain node3 --dry-run
  kringlectl drain node3 --yes")]
pub struct Drain {
    /// The member's id, name or URL
    node: String,
    #[command(flatten)]
    manner: Manner,
    /// Asks no questions
    #[arg(long, short = 'y')]
    yes: bool,
}

/// Ends the membership of a node that is down; the others take over its keys
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl remove node3 --dry-run
  kringlectl remove node3 --yes")]
pub struct Remove {
    /// The member's id, name or URL
    node: String,
    #[command(flatten)]
    manner: Manner,
    /// Asks no questions
    #[arg(long, short = 'y')]
    yes: bool,
}

/// Puts a fresh node in the place of a member that is down; nothing else moves
///
/// The fresh node is to be started with --join manual, and a member in --peers.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl replace node3 node6 --dry-run
  kringlectl replace node3 http://node6:8001")]
pub struct Replace {
    /// The dead member's id, name or URL
    dead: String,
    /// The URL of the fresh node
    with: PeerUrl,
    #[command(flatten)]
    manner: Manner,
}

/// Gives up a change of owners, as long as reads still go to the old ones
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl abandon")]
pub struct Abandon {
    #[command(flatten)]
    manner: Manner,
}

const CONFIG: &[Column] = &[Column("mode", Unit::Text), Column("replicas", Unit::Text), Column("epoch", Unit::Text)];
const MOVES: &[Column] = &[
    Column("from", Unit::Text),
    Column("to", Unit::Text),
    Column("partitions", Unit::Text),
    Column("keys", Unit::Text),
    Column("bytes", Unit::Bytes),
];
const DONE: &[Column] = &[Column("epoch", Unit::Text), Column("settled", Unit::Text)];

/// A change that was asked for.
struct Wanted<'a> {
    /// Whom it is asked of.
    of: &'a Remote,
    /// The request, without `dry-run`.
    ask: Box<dyn Fn(&str) -> Ask + 'a>,
    /// What people are asked first, if they are there.
    question: Option<String>,
    /// Who may not know of its end, as it is no member by then.
    gone: Option<PeerUrl>,
    /// Whether `/cluster` shows that it has come about, beside the epoch.
    is_done: Box<dyn Fn(&Value) -> bool + 'a>,
}

async fn show_config(session: &Session) -> Result<Exit, Failed> {
    let config = session.remote.ask(&Ask::get("/config")).await?.successful()?.object()?;
    session.show.data(&config, &Table { columns: CONFIG, rows: std::slice::from_ref(&config) })?;
    Ok(Exit::Ok)
}

/// The member that is called so, and its URL.
async fn member(session: &Session, called: &str) -> Result<(Value, PeerUrl), Failed> {
    let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.object()?;
    member_called(&cluster, called).map(|(member, url)| (member.clone(), url))
}

/// The member that is called so, its URL, and where it is asked itself.
async fn member_itself(session: &Session, called: &str) -> Result<(PeerUrl, Remote), Failed> {
    let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.object()?;
    let (member, url) = member_called(&cluster, called)?;
    let known = survey::addresses(&session.remote, session.timeout, &cluster).await;
    let address = known.iter().find(|(id, _)| *id == member["id"]).map_or(&url, |(_, address)| address);
    let itself = session.remote.only(address);
    Ok((url, itself))
}

/// Whether a member is listed under this URL, in this role or any.
fn is_listed(cluster: &Value, url: &PeerUrl, role: Option<&str>) -> bool {
    member_called(cluster, url.url()).is_ok_and(|(member, _)| role.is_none_or(|role| member["role"] == role))
}

/// The id of whoever answers under this URL, which its cluster may list under another; `None` where nobody does.
async fn id_of(remote: &Remote) -> Option<Value> {
    let answer = remote.ask(&Ask::get("/ping")).await.ok()?.successful().ok()?;
    Some(answer.object().ok()?["node"].take()).filter(|id| !id.is_null())
}

/// Whether that node is a member: the one with this id where it is known, else the one with this URL.
fn is_member(cluster: &Value, id: Option<&Value>, url: &PeerUrl) -> bool {
    let Some(id) = id else { return is_listed(cluster, url, Some("member")) };
    let mut members = cluster["members"].as_array().into_iter().flatten();
    members.any(|member| member["id"] == *id && member["role"] == "member")
}

impl Manner {
    /// Makes the change, and waits until every node that lives goes by it.
    async fn make(&self, session: &mut Session, wanted: Wanted<'_>, is_sure: bool) -> Result<Exit, Failed> {
        let dry = (wanted.ask)("?dry-run=1");
        if self.dry_run {
            let outlook = wanted.of.ask(&dry.harmless()).await?.successful()?.object()?;
            let rows = outlook["moves"].as_array().cloned().unwrap_or_default();
            session.show.data(&outlook, &Table { columns: MOVES, rows: &shortened(session, &rows) })?;
            talk!("nothing was changed; {}", outlook_in_words(&outlook));
            return Ok(Exit::Ok);
        }
        if let Some(question) = wanted.question.as_ref().filter(|_| !is_sure && terminal::is_attended()) {
            let outlook = wanted.of.ask(&dry.harmless()).await?.successful()?.object()?;
            terminal::confirm(&format!("{question}; {}. Go on?", outlook_in_words(&outlook)))?;
        }
        let answer = wanted.of.ask(&(wanted.ask)("")).await?.successful()?.object()?;
        let epoch = answer["epoch"].as_u64().unwrap_or_default();
        if self.no_wait {
            return done(session, epoch, false);
        }
        talk!("epoch {epoch} is on its way");
        session.acquaint().await;
        self.await_epoch(session, epoch, &wanted).await?;
        done(session, epoch, true)
    }

    /// Waits until that epoch is gone by and no change is under way, as some node tells it; then for all that live.
    async fn await_epoch(&self, session: &Session, epoch: u64, wanted: &Wanted<'_>) -> Result<(), Failed> {
        let until = Instant::now() + self.wait;
        let endpoints = session.remote.endpoints().iter().filter(|url| Some(*url) != wanted.gone.as_ref());
        let endpoints: Vec<PeerUrl> = endpoints.cloned().collect();
        let remote = match endpoints.is_empty() {
            true => session.remote.within(session.timeout),
            false => Remote::new(endpoints, session.timeout),
        };
        let path = format!("/cluster?epoch={epoch}&wait={}s", ROUND.as_secs());
        let (mut told, mut trouble) = (String::new(), None);
        let cluster = loop {
            if Instant::now() >= until {
                let why = trouble.map_or(String::new(), |why: String| format!("; {why}"));
                let error = format!("epoch {epoch} has not settled within {:.0} s{why}", self.wait.as_secs_f64());
                let hint = "it goes on by itself: look at kringlectl members, or wait for longer with --wait";
                return Err(Failed::new(Exit::TimedOut, error).hint(hint));
            }
            match remote.ask(&Ask::get(path.clone())).await.and_then(|answer| answer.successful()?.object()) {
                Ok(cluster) => {
                    if is_reached(&cluster, epoch) && (wanted.is_done)(&cluster) {
                        break cluster;
                    }
                    let now = progress(&cluster);
                    if now != told {
                        talk!("{now}");
                        told = now;
                    }
                    trouble = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) => {
                    trouble = Some(failure.to_string());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        // The others hear of it by gossip, which takes moments; those that are down when they come back.
        let until = until.min(Instant::now() + GOSSIP_MAX);
        let known = survey::addresses(&remote, session.timeout, &cluster).await;
        let lives = |id: &Value| {
            let members = cluster["members"].as_array();
            members.into_iter().flatten().any(|member| member["id"] == *id && member["state"] == "alive")
        };
        let living: Vec<PeerUrl> = known.into_iter().filter(|(id, _)| lives(id)).map(|(_, url)| url).collect();
        loop {
            let said = survey::each(&remote, session.timeout, &living, "/config").await;
            let behind = |said: &Result<kringle::remote::Answer, _>| {
                !said.as_ref().is_ok_and(|answer| answer.json().is_ok_and(|said| said["epoch"].as_u64() >= Some(epoch)))
            };
            let late: Vec<&str> =
                living.iter().zip(&said).filter(|(_, said)| behind(said)).map(|(url, _)| url.url()).collect();
            if late.is_empty() {
                talk!("{} that live go by it", counted(living.len() as u64, "node"));
                return Ok(());
            }
            if Instant::now() >= until {
                talk!("note: not seen yet by {}", late.join(", "));
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn done(session: &Session, epoch: u64, settled: bool) -> Result<Exit, Failed> {
    session.show.head(DONE)?;
    session.show.item(&json!({ "epoch": epoch, "settled": settled }), DONE, || format!("epoch {epoch}"))?;
    Ok(Exit::Ok)
}

fn is_reached(cluster: &Value, epoch: u64) -> bool {
    cluster["epoch"].as_u64() >= Some(epoch) && cluster["changing"] != json!(true)
}

/// How far a change is, in a line.
fn progress(cluster: &Value) -> String {
    let transfers = cluster["transfers"].as_array().into_iter().flatten();
    let lacking = transfers.filter(|transfer| transfer["eta_s"] != json!(0.0)).count();
    format!("epoch {}, {} still on the way", cluster["epoch"], counted(lacking as u64, "partition"))
}

fn outlook_in_words(outlook: &Value) -> String {
    let bytes = of_bytes(outlook["bytes"].as_f64().unwrap_or_default());
    format!("{}, about {bytes}, would be sent", counted(outlook["keys"].as_u64().unwrap_or_default(), "key"))
}

impl Mode {
    /// Shows it, or changes it.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let Some(mode) = &self.mode else { return show_config(session).await };
        let remote = session.remote.within(session.timeout);
        let body = json!({ "mode": mode });
        let ask = |dry: &str| Ask::put(format!("/cluster/mode{dry}")).json(&body);
        let is_done = |cluster: &Value| cluster["mode"] == *mode;
        let wanted = Wanted { of: &remote, ask: Box::new(ask), question: None, gone: None, is_done: Box::new(is_done) };
        self.manner.make(session, wanted, true).await
    }
}

impl Replicas {
    /// Shows it, or changes it.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let Some(replicas) = self.replicas else { return show_config(session).await };
        let remote = session.remote.within(session.timeout);
        let body = json!({ "replicas": replicas });
        let ask = |dry: &str| Ask::put(format!("/cluster/replicas{dry}")).json(&body);
        let is_done = |cluster: &Value| cluster["replicas"] == replicas;
        let wanted = Wanted { of: &remote, ask: Box::new(ask), question: None, gone: None, is_done: Box::new(is_done) };
        self.manner.make(session, wanted, true).await
    }
}

impl Join {
    /// Asks the node itself.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let remote = session.remote.only(&self.node);
        session.remote = session.remote.and([self.node.clone()]);
        let ask = |dry: &str| Ask::post(format!("/cluster/join{dry}"));
        let id = id_of(&remote).await;
        let is_done = |cluster: &Value| is_member(cluster, id.as_ref(), &self.node);
        let wanted = Wanted { of: &remote, ask: Box::new(ask), question: None, gone: None, is_done: Box::new(is_done) };
        self.manner.make(session, wanted, true).await
    }
}

impl Leave {
    /// Asks the node itself.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let (url, remote) = member_itself(session, &self.node).await?;
        let ask = |dry: &str| Ask::post(format!("/cluster/leave{dry}"));
        let is_done = |cluster: &Value| !is_listed(cluster, &url, None);
        let wanted = Wanted {
            of: &remote,
            ask: Box::new(ask),
            question: Some(format!("{url} hands over what it keeps, and goes")),
            gone: Some(url.clone()),
            is_done: Box::new(is_done),
        };
        self.manner.make(session, wanted, self.yes).await
    }
}

impl Drain {
    /// Asks the node itself.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let (url, remote) = member_itself(session, &self.node).await?;
        let ask = |dry: &str| Ask::post(format!("/cluster/drain{dry}"));
        let is_done = |cluster: &Value| {
            member_called(cluster, url.url()).is_ok_and(|(member, _)| member["share"].as_f64() == Some(0.0))
        };
        let wanted = Wanted {
            of: &remote,
            ask: Box::new(ask),
            question: Some(format!("{url} hands over what it keeps, and stays a member")),
            gone: None,
            is_done: Box::new(is_done),
        };
        self.manner.make(session, wanted, self.yes).await
    }
}

impl Remove {
    /// Asks any node.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let (member, url) = member(session, &self.node).await?;
        let remote = session.remote.within(session.timeout);
        let body = json!({ "node": member["name"] });
        let ask = |dry: &str| Ask::post(format!("/cluster/remove{dry}")).json(&body);
        let is_done = |cluster: &Value| !is_listed(cluster, &url, None);
        let state = member["state"].as_str().unwrap_or_default();
        let wanted = Wanted {
            of: &remote,
            ask: Box::new(ask),
            question: Some(format!("{url}, which is {state}, is no member any more")),
            gone: Some(url.clone()),
            is_done: Box::new(is_done),
        };
        self.manner.make(session, wanted, self.yes).await
    }
}

impl Replace {
    /// Asks any node.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let (member, dead) = member(session, &self.dead).await?;
        let remote = session.remote.within(session.timeout);
        let body = json!({ "dead": member["name"], "with": self.with.url() });
        let ask = |dry: &str| Ask::post(format!("/cluster/replace{dry}")).json(&body);
        let id = id_of(&session.remote.only(&self.with)).await;
        let is_done = |cluster: &Value| is_member(cluster, id.as_ref(), &self.with);
        let wanted =
            Wanted { of: &remote, ask: Box::new(ask), question: None, gone: Some(dead), is_done: Box::new(is_done) };
        self.manner.make(session, wanted, true).await
    }
}

impl Abandon {
    /// Asks any node.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        let remote = session.remote.within(session.timeout);
        let ask = |dry: &str| Ask::post(format!("/cluster/abandon{dry}"));
        let wanted =
            Wanted { of: &remote, ask: Box::new(ask), question: None, gone: None, is_done: Box::new(|_| true) };
        self.manner.make(session, wanted, true).await
    }
}
