//! The machine: its cores, who may run on which, what it is doing beside us.

use std::process::Command;

/// Who runs where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pin {
    /// The load generator on the last core, the servers on the others: where one thread serves.
    Apart,
    /// The load generator on the last core, the servers on all: where a server has several busy threads.
    Client,
    /// The servers on this one core, as if it were a machine of theirs.
    Alone(usize),
    /// Everybody everywhere: where there are more busy threads than cores anyway.
    Free,
}

impl Pin {
    /// The cores for the load generator, as `taskset` writes them.
    pub fn client(self) -> Option<String> {
        let last = last_core();
        (self != Pin::Free && can_pin()).then(|| last.to_string())
    }

    /// The cores for the servers.
    pub fn servers(self) -> Option<String> {
        match self {
            Pin::Apart if can_pin() => Some(format!("0-{}", last_core().saturating_sub(1))),
            Pin::Alone(core) if can_pin() => Some(core.to_string()),
            _ => None,
        }
    }

    /// For the heading of a table.
    pub fn describe(self) -> String {
        if !can_pin() {
            return "nothing pinned (one core, or no taskset)".into();
        }
        match self {
            Pin::Apart => format!("load generator on core {}, servers on the others", last_core()),
            Pin::Client => format!("load generator on core {}, servers on all", last_core()),
            Pin::Alone(core) => format!("load generator on core {}, servers on core {core}", last_core()),
            Pin::Free => "nothing pinned".into(),
        }
    }
}

/// Keeps the thread that calls it on the core of load generators.
pub fn stay_with_clients() {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(last_core());
    // Where that is not allowed it runs anywhere.
    let _ = rustix::thread::sched_setaffinity(None, &cores);
}

/// A command for `program`, bound to `cores` if any are given.
pub fn command_on(cores: Option<&str>, program: &str) -> Command {
    match cores {
        None => Command::new(program),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores, program]);
            command
        }
    }
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn last_core() -> usize {
    cores() - 1
}

fn can_pin() -> bool {
    cores() > 1 && is_installed("taskset")
}

/// Whether a program can be found.
pub fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Versions and size, the first lines of every report.
pub fn describe() -> String {
    let first_line = |program: &str, argument: &str| -> String {
        let Ok(output) = Command::new(program).arg(argument).output() else { return "none".into() };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_string()
    };
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!(
        "kringle {} | {} | {} | {} | {}\n{} cores of {}, Linux {}, load {} when this began",
        env!("CARGO_PKG_VERSION"),
        first_line("redis-server", "--version"),
        first_line("etcd", "--version"),
        first_line("wrk", "--version").split("Copyright").next().unwrap_or_default().trim(),
        if cfg!(debug_assertions) { "built for debugging: use cargo bench" } else { "release build" },
        cores(),
        model.map_or("unknown make", |(_, model)| model.trim()),
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(" "),
    )
}

/// Seconds of processor time used so far by everybody.
pub fn busy_seconds() -> f64 {
    let text = read("/proc/stat");
    let first = text.lines().next().unwrap_or_default();
    let numbers: Vec<f64> = first.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = numbers.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, number)| number);
    busy.sum::<f64>() / TICKS_PER_SECOND
}

/// Seconds of processor time used so far by a running process.
pub fn process_seconds(pid: u32) -> f64 {
    let numbers = stat_numbers(&format!("/proc/{pid}/stat"));
    numbers.get(11).unwrap_or(&0.0) / TICKS_PER_SECOND + numbers.get(12).unwrap_or(&0.0) / TICKS_PER_SECOND
}

/// Seconds of processor time used by children of ours that have ended.
pub fn ended_children_seconds() -> f64 {
    let numbers = stat_numbers("/proc/self/stat");
    numbers.get(13).unwrap_or(&0.0) / TICKS_PER_SECOND + numbers.get(14).unwrap_or(&0.0) / TICKS_PER_SECOND
}

/// What Linux counts in, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The fields of a `stat` file from the third on: the second is a name and may hold spaces.
fn stat_numbers(path: &str) -> Vec<f64> {
    let text = read(path);
    let Some((_, fields)) = text.rsplit_once(')') else { return Vec::new() };
    fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
}

/// Resident memory of a process in MiB: all of it, and what is not backed by files.
pub fn resident_mib(pid: u32) -> (f64, f64) {
    let text = read(&format!("/proc/{pid}/status"));
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("VmRSS"), field("RssAnon"))
}

/// Bytes that have passed the loopback interface, everybody's.
pub fn loopback_bytes() -> u64 {
    let text = read("/proc/net/dev");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
