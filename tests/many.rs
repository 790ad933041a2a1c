//! Many nodes in one process, as a program's own tests would run them: the library's, on ports that the system gives, with
//! nothing on disk.

mod support;

use kringle::config::{Load, Settings};
use kringle::http;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::eventually;
use support::http::Client;

const NODES: usize = 50;
const KEYS: usize = 200;
/// How long they may take to agree, and to know one another, while two cores do the work of all.
const LIMIT: Duration = Duration::from_secs(60);
/// Each node keeps connections to every other, and both ends of each are files of this process.
const FILES: u64 = 16_384;
/// Pages of all nodes together, in bytes: 12 MiB each.
const RESIDENT_BYTES_MAX: u64 = NODES as u64 * (12 << 20);

/// Starts a node with these flags on a thread of its own. Its address is told once it listens.
fn start(flags: &[&str], tell: mpsc::Sender<String>) -> JoinHandle<()> {
    let words = ["kringle", "--port", "0", "--memory", "--workers", "1"].iter().chain(flags);
    let nothing: [(&str, &str); 0] = [];
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let Ok(Load::Run(settings)) = Settings::load(words, nothing, no_file) else { panic!("{flags:?} are no settings") };
    let announce = move |address: &http::Address| {
        tell.send(address.url.trim_start_matches("http://").to_owned()).expect("the test waits");
    };
    std::thread::spawn(move || http::run(*settings, announce).expect("the node runs"))
}

fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |most| most.min(FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("more files");
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes")
}

/// What a node says of its cluster, if that is settled and of so many members.
fn settled(client: &mut Client) -> Result<Value, String> {
    let cluster = client.get("/cluster").expect(200).json();
    let members = cluster["members"].as_array().map_or(0, Vec::len);
    let is_settled = cluster["changing"] == json!(false) && cluster["member"] == json!(true);
    match members == NODES && is_settled && cluster["epoch"].as_u64() > Some(0) {
        true => Ok(cluster),
        false => Err(format!("{members} members, epoch {}, changing {}", cluster["epoch"], cluster["changing"])),
    }
}

fn all_alive(client: &mut Client) -> Result<(), String> {
    let status = client.get("/status").expect(200).json();
    let members = status["members"].as_array().expect("members");
    let heard =
        |member: &&Value| member["state"] == "alive" && (member["last_seen_ms"].is_u64() || is_self(member, &status));
    match members.iter().filter(heard).count() {
        NODES => Ok(()),
        alive => Err(format!("{alive} of {} members are alive and heard", members.len())),
    }
}

fn is_self(member: &Value, status: &Value) -> bool {
    member["name"] == status["node"]["name"]
}

#[test]
fn fifty_nodes_that_start_at_once_in_one_process_agree_settle_serve_and_stop() {
    allow_files();
    let began = Instant::now();
    let (tell, told) = mpsc::channel();
    let mut threads = vec![start(&[], tell.clone())];
    let first = told.recv_timeout(LIMIT).expect("the first node listens");
    threads.extend((1..NODES).map(|_| start(&["--peers", &first], tell.clone())));
    let others = (1..NODES).map(|_| told.recv_timeout(LIMIT).expect("all nodes listen"));
    let addresses: BTreeSet<String> = others.chain([first.clone()]).collect();
    assert_eq!(addresses.len(), NODES, "{addresses:?}");
    let mut clients: Vec<Client> = addresses.iter().map(|address| Client::new(address)).collect();
    eprintln!("{NODES} nodes listen after {:?}", began.elapsed());

    let mut clusters = vec![];
    for client in &mut clients {
        clusters
            .push(eventually("the members have settled", LIMIT.saturating_sub(began.elapsed()), || settled(client)));
    }
    let agreed: BTreeSet<String> =
        clusters.iter().map(|cluster| format!("{} {}", cluster["cluster_id"], cluster["epoch"])).collect();
    assert_eq!(agreed.len(), 1, "{agreed:?}");
    let shares = clusters[0]["members"].as_array().unwrap().iter().map(|member| member["share"].as_f64().unwrap());
    let fullest = shares.fold(0.0, f64::max) * NODES as f64;
    eprintln!("one layout after {:?}: {agreed:?}, the fullest has {fullest:.3} of the mean", began.elapsed());
    assert!(fullest <= 1.10, "{fullest}");
    for client in &mut clients {
        eventually("all are alive to all", LIMIT.saturating_sub(began.elapsed()), || all_alive(client));
    }
    eprintln!("all alive to all after {:?}, {} MiB", began.elapsed(), resident_bytes() >> 20);

    for key in 0..KEYS {
        clients[key % NODES].put(&format!("/kv/key-{key}"), format!("value {key}")).expect(201);
    }
    for key in 0..KEYS {
        for reader in [(key + 1) % NODES, (key + NODES / 2) % NODES] {
            assert_eq!(clients[reader].get(&format!("/kv/key-{key}")).expect(200).text(), format!("value {key}"));
        }
    }
    let resident = resident_bytes();
    eprintln!("{KEYS} keys through all after {:?}, {} MiB", began.elapsed(), resident >> 20);
    assert!(resident <= RESIDENT_BYTES_MAX, "{} MiB", resident >> 20);

    // Each node hears it: they are told to stop as a process is.
    kill_process(getpid(), Signal::TERM).expect("a signal to this process");
    threads.into_iter().for_each(|thread| thread.join().expect("a node stops in order"));
    eprintln!("stopped after {:?}", began.elapsed());
}
