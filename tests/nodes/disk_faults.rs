//! A disk that is full, that fails to sync, and a process that dies at its n-th call to the disk. The faults are
//! real ones: a small file system, and system calls that a tracer makes fail.
//!
//! Where the machine does not permit them a test says `skipped: …` and why.

use crate::support;

use rand_chacha::ChaCha8Rng;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::http::Request;
use support::load::{History, Load, Outcome, Workload};
use support::node::{Node, Plan};
use support::{eventually, seeded, thorough};
use tempfile::TempDir;

/// Runs a program silently. Whether it succeeded; false too where there is no such program.
fn succeeds(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

// ---- a full disk

/// A file system of its own on a folder, in memory. Unmounted when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// None where mounting is not permitted.
    fn of(bytes: u64) -> Option<SmallDisk> {
        let folder = TempDir::new().expect("a folder to mount on");
        let size = format!("size={bytes}");
        let mounted = succeeds("mount", &["-t", "tmpfs", "-o", &size, "kringle-test", folder.path().to_str()?]);
        mounted.then_some(SmallDisk { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).expect("a file to fill with");
        for piece in [1 << 20, 4096, 1] {
            let bytes = vec![0xee; piece];
            while std::io::Write::write_all(&mut file, &bytes).is_ok() {}
        }
    }

    /// Gives back what was taken.
    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filling file");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        succeeds("umount", &["-l", self.path().to_str().unwrap_or_default()]);
    }
}

/// Writes new keys until one is refused. Fails when none is.
fn write_until_refused(node: &Node, history: &mut History, round: usize) -> support::http::Answer {
    let mut client = node.client();
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 0.. {
        assert!(Instant::now() < deadline, "a full disk takes writes for a minute");
        let key = format!("full{round}-{number}");
        let value = format!("{key}.{}", "v".repeat(64 * 1024));
        match history.write(&mut client, &key, value.clone()) {
            Outcome::Acknowledged => {}
            // The remembered write says only its status; its like says why.
            _ => {
                let again = client.put(&format!("/kv/{key}"), value);
                if again.status >= 400 {
                    return again;
                }
                panic!("refused once and taken right after on a full disk: {again}");
            }
        }
    }
    unreachable!("the loop ends by one of its three ways")
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_heals_when_there_is_room() {
    let Some(disk) = SmallDisk::of(512 << 20) else {
        eprintln!("skipped: mounting a small file system is not permitted here");
        return;
    };
    let mut node = Plan::new(&["--timeout", "2"]).data(&disk.path().join("data")).start();
    let mut history = History::default();
    for number in 0..200 {
        let key = format!("before{number}");
        assert_eq!(history.write(&mut node.client(), &key, format!("{key}.")), Outcome::Acknowledged);
    }
    for round in 0..2 {
        disk.fill();
        let refused = write_until_refused(&node, &mut history, round);
        assert!(matches!(refused.status, 503 | 507), "{refused}");
        let told = refused.clone().refusal(refused.status).text().to_lowercase();
        assert!(["disk", "space", "room", "full"].iter().any(|word| told.contains(word)), "says why: {told}");

        eventually("the node says it is not ready", Duration::from_secs(10), || {
            let ready = node.get("/readyz?verbose");
            (ready.status == 503).then_some(()).ok_or(ready.to_string())
        });
        node.get("/healthz").expect(200);
        history.verify(&mut node.client());

        disk.free();
        eventually("writes are taken again without a restart", Duration::from_secs(30), || {
            let stored = node.put(&format!("/kv/room{round}"), "v");
            matches!(stored.status, 201 | 204).then_some(()).ok_or(stored.to_string())
        });
        eventually("the node is ready again", Duration::from_secs(10), || {
            let ready = node.get("/readyz?verbose");
            (ready.status == 200).then_some(()).ok_or(ready.to_string())
        });
        history.verify(&mut node.client());
    }
    node.kill();
    node.restart();
    history.verify(&mut node.client());
}

#[test]
fn a_node_killed_on_a_full_disk_still_has_everything() {
    let Some(disk) = SmallDisk::of(512 << 20) else {
        eprintln!("skipped: mounting a small file system is not permitted here");
        return;
    };
    let mut node = Plan::new(&["--timeout", "2"]).data(&disk.path().join("data")).start();
    let mut history = History::default();
    disk.fill();
    write_until_refused(&node, &mut history, 0);
    node.kill();
    // Without room it may serve reads, or end and say why; a moment later it dies again in either case.
    node.relaunch();
    std::thread::sleep(Duration::from_secs(1));
    if let Some(status) = node.exited() {
        assert_eq!(status.code(), Some(1), "{}", node.log());
    }
    node.kill();
    disk.free();
    node.restart();
    history.verify(&mut node.client());
    assert_eq!(node.put("/kv/room", "v").status, 201);
}

// ---- faults by a tracer

/// A tracer that makes system calls fail, and what it saw.
struct Tracer {
    folder: TempDir,
}

impl Tracer {
    /// None where tracing is not possible.
    fn found() -> Option<Tracer> {
        let tracer = Tracer { folder: TempDir::new().expect("a folder for the trace") };
        let report = tracer.report_path();
        let possible = succeeds("strace", &["-D", "-f", "-o", report.to_str()?, "-e", "trace=execve", "true"]);
        if !possible {
            eprintln!("skipped: strace is not installed, or not permitted here");
        }
        possible.then_some(tracer)
    }

    /// The words that start a program under this fault. The tracer runs beside it, so the process started is
    /// the program itself.
    fn inject(&self, calls: &str, fault: &str) -> Vec<OsString> {
        let report = self.report_path();
        // An old report would be taken for this run's.
        let _ = std::fs::remove_file(&report);
        let mut words: Vec<OsString> = ["strace", "-D", "-f", "-q", "-o"].map(OsString::from).into();
        words.push(report.into());
        words.extend(["-e".into(), format!("trace={calls}").into()]);
        words.extend(["-e".into(), format!("inject={calls}:{fault}").into()]);
        words
    }

    fn report_path(&self) -> PathBuf {
        self.folder.path().join("trace.txt")
    }

    /// How many calls were made to fail.
    fn injected(&self) -> usize {
        std::fs::read_to_string(self.report_path()).unwrap_or_default().matches("(INJECTED)").count()
    }

    /// How many calls were seen, whether they were made to fail or not.
    fn calls(&self) -> usize {
        let report = std::fs::read_to_string(self.report_path()).unwrap_or_default();
        report.lines().filter(|line| line.contains("sync(")).count()
    }

    /// The last calls it saw.
    fn last_calls(&self) -> String {
        let report = std::fs::read_to_string(self.report_path()).unwrap_or_default();
        let lines: Vec<&str> = report.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    let Some(tracer) = Tracer::found() else { return };
    // A sync that fails while the folder is made keeps the node from starting: the fault must come after that.
    let quiet = tracer.inject("fdatasync,fsync", "error=EIO:when=65000");
    drop(Plan::new(&["--timeout", "2"]).under(quiet).start());
    let start = tracer.calls();
    assert!(start > 0, "no sync was seen");
    for when in [format!("{}", start + 10), format!("{}", start + 40), format!("{}+", start + 10)] {
        let Some(tracer) = Tracer::found() else { return };
        let fault = format!("error=EIO:when={when}");
        let mut node = Plan::new(&["--timeout", "2"]).under(tracer.inject("fdatasync,fsync", &fault)).start();
        let mut client = node.client();
        let mut history = History::default();
        let mut failed = None;
        for number in 0..500 {
            let key = format!("k{number}");
            if history.write(&mut client, &key, format!("{key}.")) != Outcome::Acknowledged {
                failed = Some(number);
                break;
            }
        }
        let failed = failed.unwrap_or_else(|| panic!("500 writes without a sync that fails: {}", tracer.last_calls()));
        assert!(
            tracer.injected() > 0,
            "write {failed} failed for another reason: {:?}",
            history.0[&format!("k{failed}")]
        );
        assert!(failed > 0, "some writes came before");
        // With when=20 every later sync would succeed: only the fence keeps these from being acknowledged.
        for number in 0..20 {
            let refused = client.put(&format!("/kv/after{number}"), "v").refusal(503);
            assert!(refused.took < Duration::from_secs(3), "took {:?}", refused.took);
            client.delete("/kv/k0").refusal(503);
        }
        node.get("/readyz").expect(503);
        node.get("/healthz").expect(200);
        node.kill();
        node.replan(|plan| plan.under::<OsString>([]));
        node.restart();
        history.verify(&mut node.client());
        assert_eq!(node.put("/kv/fresh", "v").status, 201, "the fence ends with the restart");
        node.get("/readyz").expect(200);
    }
}

#[test]
fn a_failed_write_to_the_log_is_never_acknowledged() {
    for error in ["EIO", "ENOSPC"] {
        let Some(tracer) = Tracer::found() else { return };
        let calls = "pwrite64,pwritev,pwritev2";
        let words = tracer.inject(calls, &format!("error={error}:when=20"));
        let mut node = Plan::new(&["--timeout", "2"]).under(words).start();
        let mut client = node.client();
        let mut history = History::default();
        for number in 0..100 {
            let key = format!("k{number}");
            history.write(&mut client, &key, format!("{key}."));
        }
        let failed = history.writes().filter(|write| write.outcome != Outcome::Acknowledged).count();
        assert_eq!(tracer.injected() > 0, failed > 0, "{error}: {failed} writes failed; {}", tracer.last_calls());
        node.kill();
        node.replan(|plan| plan.under::<OsString>([]));
        node.restart();
        history.verify(&mut node.client());
    }
}

/// Loads a node that dies at the `nth` of `calls` in one of its threads, and restarts it without that fault.
/// True when it did die.
fn die_at(
    tracer: &Tracer,
    node: &mut Node,
    calls: &str,
    nth: usize,
    history: &mut History,
    rng: &mut ChaCha8Rng,
) -> bool {
    node.kill();
    node.replan(|plan| plan.under(tracer.inject(calls, &format!("signal=KILL:when={nth}"))));
    node.relaunch();
    let mut written = History::default();
    let mut died = node.ready_or_gone().is_some();
    if !died {
        let name = format!("{}{nth}-", calls.split(',').next().unwrap_or(calls));
        let load = Load::start(&[node.address()], &Workload { name, writers: 3, ..Workload::default() }, rng);
        let limit = Instant::now() + Duration::from_secs(if thorough() { 10 } else { 2 });
        while !died && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
            died = node.exited().is_some();
        }
        node.kill();
        written = load.finish();
    }
    node.replan(|plan| plan.under::<OsString>([]));
    node.restart();
    written.verify(&mut node.client());
    history.absorb(written);
    died
}

/// Calls that change files, together where a program may use either.
const WRITES: &str = "pwrite64,pwritev,pwritev2";
const SYNCS: &str = "fdatasync,fsync";
const RENAMES: &str = "rename,renameat,renameat2";
const SIZES: &str = "ftruncate,fallocate";
const REMOVALS: &str = "unlink,unlinkat";

#[test]
fn every_acknowledged_write_survives_a_death_at_any_call_to_the_disk() {
    let Some(tracer) = Tracer::found() else { return };
    let mut rng = seeded("a death at any call to the disk");
    let mut node = Node::on_disk();
    let mut history = History::default();
    let most = if thorough() { 40 } else { 6 };
    let often = (1..=most).chain([25, 60, 150].into_iter().filter(|nth| *nth > most));
    let mut deaths = vec![];
    for nth in often {
        for calls in [WRITES, SYNCS] {
            if die_at(&tracer, &mut node, calls, nth, &mut history, &mut rng) {
                deaths.push((calls, nth));
            }
        }
    }
    for nth in 1..=if thorough() { 10 } else { 2 } {
        for calls in [RENAMES, SIZES, REMOVALS] {
            if die_at(&tracer, &mut node, calls, nth, &mut history, &mut rng) {
                deaths.push((calls, nth));
            }
        }
    }
    history.verify(&mut node.client());
    eprintln!("died at {deaths:?}");
    assert!(deaths.len() >= 6, "the faults hardly ever happened: {deaths:?}");
    assert!(history.count(Outcome::Acknowledged) > 100, "hardly anything was at stake");
}

#[test]
fn a_death_while_the_folder_is_made_leaves_one_that_can_be_used() {
    let Some(tracer) = Tracer::found() else { return };
    let mut deaths = 0;
    for calls in [WRITES, SYNCS, RENAMES, SIZES, "mkdir,mkdirat", "write"] {
        for nth in 1..=if thorough() { 20 } else { 3 } {
            let words = tracer.inject(calls, &format!("signal=KILL:when={nth}"));
            let mut node = Plan::new(&[]).under(words).spawn();
            deaths += usize::from(node.ready_or_gone().is_some());
            node.kill();
            node.replan(|plan| plan.under::<OsString>([]));
            node.restart();
            node.put("/kv/a", calls).expect(201);
            node.kill();
            node.restart();
            assert_eq!(node.get("/kv/a").expect(200).text(), calls);
        }
    }
    assert!(deaths >= 3, "only {deaths} starts were interrupted");
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error_and_not_a_missing_key() {
    let mut node = Node::on_disk();
    node.put("/kv/a", "v").expect(201);
    assert_eq!(node.stop(Duration::from_secs(10)).code(), Some(0));
    // Every file gone but the folder still there: not an empty store that says 404.
    let log = node.data().join("log");
    let segments: Vec<PathBuf> =
        std::fs::read_dir(&log).expect("the log").flatten().map(|entry| entry.path()).collect();
    for segment in segments.iter().filter(|path| path.is_file()) {
        std::fs::remove_file(segment).expect("a segment");
        std::fs::create_dir(segment).expect("something that is no segment");
    }
    node.relaunch();
    match node.ready_or_gone() {
        Some(status) => assert_eq!(status.code(), Some(1), "{}", node.log()),
        None => {
            let read = node.client().send(&Request::new("GET", "/kv/a"));
            assert_ne!(read.status, 404, "{read}");
        }
    }
}
